//! How a load fails: the reason a condition will carry, and a sentence for the user. Knows nothing of where it happened.

use substratus_crds::conditions::reason;
use thiserror::Error;

use super::egress::EgressError;
use crate::bucket::SinkError;
use crate::bucket::sink::Trouble;

/// A failed load.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct LoadError {
    /// One of `substratus_crds::conditions::reason`.
    pub reason: &'static str,
    /// What happened and what to do.
    pub message: String,
    /// Seconds the source asked to wait.
    pub retry_after: Option<u64>,
}

impl LoadError {
    /// A failure for `reason`.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry_after: None }
    }

    /// The source asks to come back in so many seconds. The time of day is said too: a condition is read later than it is written.
    pub fn rate_limited(seconds: u64) -> Self {
        let until = jiff::Timestamp::now()
            .round(jiff::Unit::Second)
            .and_then(|now| now.checked_add(jiff::SignedDuration::try_from(std::time::Duration::from_secs(seconds))?))
            .map(|until| format!(", until {until}"))
            .unwrap_or_default();
        let message = format!("the source asks to wait {seconds} s{until}");
        Self { retry_after: Some(seconds), ..Self::new(reason::RATE_LIMITED, message) }
    }

    /// A failure that may pass.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(reason::UNAVAILABLE, message)
    }
}

impl From<EgressError> for LoadError {
    fn from(error: EgressError) -> Self {
        let reason = match &error {
            EgressError::Denied(_) => reason::PLUGIN_DENIED,
            EgressError::Invalid(_) => reason::PLUGIN_FAILED,
            EgressError::Limit(_) | EgressError::Unavailable(_) => reason::UNAVAILABLE,
        };
        Self::new(reason, error.to_string())
    }
}

impl From<SinkError> for LoadError {
    fn from(error: SinkError) -> Self {
        let reason = match &error {
            SinkError::NoSpace(_) => reason::TOO_LARGE,
            SinkError::Refused(..) => reason::REFUSED,
            SinkError::Unsupported(_) => reason::UNSUPPORTED,
            SinkError::Busy(_) | SinkError::Store(Trouble::Passing | Trouble::Gone, _) => reason::UNAVAILABLE,
            SinkError::Store(Trouble::Denied, _) => reason::NEEDS_AUTH,
            SinkError::Store(Trouble::Missing, _) => reason::NOT_FOUND,
            SinkError::Store(Trouble::Settings, _) => reason::INVALID,
            SinkError::Io { .. } => reason::JOB_FAILED,
        };
        Self::new(reason, error.to_string())
    }
}
