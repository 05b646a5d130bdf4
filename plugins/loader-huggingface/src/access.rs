//! Who may read a repository, for whoever only looks: the extension `access`, asked for by the extension `looking`. Pure.

use serde_json::{Value, json};
use substratus_plugin::{Failure, loader::Request};

use crate::api::Info;

/// Whether nothing is going to be fetched, so that a plan is worth having where the files may not be read.
pub(crate) fn is_looking(request: &Request) -> bool {
    request.extensions.iter().any(|(name, json)| name == "looking" && json == "true")
}

/// A refusal of the files; other failures are `None`.
pub(crate) fn refusal(failure: &Failure) -> Option<Value> {
    match failure {
        Failure::NeedsAuth(text) => Some(json!({ "needs-auth": text })),
        Failure::Gated(text) => Some(json!({ "gated": text })),
        Failure::Forbidden(text) => Some(json!({ "forbidden": text })),
        _ => None,
    }
}

/// The extension.
pub(crate) fn said(info: &Info, refused: Option<&Value>) -> (String, String) {
    let kind = match (info.is_gated(), info.private) {
        (true, _) => "gated",
        (false, Some(true)) => "private",
        (false, _) => "public",
    };
    ("access".to_owned(), json!({"kind": kind, "refused": refused}).to_string())
}
