//! A step that a revision did not pass: which condition says so, why, and when to look again. Pure.

use std::time::Duration;

use substratus_crds::conditions::plugin as said;

use crate::plugin::{PluginError, Refusal, RegistryError};

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Type of the condition.
    pub condition: &'static str,
    /// Its reason.
    pub reason: &'static str,
    /// What is wrong and what to do about it.
    pub message: String,
    /// When to try again; only after a change where it is absent.
    pub retry: Option<Duration>,
    /// The same may pass later with nothing changed: it says nothing against the revision itself.
    pub passing: bool,
}

impl Failure {
    /// One that lasts until something changes.
    pub fn new(condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self { condition, reason, message: message.into(), retry: None, passing: false }
    }

    /// One of the way to a registry, which is tried again after a minute.
    pub fn access(message: String) -> Self {
        Self { retry: Some(Duration::from_mins(1)), passing: true, ..Self::new(said::RESOLVED, said::REGISTRY_AUTH, message) }
    }

    /// What a failed pull, check or compilation means.
    pub fn of(error: &PluginError) -> Self {
        let (condition, reason) = match error {
            PluginError::Registry(RegistryError::NotFound { .. } | RegistryError::Reference { .. }) => {
                (said::RESOLVED, said::IMAGE_NOT_FOUND)
            }
            PluginError::Registry(RegistryError::Auth { .. }) => (said::RESOLVED, said::REGISTRY_AUTH),
            PluginError::Registry(RegistryError::TooLarge { .. }) => (said::RESOLVED, said::TOO_LARGE),
            PluginError::Registry(RegistryError::DigestMismatch { .. }) => (said::VERIFIED, said::DIGEST_MISMATCH),
            PluginError::Registry(RegistryError::NotAPlugin { .. }) => (said::COMPATIBLE, said::NOT_A_COMPONENT),
            PluginError::Registry(_) => (said::RESOLVED, said::REGISTRY_UNAVAILABLE),
            PluginError::Refused(Refusal::TooLarge { .. }) => (said::COMPATIBLE, said::TOO_LARGE),
            PluginError::Refused(Refusal::NotWasm | Refusal::CoreModule | Refusal::NativeCode | Refusal::Invalid(_)) => {
                (said::COMPATIBLE, said::NOT_A_COMPONENT)
            }
            PluginError::Refused(Refusal::NoManifest | Refusal::ManyManifests | Refusal::Manifest { .. }) => {
                (said::COMPATIBLE, said::MANIFEST)
            }
            PluginError::Refused(_) => (said::COMPATIBLE, said::WORLD),
            _ => (said::COMPILED, said::COMPILE),
        };
        let retry = error.is_passing().then_some(Duration::from_secs(30)).or_else(|| {
            // A registry may get the image, or the right to it, later.
            matches!(error, PluginError::Registry(_)).then_some(Duration::from_mins(5))
        });
        let passing = error.is_passing() || matches!(error, PluginError::Registry(RegistryError::Auth { .. }));
        Self { condition, reason, message: error.to_string(), retry, passing }
    }

    /// What a failed verification means: a registry that cannot be asked says nothing of signatures.
    pub fn of_verification(error: &PluginError) -> Self {
        let failure = Self::of(error);
        if failure.passing || matches!(error, PluginError::Registry(RegistryError::DigestMismatch { .. })) {
            return Self { condition: said::VERIFIED, ..failure };
        }
        // A signature may be attached later.
        let retry = Some(Duration::from_mins(5));
        Self { condition: said::VERIFIED, reason: said::SIGNATURE, retry, ..failure }
    }

    /// In one line, as a revision or another object tells it.
    pub fn line(&self) -> String {
        format!("{}: {}", self.reason, self.message)
    }
}
