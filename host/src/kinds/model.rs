//! `Model`: a load by a plugin's plan, or a container that loads or trains.

pub mod build;
pub mod conditions;
pub mod observe;
pub mod plan;
pub mod retry;
pub mod validate;

use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use substratus_crds::conditions::COMPLETE;
use substratus_crds::{Model, ModelStatus};

use self::observe::Observed;
use self::plan::{Plan, Run};
use self::retry::Attempt;
use crate::bucket::BucketUrl;
use crate::context::Context;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::names;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::reconcile::Kind;
use crate::reconcile::caches::{self, Trigger};

impl Kind for Model {
    type Status = ModelStatus;
    type Observed = Observed;
    type Plan = Plan;
    type Built = Attempt;
    const MANAGER: &'static str = "model-controller";
    const METRIC: crate::metrics::Kind = crate::metrics::Kind::Model;
    const CONDITION: &'static str = COMPLETE;

    fn observe(self: Arc<Self>, context: &Context) -> Observed {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let caches = &context.caches;
        let base = self.spec.model.as_ref().and_then(|reference| caches::get(&caches.models, &namespace, &reference.name));
        let job = caches::get(&caches.jobs, &namespace, &names::model_job(&name));
        if job.is_none() {
            // What is there was told by the load of an earlier Model of this name.
            context.board.remove(&namespace, &name);
        }
        Observed {
            owner: Owner::of(self.as_ref()),
            job,
            pods: caches.pods.of(&Trigger::Model(namespace.clone(), name.clone())),
            base,
            nodes: caches.accelerator_nodes(),
            catalog: context.catalog(),
            progress: context.board.get(&namespace, &name),
            now: (context.now)(),
            model: self,
        }
    }

    async fn plan(observed: &Observed, context: &Context) -> Result<Plan, Verdict> {
        plan::plan(observed, &context.environment, &context.plugins).await
    }

    fn planned(observed: &Observed, plan: &Plan) -> ModelStatus {
        conditions::planned(observed, plan)
    }

    fn is_recorded(observed: &Observed, plan: &Plan) -> bool {
        matches!(plan.run, Run::Done) || observed.recorded().is_some_and(|record| record.inputs == plan.inputs)
    }

    fn build(observed: &Observed, context: &Context, plan: &Plan) -> Result<(Vec<Child>, Attempt), Verdict> {
        build::build(observed, &context.environment, plan)
    }

    fn buckets(_: &Observed, _: &Context, plan: &Plan) -> Vec<String> {
        node_paths([Some(plan.target.as_str()), plan.base.as_deref()].into_iter().flatten())
    }

    fn candidates(name: &str) -> Vec<(ChildKind, String)> {
        vec![
            (ChildKind::ConfigMap, names::params(name, "model")),
            (ChildKind::ConfigMap, names::model_job(name)),
            (ChildKind::Job, names::model_job(name)),
        ]
    }

    fn conclude(observed: &Observed, plan: &Plan, built: &Attempt) -> (ModelStatus, Retry) {
        conditions::conclude(observed, plan, built)
    }

    fn stopped(observed: &Observed, verdict: &Verdict) -> (ModelStatus, Retry) {
        conditions::stopped(observed, verdict)
    }

    fn status(&self) -> Option<&ModelStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &ModelStatus) -> &[Condition] {
        &status.conditions
    }
}

/// Node paths of bucket URLs, where they are such.
pub(super) fn node_paths<'a>(urls: impl Iterator<Item = &'a str>) -> Vec<String> {
    urls.filter_map(|url| BucketUrl::from_str(url).ok()?.local_path()?.to_str().map(str::to_owned)).collect()
}
