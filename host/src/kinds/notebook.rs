//! `Notebook`: a pod with `JupyterLab`, suspended and resumed, whose workspace stays.

pub mod build;
pub mod conditions;
pub mod idle;
pub mod observe;
pub mod plan;
pub mod validate;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use substratus_crds::{Build, BuildStatus, BuildUpload, Notebook, NotebookStatus, ObjectRef};

use self::observe::Observed;
use self::plan::Plan;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::kinds::artifact::node_paths;
use crate::kinds::image::conclude::Fields;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::names;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::reconcile::caches;
use crate::reconcile::trigger::Trigger;
use crate::reconcile::{Kept, Kind};

impl Kind for Notebook {
    type Status = NotebookStatus;
    type Observed = Observed;
    type Plan = Plan;
    type Built = Retry;
    const MANAGER: &'static str = "notebook-controller";
    const METRIC: crate::metrics::Kind = crate::metrics::Kind::Notebook;

    fn observe(self: Arc<Self>, context: &Context) -> Observed {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let caches = &context.caches;
        let (model, dataset) = (self.spec.model.as_ref(), self.spec.dataset.as_ref());
        let pods = caches.pods.of(&Trigger::Notebook(namespace.clone(), name.clone()));
        Observed {
            owner: Owner::of(self.as_ref()),
            model: model.and_then(|reference| caches::get(&caches.models, &namespace, &reference.name)),
            dataset: dataset.and_then(|reference| caches::get(&caches.datasets, &namespace, &reference.name)),
            pod: pods.into_iter().find(|pod| pod.name_any() == names::notebook(&name)),
            nodes: caches.accelerator_nodes(),
            catalog: context.catalog(),
            now: (context.now)(),
            notebook: self,
        }
    }

    async fn plan(observed: &Observed, context: &Context) -> Result<Plan, Verdict> {
        plan::plan(observed, &context.environment, &context.plugins).await
    }

    fn planned(observed: &Observed, plan: &Plan) -> NotebookStatus {
        conditions::planned(observed, plan)
    }

    fn is_recorded(observed: &Observed, plan: &Plan) -> bool {
        plan.is_suspended || observed.recorded().is_some_and(|record| record.inputs == plan.inputs)
    }

    fn build(observed: &Observed, context: &Context, plan: &Plan) -> Result<(Vec<Child>, Retry), Verdict> {
        build::build(observed, &context.environment, plan)
    }

    fn buckets(_: &Observed, _: &Context, plan: &Plan) -> Vec<String> {
        node_paths([Some(plan.place.as_str()), plan.model.as_deref(), plan.dataset.as_deref()].into_iter().flatten())
    }

    fn candidates(name: &str, _: &Plan) -> Vec<(ChildKind, String)> {
        vec![(ChildKind::ConfigMap, names::params(name, "notebook")), (ChildKind::Pod, names::notebook(name))]
    }

    fn conclude(observed: &Observed, plan: &Plan, built: &Retry) -> (NotebookStatus, Retry) {
        (conditions::conclude(observed, plan), *built)
    }

    fn stopped(observed: &Observed, verdict: &Verdict) -> (NotebookStatus, Retry) {
        conditions::stopped(observed, verdict)
    }

    fn status(&self) -> Option<&NotebookStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &NotebookStatus) -> &[Condition] {
        &status.conditions
    }

    fn wants_build(&self, _: &Catalog) -> Option<&Build> {
        self.spec.build.as_ref()
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

    fn runs(&self) -> bool {
        self.spec.suspend != Some(true)
    }

    fn build_status(status: &NotebookStatus) -> Option<&BuildStatus> {
        status.build.as_ref()
    }

    fn handshake(status: &NotebookStatus) -> Option<&BuildUpload> {
        status.build_upload.as_ref()
    }

    fn kept(status: &mut NotebookStatus) -> Kept<'_> {
        Kept { conditions: &mut status.conditions, build: &mut status.build, upload: &mut status.build_upload }
    }
}
