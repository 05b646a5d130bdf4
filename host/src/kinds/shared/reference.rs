//! Models and Datasets that other objects name: where their artifacts lie, or what is missing. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use substratus_crds::conditions::COMPLETE;
use substratus_crds::{ArtifactStatus, ObjectRef};

use super::cause;
use super::conditions::find;
use super::verdict::Verdict;
use crate::kinds::artifact::Artifact;

/// Longest part of another object's message that is repeated, in characters.
const MAX_QUOTE: usize = 300;

/// The two reasons that a reference can end in.
#[derive(Clone, Copy, Debug)]
pub struct Reasons {
    /// No such object.
    pub not_found: &'static str,
    /// It is not ready.
    pub not_ready: &'static str,
}

/// Where the artifacts of a ready object lie.
pub fn url<A: Artifact>(object: Option<&A>) -> Option<&str> {
    let status = object?.known().filter(|status| status.ready)?;
    status.artifacts.as_ref()?.url.as_deref()
}

/// The artifacts of what a field names; nothing where the field is absent or names nothing.
pub fn resolve<A: Artifact>(
    reference: Option<&ObjectRef>,
    object: Option<&A>,
    namespace: &str,
    reasons: Reasons,
) -> Result<Option<String>, Verdict> {
    let Some(name) = reference.map(|reference| reference.name.as_str()).filter(|name| !name.is_empty()) else { return Ok(None) };
    let kind = A::kind(&());
    let Some(found) = object else {
        return Err(Verdict::new(reasons.not_found, format!("no {kind} `{name}` in namespace `{namespace}`")));
    };
    match url(Some(found)) {
        Some(url) => Ok(Some(url.to_owned())),
        None => Err(Verdict::new(reasons.not_ready, format!("{kind} `{name}` is not ready{}", why(found.known())))),
    }
}

fn why(status: Option<&ArtifactStatus>) -> String {
    let condition: Option<&Condition> = status.and_then(|status| find(&status.conditions, COMPLETE));
    let why = condition
        .map(|said| format!("{}: {} {}", cause::since(Some(&said.last_transition_time)), said.reason, said.message))
        .unwrap_or_default();
    why.trim_end().chars().take(MAX_QUOTE).collect()
}
