//! What a Server's reconcile looks at: one snapshot from the watch caches, no API call.

use std::sync::Arc;

use jiff::Timestamp;
use substratus_crds::{Model, PlanRecord, Server};

use crate::catalog::Catalog;
use crate::kinds::shared::child::Owner;
use crate::kinds::shared::reference;
use crate::plugin::types::Node;
use crate::reconcile::views::{DeploymentView, PodView};

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Server.
    pub server: Arc<Server>,
    /// Its children's owner.
    pub owner: Owner,
    /// The Model it serves.
    pub model: Option<Arc<Model>>,
    /// Its Deployment.
    pub deployment: Option<Arc<DeploymentView>>,
    /// Its pods.
    pub pods: Vec<Arc<PodView>>,
    /// Nodes with accelerators.
    pub nodes: Vec<Node>,
    /// Active plugins.
    pub catalog: Arc<Catalog>,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// Name of the Server.
    pub fn name(&self) -> &str {
        self.server.metadata.name.as_deref().unwrap_or_default()
    }

    /// The recorded plan.
    pub fn recorded(&self) -> Option<&PlanRecord> {
        self.server.status.as_ref()?.plan.as_ref()
    }

    /// The Model's artifacts, where it is ready.
    pub fn artifacts_url(&self) -> Option<&str> {
        reference::url(self.model.as_deref())
    }

    /// The pod serves, and nobody has planned it: the first operator did, and what runs stays until the spec changes.
    pub fn is_taken_over(&self) -> bool {
        self.recorded().is_none() && self.says_ready()
    }

    /// The plan on record says no more than that the pod served before we came.
    pub fn is_adopted(&self) -> bool {
        self.recorded().is_some_and(|record| record.answers.get("adopted") == Some(&true.into()))
    }

    /// What the status on record says.
    pub fn says_ready(&self) -> bool {
        self.server.status.as_ref().is_some_and(|status| status.ready)
    }
}
