//! What the operator asks a worker to do: one JSON document, mounted into the Job's pod. It holds no secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use substratus_crds::{FileFilter, PluginUsed};

use crate::plugin::Grant;

/// Name of the document in the ConfigMap of the Job.
pub const REQUEST_KEY: &str = "request.json";

/// A load: which plugin to ask what, and where the files go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadRequest {
    /// Hash of everything below that decides the bytes; progress and results carry it back.
    pub inputs: String,
    /// Namespace of the Model.
    pub namespace: String,
    /// Name of the Model.
    pub name: String,
    /// The loader: by digest, from the worker's own image or from the operator's plugin store.
    pub plugin: PluginUsed,
    /// What that loader may do.
    pub grant: Grant,
    /// The loader's configuration, checked against its schema.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// `spec.source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `spec.params`, as JSON values.
    #[serde(default)]
    pub params: BTreeMap<String, serde_json::Value>,
    /// `spec.files`.
    #[serde(default)]
    pub files: FileFilter,
    /// Bucket URL to write to; the files go to its folder `artifacts`, our own records to `.substratus` beside it.
    pub target: String,
}
