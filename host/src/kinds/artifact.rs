//! What becomes an artifact in the bucket, a `Model` or a `Dataset`: a plugin's plan and our worker, or a container. One pipeline
//! for both; what they differ in is [`Artifact`].

pub mod build;
pub mod conditions;
pub mod jobs;
pub mod observe;
pub mod plan;
pub mod push;
pub mod retry;
mod siblings;
mod transfer;
pub mod validate;

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use substratus_crds::{ArtifactStatus, Build, BuildStatus, BuildUpload, FileFilter, ObjectRef, PluginRole};

use self::observe::Observed;
use self::plan::{Plan, Run};
use self::retry::Built;
use crate::bucket::BucketUrl;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::kinds::image::conclude::Fields;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::names;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::kinds::shared::workload::Workload;
use crate::reconcile::caches;
use crate::reconcile::trigger::Trigger;
use crate::reconcile::{Kept, Kind, News};
use crate::worker::reuse::MAX_PLACES;

/// A kind that becomes an artifact.
pub trait Artifact:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What is fixed for the kind.
    const FACTS: Facts;

    /// What the user asks for.
    fn wanted(&self) -> Wanted<'_>;
    /// The status that is on record.
    fn known(&self) -> Option<&ArtifactStatus>;
    /// What of the spec says where the image comes from.
    fn image_fields(&mut self) -> Fields<'_>;
}

/// What is fixed for a kind: the contract of the first operator, and whom it asks.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The kind in lower case: label of its pods, and part of its place in the bucket.
    pub kind: &'static str,
    /// Field manager.
    pub manager: &'static str,
    /// Label in metrics.
    pub metric: crate::metrics::Kind,
    /// Name of its Job.
    pub job: fn(&str) -> String,
    /// Name of the Job that does the shards of an import, where the kind can have one.
    pub shards: Option<fn(&str) -> String>,
    /// Name of the Job that pushes what is complete to a registry, where the kind can have one.
    pub publish: Option<fn(&str) -> String>,
    /// Name of the container.
    pub container: &'static str,
    /// Service account.
    pub account: &'static str,
    /// Who says what to fetch.
    pub role: PluginRole,
    /// What such a plugin does, for messages.
    pub verb: &'static str,
    /// Subcommand of the worker.
    pub subcommand: &'static str,
    /// That worker takes files over from other artifacts.
    pub reuses: bool,
    /// How often a container's pod is started again where the user says nothing.
    pub retries: i32,
    /// What a source looks like, for messages.
    pub example: &'static str,
    /// What looks at it again.
    pub trigger: fn(String, String) -> Trigger,
}

/// What the user asks for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What to import.
    pub source: &'a Option<String>,
    /// Whom to ask.
    pub plugin: &'a Option<String>,
    /// Which files.
    pub files: &'a Option<FileFilter>,
    /// What runs.
    pub workload: Workload<'a>,
    /// Base model.
    pub model: Option<&'a ObjectRef>,
    /// Training data.
    pub dataset: Option<&'a ObjectRef>,
    /// Restarts of a failed pod.
    pub retries: Option<i32>,
    /// Shards at a time.
    pub parallelism: Option<i32>,
    /// Where to push what is complete.
    pub publish: Option<&'a str>,
    /// Secret with the account that may.
    pub publish_secret: Option<&'a str>,
}

impl<A: Artifact> Kind for A {
    type Status = ArtifactStatus;
    type Observed = Observed<A>;
    type Plan = Plan;
    type Built = Built;
    const MANAGER: &'static str = A::FACTS.manager;
    const METRIC: crate::metrics::Kind = A::FACTS.metric;

    fn observe(self: Arc<Self>, context: &Context) -> Observed<A> {
        let (namespace, name) = (self.namespace().unwrap_or_default(), self.name_any());
        let caches = &context.caches;
        let wanted = self.wanted();
        let name_of_job = (A::FACTS.job)(&name);
        let job = caches::get(&caches.jobs, &namespace, &name_of_job);
        let trigger = (A::FACTS.trigger)(namespace.clone(), name.clone());
        // What is offered to a load is part of its Job, and asked for when there is none yet.
        let asked = A::FACTS.reuses && job.is_none();
        let siblings = if asked { siblings(self.as_ref(), context, &trigger) } else { Vec::new() };
        if job.is_none() {
            // What is there was told of an earlier object of this name.
            context.board.remove(&namespace, &name_of_job);
        }
        let name_of_push = A::FACTS.publish.map(|publish| publish(&name)).unwrap_or_default();
        let publisher = caches::get(&caches.jobs, &namespace, &name_of_push);
        if publisher.is_none() {
            context.board.remove(&namespace, &name_of_push);
        }
        Observed {
            owner: Owner::of(self.as_ref()),
            job,
            shards: A::FACTS.shards.and_then(|shards| caches::get(&caches.jobs, &namespace, &shards(&name))),
            base: wanted.model.and_then(|reference| caches::get(&caches.models, &namespace, &reference.name)),
            dataset: wanted.dataset.and_then(|reference| caches::get(&caches.datasets, &namespace, &reference.name)),
            nodes: caches.accelerator_nodes(),
            catalog: context.catalog(),
            progress: context.board.get(&namespace, &name_of_job),
            pushing: context.board.get(&namespace, &name_of_push),
            publisher,
            now: (context.now)(),
            pods: caches.pods.of(&trigger),
            siblings,
            object: self,
        }
    }

