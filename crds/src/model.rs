//! `Model`: weights that are imported, or trained from a base model and a dataset.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{Build, ObjectRef, Param, PodOptions, Resources};
use crate::status::ArtifactStatus;

/// Weights in the artifact bucket. Import them with `source: hf://org/name`, or name an image that loads or trains.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "substratus.ai",
    version = "v1",
    kind = "Model",
    plural = "models",
    singular = "model",
    namespaced,
    status = "ArtifactStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "ai",
    printcolumn = r#"{"name":"Ready","type":"boolean","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Complete\")].reason"}"#,
    printcolumn = r#"{"name":"Progress","type":"string","jsonPath":".status.transfer.progress"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Complete\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// What to import: `hf://org/name[@revision]`, or `oci://registry/repository[:tag|@digest]` with the accounts of
    /// `imagePullSecrets`. The scheme picks the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Name of the Plugin to load with; `none` runs the image as a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Which files of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileFilter>,
    /// Image of the loader or trainer. An image that a plugin stands in for needs no such image anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Build the image from source. `image` names it when it is built: the operator writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Arguments of the entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment of the container. A value `${{ secrets.NAME.KEY }}` is taken from that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Parameters, for plugins and as `/content/params.json`: integers and strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, Param>>,
    /// What the pod asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Base model of a training, at `/content/model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ObjectRef>,
    /// Dataset of a training, at `/content/data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<ObjectRef>,
    /// How often a pod that failed is started again before the Model counts as failed; 0 for a container, 6 for a plugin's
    /// worker, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: Option<i32>,
    /// Where to push what is complete, as an OCI artifact in the layout of `ModelPack`: `oci://registry/repository[:tag]`. A
    /// newer artifact is pushed to the same tag. Ready does not wait for it; the condition `Published` speaks of it, and
    /// `status.published` has the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<String>,
    /// Name of a Secret of this namespace, of type `kubernetes.io/dockerconfigjson`, whose account may push there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish_secret: Option<String>,
    /// More about the pod.
    #[serde(flatten)]
    pub pod: PodOptions,
}

/// Chooses files of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileFilter {
    /// Glob patterns of files to take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Glob patterns of files to leave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// `safetensors`, `gguf`, …: avoids fetching the same weights twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// `false` refuses a source whose chosen files are pickles by name (`.bin`, `.pt`, `.pth`, `.ckpt`, `.pkl`, …): they can run
    /// code when they are opened. `true` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_pickle: Option<bool>,
}
