//! What the build of one object looks at: its spec and status, its Job and that one's pods. No API call.

use std::sync::Arc;

use jiff::Timestamp;
use substratus_crds::{Build, BuildStatus, BuildUpload};

use super::handshake::Sent;
use super::job::{BUILDER, CLONE, FETCH};
use crate::builder::report::Report;
use crate::kinds::shared::child::Owner;
use crate::reconcile::views::{JobView, PodView};

/// The snapshot.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// The object, as its children name it.
    pub owner: &'a Owner,
    /// `spec.build`.
    pub build: &'a Build,
    /// `spec.image`; never the empty text.
    pub image: Option<&'a str>,
    /// What is on record.
    pub record: Option<&'a BuildStatus>,
    /// What is on record of an upload.
    pub handshake: Option<&'a BuildUpload>,
    /// What is known of one.
    pub sent: Sent,
    /// The annotation that asks for another build.
    pub rebuild: Option<&'a str>,
    /// The Job.
    pub job: Option<Arc<JobView>>,
    /// Its pods.
    pub pods: Vec<Arc<PodView>>,
    /// The time.
    pub now: Timestamp,
}

impl Observed<'_> {
    /// Name of the object.
    pub fn name(&self) -> &str {
        &self.owner.reference.name
    }

    /// Its kind in lower case.
    pub fn kind(&self) -> String {
        self.owner.reference.kind.to_lowercase()
    }

    /// What the newest container that ended said of this build.
    pub fn report(&self, inputs: &str) -> Option<Report> {
        let mut ended: Vec<_> = self
            .pods
            .iter()
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses))
            .filter(|container| [CLONE, FETCH, BUILDER].contains(&container.name.as_str()))
            .filter_map(|container| container.state.terminated.as_ref())
            .filter_map(|ended| Some((ended.finished_at.as_ref().map(|time| time.0), ended.message.as_deref()?)))
            .filter_map(|(when, message)| Some((when, serde_json::from_str::<Report>(message).ok()?)))
            .filter(|(_, report)| report.inputs() == inputs)
            .collect();
        ended.sort_by_key(|(when, _)| *when);
        ended.pop().map(|(_, report)| report)
    }
}
