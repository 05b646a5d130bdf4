//! The local hub as a pod, for clusters that cannot reach this process, and to outlive it. It must not know who loads from it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, DynamicObject};
use serde_json::{Value, json};

use super::proxy::Service;
use crate::cluster::{Cluster, eventually};
use crate::hub::{Rule, Stats};
use crate::install;

const LIMIT: Duration = Duration::from_mins(3);
const NAME: &str = "hub";
const PORT: u16 = 8080;
const CDN_PORT: u16 = 8081;

/// A hub in a namespace.
#[derive(Debug, Clone)]
pub struct PodHub {
    namespace: String,
    /// Where pods find the hub.
    pub url: String,
    /// Where pods find its large files.
    pub cdn_url: String,
}

impl PodHub {
    /// The hub of a namespace, whether or not it runs.
    pub fn of(namespace: &str) -> Self {
        let host = format!("{NAME}.{namespace}.svc");
        Self {
            namespace: namespace.to_owned(),
            url: format!("http://{host}:{PORT}"),
            cdn_url: format!("http://{host}:{CDN_PORT}"),
        }
    }

    /// Starts it from an image and waits until it answers.
    pub(super) async fn start(namespace: &str, cluster: &Cluster, image: &str) -> Result<Self> {
        let hub = Self::of(namespace);
        install::apply(&cluster.client(), &hub.objects(image)?).await?;
        let deployments = Api::<Deployment>::namespaced(cluster.client(), namespace);
        eventually("hub", LIMIT, async || {
            let deployment = deployments.get(NAME).await?;
            let status = deployment.status.context("no status yet")?;
            let current = status.observed_generation == deployment.metadata.generation && status.updated_replicas == Some(1);
            ensure!(current && status.available_replicas == Some(1), "{:?}", status.conditions);
            Ok(Some(()))
        })
        .await?;
        Ok(hub)
    }

    /// Arms a fault.
    pub async fn fault(&self, client: &Client, rule: &Rule) -> Result<()> {
        self.ask(client, Method::POST, "faults", Some(&serde_json::to_value(rule)?)).await.map(drop)
    }

    /// Disarms every fault.
    pub async fn clear_faults(&self, client: &Client) -> Result<()> {
        self.ask(client, Method::DELETE, "faults", None).await.map(drop)
    }

    /// What was asked and served since the last [`PodHub::reset_stats`].
    pub async fn stats(&self, client: &Client) -> Result<Stats> {
        serde_json::from_str(&self.ask(client, Method::GET, "stats", None).await?).context("reading the hub's counters")
    }

    /// Counts from zero again.
    pub async fn reset_stats(&self, client: &Client) -> Result<()> {
        self.ask(client, Method::DELETE, "stats", None).await.map(drop)
    }

    async fn ask(&self, client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let service = Service { namespace: &self.namespace, name: NAME, port: PORT };
        service.ask(client, method, &format!("/_hub/{path}"), body).await
    }

    fn objects(&self, image: &str) -> Result<Vec<DynamicObject>> {
        let labels = json!({"app.kubernetes.io/name": "substratus-hub"});
        let metadata = json!({"name": NAME, "namespace": self.namespace, "labels": labels});
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "automountServiceAccountToken": false,
                        "enableServiceLinks": false,
                        "terminationGracePeriodSeconds": 2,
                        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                        "containers": [{
                            "name": NAME,
                            "image": image,
                            "command": ["/bin/substratus-hub", "--listen", format!("0.0.0.0:{PORT}"), "--cdn",
                                format!("0.0.0.0:{CDN_PORT}"), "--cdn-url", self.cdn_url, "--demo", "/model"],
                            "readinessProbe": {"httpGet": {"path": "/_hub/health", "port": PORT}, "periodSeconds": 1},
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }],
                    },
                },
            },
        });
        let ports: Vec<Value> =
            [("hub", PORT), ("cdn", CDN_PORT)].iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports},
        });
        Ok(vec![serde_json::from_value(deployment)?, serde_json::from_value(service)?])
    }
}
