//! `Notebook`: an interactive environment beside a Model and a Dataset.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{Build, ObjectRef, Param, PodOptions, Resources};
use crate::status::{Artifacts, BuildStatus, BuildUpload, PlacementStatus, PlanRecord};

/// `JupyterLab` in a pod, with a Model at `/content/model` and a Dataset at `/content/data`. What is saved in its workspace
/// outlives the pod.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "substratus.ai",
    version = "v1",
    kind = "Notebook",
    plural = "notebooks",
    singular = "notebook",
    shortname = "nb",
    namespaced,
    status = "NotebookStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "ai",
    printcolumn = r#"{"name":"Ready","type":"boolean","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Serving\")].reason"}"#,
    printcolumn = r#"{"name":"Suspend","type":"boolean","jsonPath":".spec.suspend"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Serving\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct NotebookSpec {
    /// Image with `jupyter` on its path; absent, the operator's own choice runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Build the image from source. `image` names it when it is built: the operator writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Replaces the command, which starts `JupyterLab` on port 8888 with the token of `NOTEBOOK_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Arguments behind the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment of the container. A value `${{ secrets.NAME.KEY }}` is taken from that Secret. `NOTEBOOK_TOKEN` comes from
    /// the Secret `NAME-notebook-token`, which is made once, unless it is set here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Parameters as `/content/params.json`: integers and strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, Param>>,
    /// What the pod asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Model to mount at `/content/model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ObjectRef>,
    /// Dataset to mount at `/content/data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<ObjectRef>,
    /// `true` stops the pod; what is in the workspace and in `/content/artifacts` stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// Suspend after so long (`30m`, `1h30m`) without a busy kernel, a terminal in use or a connection, as Jupyter tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 20), regex(pattern = r"^([0-9]+[hms])+$"))]
    pub idle_timeout: Option<String>,
    /// More about the pod.
    #[serde(flatten)]
    pub pod: PodOptions,
}

/// What the operator knows of a Notebook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotebookStatus {
    /// The pod answers.
    #[serde(default)]
    #[schemars(required)]
    pub ready: bool,
    /// Generation of the spec that all of this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Serving`, and what concerns it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What was built from `spec.build`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildStatus>,
    /// Where the workspace and the artifacts lie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Artifacts>,
    /// State of an upload handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_upload: Option<BuildUpload>,
    /// Folder in the container whose files outlive the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Secret with the token, in its key `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<String>,
    /// Since when nobody used it, where it was suspended for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Time>,
    /// Where the pod goes and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementStatus>,
    /// The recorded answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanRecord>,
}
