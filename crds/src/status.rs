//! Parts of a status that several kinds have.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator knows of an object that becomes an artifact: a Model or a Dataset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactStatus {
    /// The artifact is whole.
    #[serde(default)]
    #[schemars(required)]
    pub ready: bool,
    /// Generation of the spec that all of this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Complete`, and what concerns it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What was built from `spec.build`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildStatus>,
    /// Where the artifact lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// State of an upload handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_upload: Option<BuildUpload>,
    /// What was imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// Progress of the transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferStatus>,
    /// What was pushed to a registry, and what is being pushed. Models only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishStatus>,
    /// The plugin that says what to fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginUsed>,
    /// Where the pod goes and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementStatus>,
    /// The recorded answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanRecord>,
}

/// What was pushed to a registry, and what is being pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishStatus {
    /// Where the newest push went, as `spec.publish` said then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Digest of its manifest: `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Hash of what was pushed where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Progress of a push that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferStatus>,
    /// How often the operator has started the push that runs anew: pauses grow with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i32,
}

/// What was built from `spec.build`, and how often what is being built was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildStatus {
    /// Name of the newest image that was built, as `spec.image` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Digest of its manifest, by which pods run it: `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Commit that it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Hash of what it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// How often the operator has started the build that runs anew: pauses grow with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i32,
}

/// Where the object's artifacts lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifacts {
    /// Bucket URL; the files are in its folder `artifacts`. A value that is already there is honoured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// State of an upload handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildUpload {
    /// URL for one PUT of the tarball.
    #[serde(default, rename = "signedURL", skip_serializing_if = "Option::is_none")]
    pub signed_url: Option<String>,
    /// Which request the URL answers.
    #[serde(default, rename = "requestID", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// When the URL ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Time>,
    /// Checksum of what is stored, hexadecimal.
    #[serde(default, rename = "storedMD5Checksum", skip_serializing_if = "Option::is_none")]
    pub stored_md5_checksum: Option<String>,
}

/// What was imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The immutable revision the source was resolved to (a commit, a digest).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// `safetensors`, `gguf`, `pytorch`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Licence as the source names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Bytes of all files.
    #[serde(default)]
    pub bytes: i64,
    /// Number of files.
    #[serde(default)]
    pub files: i64,
    /// Architecture as the model's own configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Number of parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<i64>,
    /// Number type of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// Quantisation, such as `Q4_K_M`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// Longest context in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<i64>,
    /// The file an engine opens where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// Number of rows of a dataset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Splits of a dataset: `train`, `test`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<String>,
    /// Columns of a dataset as `name: type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schema: Vec<String>,
    /// Why less than the whole dataset is there, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// What the plugin wants the user to know, such as weights that come as pickle only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Progress of a transfer that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferStatus {
    /// Share of the bytes that are there, such as `63%`.
    #[serde(default)]
    pub progress: String,
    /// Bytes that are on disk and verified or being verified.
    #[serde(default)]
    pub bytes_done: i64,
    /// Bytes of all files.
    #[serde(default)]
    pub bytes_total: i64,
    /// Current rate.
    #[serde(default)]
    pub bytes_per_second: i64,
    /// Seconds to go at the current rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// Files that are whole and verified.
    #[serde(default)]
    pub files_done: i64,
    /// Number of files.
    #[serde(default)]
    pub files_total: i64,
    /// Bytes that were not fetched, but taken over from other artifacts of the namespace.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reused_bytes: i64,
    /// A file that is being fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The pod that moves the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// No byte has come for a minute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stalled: bool,
    /// Share of the bytes, in percent, that an Event spoke of last: 0, 25, 50 or 75.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<i32>,
    /// When this was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// The plugin revision that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct PluginUsed {
    /// Name of the Plugin object, or of the bundled plugin.
    pub name: String,
    /// Version of its manifest.
    pub version: String,
    /// Digest of the component: `sha256:…`.
    pub digest: String,
}

/// Where a pod goes and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacementStatus {
    /// One sentence of the GPU policy.
    pub reason: String,
}

/// One adapter's answer to the question how well it would serve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// Engine name.
    pub engine: String,
    /// 0 (cannot) to 100.
    pub score: i32,
    /// Why.
    pub reason: String,
}

/// The recorded answers: what makes a plan sticky. An object keeps them until its own inputs change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRecord {
    /// Hash of the inputs that were planned for.
    pub inputs: String,
    /// Bucket URL that a load writes to; `status.artifacts` switches to it when the load is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What was planned is whole: it stays so, whatever becomes of the Job that made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// How often the operator has started it anew: pauses grow with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: i32,
    /// Answers by role, as the plugins gave them.
    #[schemars(schema_with = "free_form")]
    pub answers: serde_json::Value,
}

/// Replaced as a whole: merged field by field, an object that becomes empty would become null.
fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-map-type": "atomic"
    })
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}
