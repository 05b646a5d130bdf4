//! What a Model's reconcile looks at: one snapshot from the watch caches, no API call.

use std::sync::Arc;

use jiff::Timestamp;
use substratus_crds::{Model, PlanRecord};

use crate::catalog::Catalog;
use crate::kinds::shared::child::Owner;
use crate::plugin::types::Node;
use crate::reconcile::views::{JobView, PodView};
use crate::worker::report::{Outcome, Progress};

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Model.
    pub model: Arc<Model>,
    /// Its children's owner.
    pub owner: Owner,
    /// Its Job.
    pub job: Option<Arc<JobView>>,
    /// The Job's pods.
    pub pods: Vec<Arc<PodView>>,
    /// The base model that `spec.model` names.
    pub base: Option<Arc<Model>>,
    /// Nodes with accelerators.
    pub nodes: Vec<Node>,
    /// Active plugins.
    pub catalog: Arc<Catalog>,
    /// What the worker reported last.
    pub progress: Option<Progress>,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// Name of the Model.
    pub fn name(&self) -> &str {
        self.model.metadata.name.as_deref().unwrap_or_default()
    }

    /// The recorded plan.
    pub fn recorded(&self) -> Option<&PlanRecord> {
        self.model.status.as_ref()?.plan.as_ref()
    }

    /// The artifact is whole.
    pub fn is_ready(&self) -> bool {
        self.model.status.as_ref().is_some_and(|status| status.ready)
    }

    /// Where the artifact lies, or will.
    pub fn artifacts_url(&self) -> Option<&str> {
        self.model.status.as_ref()?.artifacts.as_ref()?.url.as_deref()
    }

    /// The typed result in the termination message of the newest pod that ended.
    pub fn outcome(&self, inputs: &str) -> Option<Outcome> {
        let mut ended: Vec<_> = self
            .pods
            .iter()
            .filter_map(|pod| {
                let status = pod.status.as_ref()?.container_statuses.first()?;
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
