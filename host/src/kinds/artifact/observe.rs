//! What a reconcile looks at: one snapshot from the watch caches, no API call.

use std::sync::Arc;

use jiff::Timestamp;
use substratus_crds::{ArtifactStatus, Dataset, Model, PlanRecord};

use super::{Artifact, Wanted};
use crate::catalog::Catalog;
use crate::kinds::shared::child::Owner;
use crate::kinds::shared::content;
use crate::plugin::types::Node;
use crate::reconcile::views::{ContainerStatusView, JobView, PodStatusView, PodView};
use crate::store::Report;
use crate::worker::report::Outcome;

/// The Job controller's label of its pods.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Observed<A> {
    /// The object.
    pub object: Arc<A>,
    /// Its children's owner.
    pub owner: Owner,
    /// Its Job.
    pub job: Option<Arc<JobView>>,
    /// The Job that does the shards of an import, where they are spread over several pods.
    pub shards: Option<Arc<JobView>>,
    /// The Job that pushes what is complete to a registry.
    pub publisher: Option<Arc<JobView>>,
    /// The Jobs' pods.
    pub pods: Vec<Arc<PodView>>,
    /// The base model that `spec.model` names.
    pub base: Option<Arc<Model>>,
    /// The Dataset that `spec.dataset` names.
    pub dataset: Option<Arc<Dataset>>,
    /// Nodes with accelerators.
    pub nodes: Vec<Node>,
    /// Active plugins.
    pub catalog: Arc<Catalog>,
    /// What the worker reported last.
    pub progress: Option<Report>,
    /// What the pusher reported last.
    pub pushing: Option<Report>,
    /// Places that a load may take files over from, the best first.
    pub siblings: Vec<String>,
    /// The time.
    pub now: Timestamp,
}

impl<A: Artifact> Observed<A> {
    /// Name of the object.
    pub fn name(&self) -> &str {
        self.object.meta().name.as_deref().unwrap_or_default()
    }

    /// What the user asks for.
    pub fn wanted(&self) -> Wanted<'_> {
        self.object.wanted()
    }

    /// Generation of the spec.
    pub fn generation(&self) -> Option<i64> {
        self.object.meta().generation
    }

    /// An annotation of the object.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.object.meta().annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// The status on record, or an empty one.
    pub fn status(&self) -> ArtifactStatus {
        self.object.known().cloned().unwrap_or_default()
    }

    /// The recorded plan.
    pub fn recorded(&self) -> Option<&PlanRecord> {
        self.object.known()?.plan.as_ref()
    }

    /// The artifact is whole.
    pub fn is_ready(&self) -> bool {
        self.object.known().is_some_and(|status| status.ready)
    }

    /// Where the artifact lies, or will.
    pub fn artifacts_url(&self) -> Option<&str> {
        self.object.known()?.artifacts.as_ref()?.url.as_deref()
    }

    /// Pods of what makes the artifact.
    pub fn makers(&self) -> impl Iterator<Item = &PodView> + Clone {
        self.pods.iter().map(AsRef::as_ref).filter(|pod| !self.is_pusher(pod))
    }

    /// Pods of what pushes it.
    pub fn pushers(&self) -> impl Iterator<Item = &PodView> + Clone {
        self.pods.iter().map(AsRef::as_ref).filter(|pod| self.is_pusher(pod))
    }

    fn is_pusher(&self, pod: &PodView) -> bool {
        let name = A::FACTS.publish.map(|publish| publish(self.name()));
        pod.metadata.labels.iter().flatten().any(|(key, value)| key == JOB_NAME && Some(value) == name.as_ref())
    }

    /// The typed result in the termination message of the newest pod of a Job that ended.
    pub fn outcome(&self, inputs: &str, job: &str) -> Option<Outcome> {
        self.last_words(inputs, job, |status| status.container_statuses.first())
    }

    /// The same of the sidecar that publishes what a container left.
    pub fn published(&self, inputs: &str, job: &str) -> Option<Outcome> {
        let is_publisher = |status: &&ContainerStatusView| status.name == content::PUBLISHER;
        self.last_words(inputs, job, |status| status.init_container_statuses.iter().find(is_publisher))
    }

    fn last_words(
        &self,
        inputs: &str,
        job: &str,
        speaker: impl Fn(&PodStatusView) -> Option<&ContainerStatusView>,
    ) -> Option<Outcome> {
        let of_job =
            |pod: &&Arc<PodView>| pod.metadata.labels.iter().flatten().any(|(key, value)| key == JOB_NAME && value == job);
        let mut ended: Vec<_> = self
            .pods
            .iter()
            .filter(of_job)
            .filter_map(|pod| {
                let status = speaker(pod.status.as_ref()?)?;
                let terminated = status.state.terminated.as_ref()?;
                Some((terminated.finished_at.as_ref().map(|time| time.0), terminated.message.as_deref()?))
            })
            .collect();
        ended.sort_by_key(|(when, _)| *when);
        ended.into_iter().rev().find_map(|(_, message)| {
            let outcome: Outcome = serde_json::from_str(message).ok()?;
            let of = match &outcome {
                Outcome::Complete { inputs, .. } | Outcome::Failed { inputs, .. } => inputs,
            };
            (of == inputs).then_some(outcome)
        })
    }
}
