//! Parts of a spec that several kinds have. Knows no kind.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Toleration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Another object of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ObjectRef {
    /// Name of the object, in the same namespace.
    pub name: String,
}

/// What the pod asks for. Members left out get the defaults; leaving `resources` out altogether gives the cloud's own defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resources {
    /// Whole CPU cores.
    #[serde(default = "default_cpu")]
    pub cpu: i64,
    /// Memory in GiB.
    #[serde(default = "default_gib")]
    pub memory: i64,
    /// Ephemeral storage in GiB.
    #[serde(default = "default_gib")]
    pub disk: i64,
    /// Accelerators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
}

const fn default_cpu() -> i64 {
    2
}

const fn default_gib() -> i64 {
    10
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: default_cpu(), memory: default_gib(), disk: default_gib(), gpu: None }
    }
}

/// Accelerators of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// Type such as `nvidia-l4`; which ones exist is the GPU policy's knowledge. Empty means any.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// How many.
    #[serde(default)]
    pub count: i64,
}

/// A parameter: an integer or a string. Other numbers, booleans, lists and objects are written as quoted strings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// Integer of at most 64 bits with sign.
    Integer(i64),
    /// Anything that JSON calls a number but is no such integer: kept, so that validation can say what to write instead.
    Number(serde_json::Number),
    /// Text.
    Text(String),
}

impl Param {
    /// The parameter as JSON value, as `params.json` shows it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Integer(value) => (*value).into(),
            Self::Number(value) => value.clone().into(),
            Self::Text(value) => value.clone().into(),
        }
    }

    /// The parameter as text: a string as it is, a number in decimal.
    pub fn to_text(&self) -> String {
        match self {
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Text(value) => value.clone(),
        }
    }
}

impl From<i64> for Param {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<&str> for Param {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl JsonSchema for Param {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Param".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// Build the image from source. Exactly one of `git` and `upload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct Build {
    /// A git repository with a Dockerfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// A tarball that the command line uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<UploadSource>,
}

/// A git repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct GitSource {
    /// URL to clone: `https://…`, `ssh://…` or `user@host:path`. Without an account or a password in it; name a `secret`.
    pub url: String,
    /// Folder used as build context; its `Dockerfile` is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Tag to check out; wins over `branch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Branch to check out. It is read once; the annotation `substratus.ai/rebuild` with a new value reads it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commit to check out, in full; wins over `tag` and `branch`, which name the image all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub commit: Option<String>,
    /// Name of a Secret of this namespace that opens a private repository: keys `username` and `password`, or `token`, for https;
    /// `ssh-privatekey` and `known_hosts` for ssh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Check out submodules, too, and theirs. Those of the same host may be private, with the same Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submodules: Option<bool>,
    /// How many commits of the history are fetched: 1 where nothing is said, all of them for 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub depth: Option<i32>,
}

/// An upload handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
#[serde(rename_all = "camelCase")]
pub struct UploadSource {
    /// MD5 of the gzipped tarball, hexadecimal.
    #[serde(rename = "md5Checksum")]
    #[schemars(length(min = 32, max = 32), regex(pattern = r"^[a-fA-F0-9]{32}$"))]
    pub md5_checksum: String,
    /// Change it to ask for a fresh signed URL.
    #[serde(rename = "requestID")]
    pub request_id: String,
    /// SHA-256 of the same bytes, hexadecimal: checked besides, for MD5 keeps nobody from making other bytes with the same sum.
    #[serde(default, rename = "sha256Checksum", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[a-fA-F0-9]{64}$"))]
    pub sha256_checksum: Option<String>,
    /// Their number; what is longer or shorter is refused.
    #[serde(default, rename = "sizeBytes", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub size_bytes: Option<i64>,
}

/// What a pod may have beyond what its kind gives it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOptions {
    /// Secrets of this namespace to pull images with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<ObjectRef>,
    /// Labels that a node must have, besides what the GPU asks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pod puts up with, besides what the GPU asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Name of a `PriorityClass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Volumes of one's own and where the container sees them. The worker of a plugin mounts none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volumes: Vec<ExtraVolume>,
    /// Takes privileges from the container; giving any is not possible. The worker of a plugin has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

/// A volume and where the container sees it: exactly one of the sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "[has(self.persistentVolumeClaim), has(self.configMap), has(self.secret), has(self.emptyDir)].filter(given, given).size() == 1",
    "message": "name exactly one of persistentVolumeClaim, configMap, secret and emptyDir",
}]))]
pub struct ExtraVolume {
    /// Name of the volume.
    #[schemars(length(min = 1, max = 50), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Absolute path in the container.
    #[schemars(regex(pattern = r"^/[^:]+$"))]
    pub mount_path: String,
    /// Folder or file of the volume instead of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// Mounted for reading only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// A claim of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A `ConfigMap` of this namespace, a file per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ObjectRef>,
    /// A Secret of this namespace, a file per key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSource>,
    /// A folder that lives as long as the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_dir: Option<EmptyDirSource>,
}

/// A claim as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// Name of the `PersistentVolumeClaim`.
    pub claim_name: String,
}

/// A Secret as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// Name of the Secret.
    pub secret_name: String,
}

/// A passing folder as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EmptyDirSource {
    /// Empty for the node's disk, `Memory` for its memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub medium: Option<String>,
    /// Upper bound, such as `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_limit: Option<String>,
}

/// What is taken from a container; spelled as Kubernetes spells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityContext {
    /// User id that the container runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// Group id that the container runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_group: Option<i64>,
    /// Refuse to start as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_as_non_root: Option<bool>,
    /// Group that volumes are writable for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<i64>,
    /// The image's own files cannot be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root_filesystem: Option<bool>,
    /// `false` keeps programs from getting more privileges than they start with; `true` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "!self", "message": "a container cannot be given more privileges"}]))]
    pub allow_privilege_escalation: Option<bool>,
    /// Capabilities to drop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// System calls that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_profile: Option<SeccompProfile>,
}

/// Capabilities of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Names to drop; `ALL` drops every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
}

/// A filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeccompProfile {
    /// `RuntimeDefault` is the container runtime's own.
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["RuntimeDefault"]))]
    pub profile: String,
}
