//! Children as the watches see them: typed subsets that hold only what conditions need. Ten thousand of them must fit.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A ConfigMap without its data.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = ConfigMap)]
pub struct ConfigMapView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The fields that we own, as the API server records them.
    #[serde(skip)]
    pub fields: Option<Arc<Value>>,
}

/// A Service without its spec.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Service)]
pub struct ServiceView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The fields that we own, as the API server records them.
    #[serde(skip)]
    pub fields: Option<Arc<Value>>,
}

/// A `ServiceAccount`.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = ServiceAccount)]
pub struct ServiceAccountView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The fields that we own, as the API server records them.
    #[serde(skip)]
    pub fields: Option<Arc<Value>>,
}

/// A `NetworkPolicy` without its spec.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = NetworkPolicy)]
pub struct NetworkPolicyView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The fields that we own, as the API server records them.
    #[serde(skip)]
    pub fields: Option<Arc<Value>>,
}

/// A Deployment without its spec.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Deployment)]
pub struct DeploymentView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The fields that we own, as the API server records them.
    #[serde(skip)]
    pub fields: Option<Arc<Value>>,
    /// Status.
    #[serde(default)]
    pub status: DeploymentStatusView,
}

/// Status of a Deployment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatusView {
    /// Generation that the status speaks of.
    pub observed_generation: i64,
    /// Replicas that there are.
    pub replicas: i32,
    /// Replicas of the newest template.
    pub updated_replicas: i32,
    /// Replicas that answer.
    pub ready_replicas: i32,
    /// Its conditions.
    pub conditions: Vec<ConditionView>,
}

/// A Job without its spec.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Job)]
pub struct JobView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Status.
    #[serde(default)]
    pub status: JobStatusView,
}

/// Status of a Job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobStatusView {
    /// Pods that succeeded.
    pub succeeded: i32,
    /// Pods that failed.
    pub failed: i32,
    /// Its conditions.
    pub conditions: Vec<ConditionView>,
}

impl JobView {
    /// The condition of this type, where it holds.
    pub fn holds(&self, condition: &str) -> Option<&ConditionView> {
        self.status.conditions.iter().find(|known| known.type_ == condition && known.status == "True")
    }

    /// An annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }
}

/// A condition of any object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConditionView {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// CamelCase cause.
    pub reason: Option<String>,
    /// Text.
    pub message: Option<String>,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// A pod: what its containers say.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Pod)]
pub struct PodView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Status.
    #[serde(default)]
    pub status: Option<PodStatusView>,
}

/// Status of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatusView {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: Option<String>,
    /// Why it was evicted.
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
    /// `PodScheduled`, …
    pub conditions: Vec<ConditionView>,
    /// Containers.
    pub container_statuses: Vec<ContainerStatusView>,
    /// Init containers.
    pub init_container_statuses: Vec<ContainerStatusView>,
}

/// Status of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatusView {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Answers its probe.
    pub ready: bool,
    /// Restarts.
    pub restart_count: i32,
    /// Now.
    pub state: StateView,
    /// Before the last restart.
    pub last_state: StateView,
}

/// State of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StateView {
    /// Not started.
    pub waiting: Option<WaitingView>,
    /// Runs.
    pub running: Option<RunningView>,
    /// Ended.
    pub terminated: Option<TerminatedView>,
}

/// A container that waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitingView {
    /// CamelCase cause.
    pub reason: Option<String>,
    /// Text.
    pub message: Option<String>,
}

/// A container that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunningView {
    /// Since when.
    pub started_at: Option<Time>,
}

/// A container that ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TerminatedView {
    /// Exit code.
    pub exit_code: i32,
    /// `OOMKilled`, `Error`, …
    pub reason: Option<String>,
    /// Termination message.
    pub message: Option<String>,
    /// When.
    pub finished_at: Option<Time>,
}

/// A node: labels and what it offers.
#[derive(Resource, Clone, Debug, Default, Serialize, Deserialize)]
#[resource(inherit = Node)]
pub struct NodeView {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Status.
    #[serde(default)]
    pub status: NodeStatusView,
}

/// Status of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatusView {
    /// Resources pods may ask for.
    pub allocatable: std::collections::BTreeMap<String, String>,
}
