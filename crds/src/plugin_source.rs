//! `PluginSource`: whom to trust with plugins, by the beginning of an image's name. An administrator's object.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretGrant;

/// Whom to trust with plugins: where images of a prefix are pulled from, who must have signed them, and what their plugins may be
/// granted at most. Of several that fit an image, the one with the longest prefix counts, alone. An image that none fits is not
/// pulled.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "substratus.ai",
    version = "v1alpha1",
    kind = "PluginSource",
    plural = "pluginsources",
    singular = "pluginsource",
    derive = "PartialEq",
    category = "ai-admin",
    printcolumn = r#"{"name":"Prefix","type":"string","jsonPath":".spec.prefix"}"#,
    printcolumn = r#"{"name":"Mirror","type":"string","jsonPath":".spec.mirror"}"#,
    printcolumn = r#"{"name":"Unverified","type":"string","jsonPath":".spec.unverified"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PluginSourceSpec {
    /// Beginning of image names, registry included: `registry.example/acme/`, or one repository in full. It ends where a name
    /// ends: `registry.example/acme` does not fit `registry.example/acme-evil`.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-zA-Z0-9][-a-zA-Z0-9._]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._]*)*/?$"))]
    pub prefix: String,
    /// What stands in place of the prefix when images and their signatures are pulled: `registry.internal/acme/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-zA-Z0-9][-a-zA-Z0-9._]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._]*)*/?$"))]
    pub mirror: Option<String>,
    /// Secret of type `kubernetes.io/dockerconfigjson` in the operator's namespace, for a registry that wants credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret: Option<String>,
    /// Certificates to trust besides the system's when speaking to the registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Only images that name a digest are taken.
    #[serde(default, skip_serializing_if = "is_false")]
    pub require_digest: bool,
    /// Who must have signed an image. Absent needs `unverified: Allow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// What becomes of images that nobody verifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified: Option<Unverified>,
    /// The most that plugins from here may be granted, whatever their Plugin objects say. Absent bounds nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Ceiling>,
}

/// Where certificates lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// A ConfigMap in the operator's namespace with certificates in PEM format under the key `ca.crt`.
    pub config_map: String,
}

/// Who must have signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// Public keys in PEM format; a signature by one of them is enough.
    #[schemars(length(min = 1, max = 20))]
    pub keys: Vec<String>,
}

/// `Allow` takes images that nobody verifies, where `verify` is absent. Every Plugin from here says so in its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Unverified {
    /// They are taken, and their Plugins say so.
    Allow,
}

/// The most that plugins may be granted. A list that is absent bounds nothing, an empty one allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ceiling {
    /// Hosts, as in a Plugin's grants. Secrets go to no others either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Named secrets and the hosts that may get them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretGrant>>,
    /// Prefixes of images that server adapters may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Vec<String>>,
    /// Resource, toleration and selector keys that GPU policies may set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Vec<String>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}
