//! `Server`: an engine chosen by an adapter, or any image under the container contract, as Deployment and Service.

pub mod build;
pub mod conditions;
pub mod observe;
pub mod plan;
pub mod validate;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use substratus_crds::{Build, BuildStatus, BuildUpload, ObjectRef, PluginRole, Server, ServerStatus};

use self::observe::Observed;
use self::plan::Plan;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::kinds::artifact::node_paths;
use crate::kinds::image::conclude::Fields;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::names;
use crate::kinds::shared::route;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::kinds::shared::workload::Workload;
use crate::reconcile::caches;
use crate::reconcile::trigger::Trigger;
use crate::reconcile::{Kept, Kind};

impl Kind for Server {
    type Status = ServerStatus;
    type Observed = Observed;
    type Plan = Plan;
    type Built = ();
    const MANAGER: &'static str = "server-controller";
    const METRIC: crate::metrics::Kind = crate::metrics::Kind::Server;

    fn observe(self: Arc<Self>, context: &Context) -> Observed {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let caches = &context.caches;
        let model = self.spec.model.as_ref().and_then(|reference| caches::get(&caches.models, &namespace, &reference.name));
        Observed {
            owner: Owner::of(self.as_ref()),
            model,
            deployment: caches::get(&caches.deployments, &namespace, &names::server(&name)),
            pods: caches.pods.of(&Trigger::Server(namespace.clone(), name)),
            nodes: caches.accelerator_nodes(),
            catalog: context.catalog(),
            now: (context.now)(),
            server: self,
        }
    }

    async fn plan(observed: &Observed, context: &Context) -> Result<Plan, Verdict> {
        plan::plan(observed, &context.environment, &context.plugins).await
    }

    fn planned(observed: &Observed, plan: &Plan) -> ServerStatus {
        conditions::planned(observed, plan)
    }

    fn is_recorded(observed: &Observed, plan: &Plan) -> bool {
        observed.recorded().is_some_and(|record| record.inputs == plan.inputs)
    }

    fn build(observed: &Observed, context: &Context, plan: &Plan) -> Result<(Vec<Child>, ()), Verdict> {
        build::build(observed, &context.environment, plan).map(|children| (children, ()))
    }

    fn buckets(_: &Observed, _: &Context, plan: &Plan) -> Vec<String> {
        node_paths(std::iter::once(plan.answers.artifacts.as_str()))
    }

    fn candidates(name: &str, _: &Plan) -> Vec<(ChildKind, String)> {
        vec![
            (ChildKind::ConfigMap, names::params(name, "server")),
            (ChildKind::Service, names::server(name)),
            (ChildKind::Deployment, names::server(name)),
        ]
    }

    fn conclude(observed: &Observed, plan: &Plan, (): &()) -> (ServerStatus, Retry) {
        conditions::conclude(observed, plan)
    }

    fn stopped(observed: &Observed, verdict: &Verdict) -> (ServerStatus, Retry) {
        conditions::stopped(observed, verdict)
    }

    fn status(&self) -> Option<&ServerStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &ServerStatus) -> &[Condition] {
        &status.conditions
    }

    fn wants_build(&self, catalog: &Catalog) -> Option<&Build> {
        let workload = Workload::from(&self.spec);
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        // An engine that is named brings its own image.
        let engine = self.spec.engine.as_deref().filter(|engine| !engine.is_empty());
        let needs = match engine {
            Some(engine) => engine == "none",
            None => route::needs_build(catalog, PluginRole::ServerAdapter, &workload, namespace),
        };
        self.spec.build.as_ref().filter(|_| needs)
    }

    fn image(&self) -> Option<&str> {
        self.spec.image.as_deref()
    }

    fn pull_secrets(&self) -> &[ObjectRef] {
        &self.spec.pod.image_pull_secrets
    }

    fn fields(&mut self) -> Fields<'_> {
        Fields { image: &mut self.spec.image, build: &mut self.spec.build, pod: &mut self.spec.pod }
    }

    fn build_status(status: &ServerStatus) -> Option<&BuildStatus> {
        status.build.as_ref()
    }

    fn handshake(status: &ServerStatus) -> Option<&BuildUpload> {
        status.build_upload.as_ref()
    }

    fn kept(status: &mut ServerStatus) -> Kept<'_> {
        Kept { conditions: &mut status.conditions, build: &mut status.build, upload: &mut status.build_upload }
    }
}
