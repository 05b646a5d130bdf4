//! `Dataset`: data that is imported once and mounted by trainings and notebooks.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::FileFilter;
use crate::shared::{Build, Param, PodOptions, Resources};
use crate::status::ArtifactStatus;

/// Data in the artifact bucket. Import it with `source: hf://datasets/org/name`, or name an image that loads it.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "substratus.ai",
    version = "v1",
    kind = "Dataset",
    plural = "datasets",
    singular = "dataset",
    shortname = "data",
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
pub struct DatasetSpec {
    /// What to import: `hf://datasets/org/name[@revision]`, `https://…`. The scheme picks the plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Name of the Plugin to import with; `none` runs the image as a container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Which files of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FileFilter>,
    /// Image of the loader. An image that a plugin stands in for needs no such image anywhere.
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
    /// Pods that work on the shards of an import at the same time, beside one that leads; in an object store one does it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // The index of a pod is part of its host name, which has room for two digits behind the longest name.
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: Option<i32>,
    /// How often a pod that failed is started again before the Dataset counts as failed; 2 for a container, 6 for a
    /// plugin's worker, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub retries: Option<i32>,
    /// More about the pod.
    #[serde(flatten)]
    pub pod: PodOptions,
}
