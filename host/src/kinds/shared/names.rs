//! Names of children and labels of pods: the contract of the first operator. Pure.

use std::collections::BTreeMap;

/// Label of every object that the operator makes, and of the watches that find them again.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "substratus");
/// Hash of what was applied: an apply that would change nothing is left out.
pub const APPLIED_HASH: &str = "substratus.ai/applied-hash";
/// What a Job, a Notebook's Pod or a Deployment was made for. A Job or Pod with the identity that is wanted is never touched.
pub const IDENTITY: &str = "substratus.ai/identity";
/// Hash of a Server's parameters, in its pods: other parameters are other pods.
pub const PARAMS: &str = "substratus.ai/params";
/// How often a Job was started anew by the operator.
pub const ATTEMPT: &str = "substratus.ai/attempt";
/// Annotation of a Model or Dataset that starts a failed load again at once; any new value counts.
pub const RETRY: &str = "substratus.ai/retry";
/// Annotation of a Notebook's pod: the `idleTimeout` that its sidecar watches.
pub const IDLE_TIMEOUT: &str = "substratus.ai/idle-timeout";
/// Annotation of a Notebook: the generation that suspended it because nobody used it, and since when: `4@2026-11-24T04:00:00Z`.
pub const IDLE: &str = "substratus.ai/idle";

/// Label of the pods of our workers alone: the Job that they are of. No spec of ours lets a user set it.
pub const WORKER: &str = "substratus.ai/worker";

/// How the names of Jobs end that push to a registry.
pub const PUBLISH: &str = "-publish";

/// Annotation of any object with a `spec.build`: a new value builds its image anew, from what the branch has then.
pub const REBUILD: &str = "substratus.ai/rebuild";
/// Annotation of the Job that builds an image: its name, as the first operator wrote it.
pub const IMAGE: &str = "image";
/// Value of the label `role` of pods that build.
pub const BUILDS: &str = "build";

/// Service account of builders.
pub const CONTAINER_BUILDER: &str = "container-builder";
/// Service account of loaders and trainers.
pub const MODELLER: &str = "modeller";
/// Service account of what loads datasets.
pub const DATA_LOADER: &str = "data-loader";
/// Service account of servers.
pub const MODEL_SERVER: &str = "model-server";
/// Service account of notebooks.
pub const NOTEBOOK: &str = "notebook";

/// The Job of a Model; also the ConfigMap with its worker's request.
pub fn model_job(name: &str) -> String {
    format!("{name}-modeller")
}

/// The Job that pushes a Model to a registry.
pub fn model_publish(name: &str) -> String {
    format!("{name}{PUBLISH}")
}

/// The Job of a Dataset; also the ConfigMap with its worker's request.
pub fn dataset_job(name: &str) -> String {
    format!("{name}-data-loader")
}

/// The Job that does the shards of a Dataset, where they are spread over several pods.
pub fn dataset_shards(name: &str) -> String {
    format!("{name}-data-shards")
}

/// The Pod of a Notebook.
pub fn notebook(name: &str) -> String {
    format!("{name}-notebook")
}

/// The Secret with the token of a Notebook.
pub fn notebook_token(name: &str) -> String {
    format!("{name}-notebook-token")
}

/// The Deployment and the Service of a Server.
pub fn server(name: &str) -> String {
    format!("{name}-server")
}

/// The Job that builds the image of an object; `kind` in lower case.
pub fn build_job(name: &str, kind: &str) -> String {
    format!("{name}-{kind}-bld")
}

/// The ConfigMap with `params.json`; `kind` in lower case.
pub fn params(name: &str, kind: &str) -> String {
    format!("{name}-{kind}-params")
}

/// Labels of a pod that runs for an object; `kind` in lower case.
pub fn pod_labels(kind: &str, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(kind.to_owned(), name.to_owned()), ("role".to_owned(), "run".to_owned())])
}

/// Labels of a pod that builds the image of an object; `kind` in lower case.
pub fn build_labels(kind: &str, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(kind.to_owned(), name.to_owned()), ("role".to_owned(), BUILDS.to_owned())])
}
