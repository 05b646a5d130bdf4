//! Why an object is not (yet) what it should be: a condition in the making. Pure.

use std::time::Duration;

use substratus_crds::conditions::reason;

use crate::plugin::PluginError;
use crate::plugin::types::Failure;

/// A stop on the way: what the condition will say, and when to look again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is wrong and what to do about it.
    pub message: String,
    /// When to look again.
    pub retry: Retry,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// When the object, a plugin or something it refers to changes.
    OnChange,
    /// After this time at the latest.
    After(Duration),
}

impl Retry {
    /// Whichever comes first.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(one), Self::After(other)) => Self::After(one.min(other)),
            (Self::OnChange, retry) | (retry, Self::OnChange) => retry,
        }
    }
}

impl Verdict {
    /// Waits for a change.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), retry: Retry::OnChange }
    }

    /// Looks again after this time.
    pub fn passing(reason: &'static str, message: impl Into<String>, after: Duration) -> Self {
        Self { reason, message: message.into(), retry: Retry::After(after) }
    }

    /// A field of the spec is wrong.
    pub fn invalid(field: &str, why: impl std::fmt::Display) -> Self {
        Self::new(reason::INVALID, format!("{field}: {why}"))
    }

    /// What a failed call of a plugin means for the object.
    pub fn from_plugin(plugin: &str, error: &PluginError) -> Self {
        match error {
            PluginError::Failure(failure) => Self::from_failure(plugin, failure),
            error if error.is_passing() => Self::passing(reason::UNAVAILABLE, named(plugin, error), Duration::from_secs(15)),
            error => Self::new(reason::PLUGIN_FAILED, named(plugin, error)),
        }
    }

    /// What a plugin's own failure means for the object.
    pub fn from_failure(plugin: &str, failure: &Failure) -> Self {
        let say = |what: &str| format!("plugin `{plugin}`: {what}");
        match failure {
            Failure::Invalid(problems) => {
                let list: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.field, p.reason)).collect();
                Self::new(reason::INVALID, list.join("; "))
            }
            Failure::NotFound(what) => Self::passing(reason::NOT_FOUND, say(what), Duration::from_mins(5)),
            Failure::NeedsAuth(what) => Self::passing(reason::NEEDS_AUTH, say(what), Duration::from_mins(1)),
            Failure::Gated(url) => Self::passing(reason::GATED, say(&format!("ask for access at {url}")), Duration::from_mins(5)),
            Failure::Forbidden(what) => Self::passing(reason::FORBIDDEN, say(what), Duration::from_mins(5)),
            Failure::Disabled(what) => Self::passing(reason::DISABLED, say(what), Duration::from_mins(5)),
            Failure::RateLimited(seconds) => Self::passing(
                reason::RATE_LIMITED,
                say("the source asks to come back later"),
                Duration::from_secs(u64::from(seconds.unwrap_or(60))),
            ),
            Failure::Unavailable(what) => Self::passing(reason::UNAVAILABLE, say(what), Duration::from_secs(30)),
            Failure::Unsupported(what) => Self::new(reason::UNSUPPORTED, say(what)),
            Failure::Internal(what) => Self::new(reason::PLUGIN_FAILED, say(what)),
        }
    }
}

/// Most errors name the plugin themselves, as its manifest does.
fn named(plugin: &str, error: &PluginError) -> String {
    let (name, text) = (format!("plugin `{plugin}`"), error.to_string());
    if text.contains(&name) { text } else { format!("{name}: {text}") }
}