    async fn plan(observed: &Observed<A>, context: &Context) -> Result<Plan, Verdict> {
        plan::plan(observed, &context.environment, &context.plugins).await
    }

    fn planned(observed: &Observed<A>, plan: &Plan) -> ArtifactStatus {
        conditions::planned(observed, plan)
    }

    fn is_recorded(observed: &Observed<A>, plan: &Plan) -> bool {
        matches!(plan.run, Run::Done) || observed.recorded().is_some_and(|record| record.inputs == plan.inputs)
    }

    fn build(observed: &Observed<A>, context: &Context, plan: &Plan) -> Result<(Vec<Child>, Built), Verdict> {
        build::build(observed, &context.environment, plan)
    }

    fn buckets(observed: &Observed<A>, _: &Context, plan: &Plan) -> Vec<String> {
        let own = [Some(plan.target.as_str()), plan.base.as_deref(), plan.dataset.as_deref()].into_iter().flatten();
        node_paths(own.chain(observed.siblings.iter().map(String::as_str)))
    }

    fn candidates(name: &str, plan: &Plan) -> Vec<(ChildKind, String)> {
        let publish = A::FACTS.publish.map(|publish| (ChildKind::Job, publish(name)));
        let mut candidates: Vec<_> = plan.idle_policies.iter().map(|name| (ChildKind::NetworkPolicy, name.clone())).collect();
        if matches!(plan.run, Run::Done) {
            // What made the artifact stays to be looked at, and so does what pushed it; a push that nobody wants any more goes.
            candidates.extend(publish.filter(|_| push::is_unwanted(plan)));
            return candidates;
        }
        candidates.extend([
            (ChildKind::ConfigMap, names::params(name, A::FACTS.kind)),
            (ChildKind::ConfigMap, (A::FACTS.job)(name)),
            (ChildKind::Job, (A::FACTS.job)(name)),
        ]);
        candidates.extend(A::FACTS.shards.map(|shards| (ChildKind::Job, shards(name))));
        candidates.extend(publish);
        candidates
    }

    fn conclude(observed: &Observed<A>, plan: &Plan, built: &Built) -> (ArtifactStatus, Retry) {
        conditions::conclude(observed, plan, built)
    }

    fn stopped(observed: &Observed<A>, verdict: &Verdict) -> (ArtifactStatus, Retry) {
        conditions::stopped(observed, verdict)
    }

    fn status(&self) -> Option<&ArtifactStatus> {
        self.known()
    }

    fn news(before: Option<&ArtifactStatus>, now: &ArtifactStatus) -> Vec<News> {
        transfer::news(before.and_then(|before| before.transfer.as_ref()), now.transfer.as_ref())
    }

    fn conditions(status: &ArtifactStatus) -> &[Condition] {
        &status.conditions
    }

    fn wants_build(&self, catalog: &Catalog) -> Option<&Build> {
        let wanted = self.wanted();
        let namespace = self.meta().namespace.as_deref().unwrap_or_default();
        wanted.workload.build.filter(|_| validate::needs_build(catalog, A::FACTS.role, &wanted, namespace))
    }

    fn image(&self) -> Option<&str> {
        self.wanted().workload.image
    }

    fn pull_secrets(&self) -> &[ObjectRef] {
        &self.wanted().workload.pod.image_pull_secrets
    }

    fn fields(&mut self) -> Fields<'_> {
        self.image_fields()
    }

    fn build_status(status: &ArtifactStatus) -> Option<&BuildStatus> {
        status.build.as_ref()
    }

    fn handshake(status: &ArtifactStatus) -> Option<&BuildUpload> {
        status.build_upload.as_ref()
    }

    fn kept(status: &mut ArtifactStatus) -> Kept<'_> {
        Kept { conditions: &mut status.conditions, build: &mut status.build, upload: &mut status.build_upload }
    }
}

/// Places that a load of this object may take files over from, the best first.
fn siblings<A: Artifact>(object: &A, context: &Context, own: &Trigger) -> Vec<String> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let generation = object.meta().generation.unwrap_or_default();
    let earlier = siblings::of_earlier(&context.environment, &namespace, A::FACTS.kind, &name, generation);
    earlier.into_iter().chain(siblings::of_others(context, &namespace, own)).take(MAX_PLACES).collect()
}

/// Node paths of bucket URLs, where they are such.
pub(super) fn node_paths<'a>(urls: impl Iterator<Item = &'a str>) -> Vec<String> {
    urls.filter_map(|url| BucketUrl::from_str(url).ok()?.local_path()?.to_str().map(str::to_owned)).collect()
}
