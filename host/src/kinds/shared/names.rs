//! Names of children and labels of pods: the contract of the first operator. Pure.

use std::collections::BTreeMap;

/// Label of every object that the operator makes, and of the watches that find them again.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "substratus");
/// Hash of what was applied: an apply that would change nothing is left out.
pub const APPLIED_HASH: &str = "substratus.ai/applied-hash";
/// Identity of a Job: an existing Job with the same identity is never touched.
pub const JOB_IDENTITY: &str = "substratus.ai/identity";
/// How often a Job was started anew by the operator.
pub const ATTEMPT: &str = "substratus.ai/attempt";
/// Annotation of a Model that starts a failed load again at once; any new value counts.
pub const RETRY: &str = "substratus.ai/retry";

/// Service account of loaders and trainers.
pub const MODELLER: &str = "modeller";
/// Service account of servers.
pub const MODEL_SERVER: &str = "model-server";

/// The Job of a Model; also the ConfigMap with its load request.
pub fn model_job(name: &str) -> String {
    format!("{name}-modeller")
}

/// The Deployment and the Service of a Server.
pub fn server(name: &str) -> String {
    format!("{name}-server")
}

/// The ConfigMap with `params.json`; `kind` in lower case.
pub fn params(name: &str, kind: &str) -> String {
    format!("{name}-{kind}-params")
}

/// Labels of a pod that runs for an object; `kind` in lower case.
pub fn pod_labels(kind: &str, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(kind.to_owned(), name.to_owned()), ("role".to_owned(), "run".to_owned())])
}
