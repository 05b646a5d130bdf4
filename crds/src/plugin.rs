//! `Plugin`: a sandboxed component that answers the operator's questions. An administrator's object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A WebAssembly component, pulled from an OCI registry, that loads models, imports datasets, places GPUs or plans
/// servers.
/// A Plugin of the same name as a bundled one takes its place.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "substratus.ai",
    version = "v1alpha1",
    kind = "Plugin",
    plural = "plugins",
    singular = "plugin",
    status = "PluginStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "ai-admin",
    printcolumn = r#"{"name":"Active","type":"string","jsonPath":".status.conditions[?(@.type==\"Active\")].status"}"#,
    printcolumn = r#"{"name":"Role","type":"string","jsonPath":".status.role"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Active\")].reason"}"#,
    printcolumn = r#"{"name":"Update","type":"string","jsonPath":".status.conditions[?(@.type==\"UpdateAvailable\")].reason"}"#,
    printcolumn = r#"{"name":"Verified","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Verified\")].reason"}"#,
    printcolumn = r#"{"name":"Digest","type":"string","priority":1,"jsonPath":".status.active"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PluginSpec {
    /// OCI reference by tag or digest; absent configures the bundled plugin of the same name. The `PluginSource` with the longest
    /// prefix of this name says whether and how it is pulled and verified; without one it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether a tag that moves is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// Who lets a new revision answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Older revisions that the status keeps besides the newest and the active one; 5 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 20))]
    pub revision_history_limit: Option<i32>,
    /// The plugin's own configuration, checked against the schema of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
    /// What the plugin may do. The plugin asks in its manifest, the administrator grants; absent grants a bundled plugin
    /// what its manifest asks for, and any other nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grants: Option<Grants>,
    /// Namespaces whose objects it answers for; absent means all. A plugin that lists a namespace answers there before one that
    /// answers for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
}

/// How a Plugin follows its image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Update {
    /// Whether a tag that moves is followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<UpdateMode>,
    /// Time between two questions, such as `10m`, the default; give or take a fifth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20), regex(pattern = r"^([0-9]+[hms])+$"))]
    pub interval: Option<String>,
}

/// `Pinned`, the default: a tag is resolved once, and again only where the image of the spec changes. `Track`: the tag is asked
/// again and again, and what it comes to name is a new revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateMode {
    /// What was resolved stays.
    Pinned,
    /// The tag is followed.
    Track,
}

/// Who lets a new revision answer: `Automatic`, the default, or `Manual`, where every revision waits until the annotation
/// `substratus.ai/approve` names its digest. One that asks for more than the one before it waits for that in any case. Bundled
/// plugins never wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Activation {
    /// The operator, once it passed every step.
    Automatic,
    /// An administrator.
    Manual,
}

/// What a plugin may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Grants {
    /// Hosts it may reach: `scheme://host[:port]`, `https://*.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Which of its named secrets may be sent where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretGrant>,
    /// Server adapters: prefixes of images they may run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// GPU policies: resource, toleration and selector keys they may set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduling: Vec<String>,
}

/// One named secret and the hosts that may get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretGrant {
    /// Name of the use in the plugin's manifest.
    #[serde(rename = "use")]
    pub name: String,
    /// Hosts, as in `hosts`.
    pub hosts: Vec<String>,
}

/// What a plugin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum PluginRole {
    /// World `model-loader`.
    ModelLoader,
    /// World `dataset-importer`.
    DatasetImporter,
    /// World `gpu-policy`.
    GpuPolicy,
    /// World `server-adapter`.
    ServerAdapter,
}

/// What a plugin stands for. Claims are unique per role and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claims {
    /// Schemes of `spec.source`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemes: Vec<String>,
    /// Image repositories it stands in for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// Build sources it stands in for: `github.com/org/repository#folder`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builds: Vec<String>,
    /// Engine names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<String>,
    /// Values of the `CLOUD` setting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clouds: Vec<String>,
}

/// What the operator knows of a Plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginStatus {
    /// Generation of the spec that all of this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PluginRole>,
    /// Version of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
    /// Digest of the component that answers: `sha256:…`. Where the condition `Active` is false, of the one that answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// Image reference with the manifest digest that `active` came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
    /// What the image named one after the other, newest first. To go back, write the `image` of one into the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<PluginRevision>,
    /// `Resolved`, `Verified`, `Compatible`, `Compiled`, `ConfigValid` of the newest revision, `Active`, and `UpdateAvailable`
    /// where a tag is followed or a revision waits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Something that the image named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginRevision {
    /// Digest of the component: `sha256:…`.
    pub digest: String,
    /// Image reference with the digest of its manifest; absent for a bundled plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Version of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Keys that signed it: `sha256:…` of each; `unverified` where its `PluginSource` allows that, `bundled` where it came with the
    /// operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_by: Vec<String>,
    /// What became of it.
    pub state: RevisionState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Since when it is in this state.
    pub since: Time,
}

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevisionState {
    /// It answers.
    Active,
    /// It passed every step and waits, for an administrator or for another plugin's claim.
    Waiting,
    /// A step failed.
    Failed,
    /// It answered before another one did.
    Retired,
    /// It never answered, and another one came.
    Skipped,
}

fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}
