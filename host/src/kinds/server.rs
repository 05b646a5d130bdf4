//! `Server`: an engine chosen by an adapter, or any image under the container contract, as Deployment and Service.

pub mod build;
pub mod conditions;
pub mod observe;
pub mod plan;
pub mod validate;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use substratus_crds::{Server, ServerStatus};

use self::observe::Observed;
use self::plan::Plan;
use crate::context::Context;
use crate::kinds::artifact::node_paths;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::names;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::reconcile::Kind;
use crate::reconcile::caches;
use crate::reconcile::trigger::Trigger;

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
}
