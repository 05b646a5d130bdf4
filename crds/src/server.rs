//! `Server`: serves a Model over HTTP.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shared::{Build, ObjectRef, Param, PodOptions, Resources};
use crate::status::{BuildStatus, BuildUpload, Candidate, PlacementStatus, PlanRecord, PluginUsed};

/// Serves a Model at `http://NAME-server:8080`. With only `model`, the best fitting engine is chosen.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "substratus.ai",
    version = "v1",
    kind = "Server",
    plural = "servers",
    singular = "server",
    namespaced,
    status = "ServerStatus",
    derive = "Default",
    derive = "PartialEq",
    category = "ai",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name":"Ready","type":"boolean","jsonPath":".status.ready"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Serving\")].reason"}"#,
    printcolumn = r#"{"name":"Engine","type":"string","jsonPath":".status.engine"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"Serving\")].message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    /// The Model to serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ObjectRef>,
    /// Engine, as a server adapter names it; absent, the adapters say how well they fit and the best one wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Image of the engine. An image that an adapter stands in for picks that adapter; any other runs as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Build the image from source. `image` names it when it is built: the operator writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Arguments of the entry point; an adapter's own come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// Environment of the container. A value `${{ secrets.NAME.KEY }}` is taken from that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// Parameters, for adapters and as `/content/params.json`: integers and strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, Param>>,
    /// What the pod asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How many pods serve. `kubectl scale` and a `HorizontalPodAutoscaler` write it.
    #[serde(default = "one", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: Option<i32>,
    /// More about the pods.
    #[serde(flatten)]
    pub pod: PodOptions,
}

#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn one() -> Option<i32> {
    Some(1)
}

/// What the operator knows of a Server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    /// At least one replica answers.
    #[serde(default)]
    #[schemars(required)]
    pub ready: bool,
    /// Generation of the spec that all of this speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Which pods they are, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `Serving`, and what concerns it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What was built from `spec.build`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildStatus>,
    /// State of an upload handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_upload: Option<BuildUpload>,
    /// The engine that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What may be asked of it, where an adapter says so: `openai/completions`, `openai/chat`, `openai/embeddings`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apis: Vec<String>,
    /// The adapter that planned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginUsed>,
    /// What every adapter said, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Why this engine, in the adapter's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where the pod goes and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<PlacementStatus>,
    /// The recorded answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanRecord>,
}
