//! What a worker tells the operator: progress while it runs, and one outcome as the container's termination message.

use serde::{Deserialize, Serialize};
use substratus_crds::conditions::reason;
use substratus_crds::{SourceStatus, TransferStatus};

/// Largest termination message that Kubernetes keeps, in bytes.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Exit code of a failure that [`Outcome::is_final`]. The Job's failure policy ends it at once.
pub const EXIT_FINAL: u8 = 64;

/// Sent while a load runs; the newest one counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The load it belongs to.
    pub inputs: String,
    /// Counters.
    pub transfer: TransferStatus,
}

/// How a load ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
#[expect(clippy::large_enum_variant, reason = "a process has one of these")]
pub enum Outcome {
    /// Every file is in the bucket, verified, and the manifest is written.
    Complete {
        /// The load it belongs to.
        inputs: String,
        /// What was imported.
        source: SourceStatus,
    },
    /// It did not work.
    Failed {
        /// The load it belongs to.
        inputs: String,
        /// Reason of the condition: one of `substratus_crds::conditions::reason`.
        reason: String,
        /// What happened and what to do, for the user.
        message: String,
        /// Seconds the source asked to wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

impl Outcome {
    /// Whether the next pod would end like this one: somebody has to change something first, or the source said when to come
    /// back, which the operator keeps to and a Job would not.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Complete { .. } => true,
            Self::Failed { reason, retry_after, .. } => {
                retry_after.is_some()
                    || !matches!(reason.as_str(), reason::UNAVAILABLE | reason::RATE_LIMITED | reason::JOB_FAILED)
            }
        }
    }
}
