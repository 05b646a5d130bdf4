//! What a Notebook's reconcile looks at: one snapshot from the watch caches, no API call.

use std::sync::Arc;

use jiff::Timestamp;
use substratus_crds::{Dataset, Model, Notebook, PlanRecord};

use crate::catalog::Catalog;
use crate::kinds::shared::child::Owner;
use crate::plugin::types::Node;
use crate::reconcile::views::PodView;

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Notebook.
    pub notebook: Arc<Notebook>,
    /// Its children's owner.
    pub owner: Owner,
    /// The Model that `spec.model` names.
    pub model: Option<Arc<Model>>,
    /// The Dataset that `spec.dataset` names.
    pub dataset: Option<Arc<Dataset>>,
    /// Its Pod.
    pub pod: Option<Arc<PodView>>,
    /// Nodes with accelerators.
    pub nodes: Vec<Node>,
    /// Active plugins.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// Name of the Notebook.
    pub fn name(&self) -> &str {
        self.notebook.metadata.name.as_deref().unwrap_or_default()
    }

    /// The recorded plan.
    pub fn recorded(&self) -> Option<&PlanRecord> {
        self.notebook.status.as_ref()?.plan.as_ref()
    }

    /// Where the workspace and the artifacts lie, where a place was chosen.
    pub fn place(&self) -> Option<&str> {
        self.notebook.status.as_ref()?.artifacts.as_ref()?.url.as_deref()
    }

    /// The Pod answers, and nobody has planned it: the first operator did, and what runs stays until the spec changes.
    pub fn is_taken_over(&self) -> bool {
        self.recorded().is_none() && self.pod.is_some() && self.notebook.status.as_ref().is_some_and(|status| status.ready)
    }

    /// The Pod runs and answers its probe.
    pub fn is_ready(&self) -> bool {
        let Some(pod) = self.pod.as_deref().filter(|pod| pod.metadata.deletion_timestamp.is_none()) else { return false };
        pod.status.as_ref().is_some_and(|status| {
            status.phase.as_deref() == Some("Running")
                && status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
        })
    }

    /// The Pod has ended, and a Pod does not start again by itself: evicted, or lost with its node.
    pub fn has_ended(&self) -> bool {
        let phase = self.pod.as_ref().and_then(|pod| pod.status.as_ref()?.phase.as_deref());
        matches!(phase, Some("Failed" | "Succeeded"))
    }
}
