//! The whole way on a real node: manifests in, real pods, a completion out. Each part is about one promise to users; none of
//! them looks into the operator.

mod build;
mod causes;
mod chaos;
mod contract;
mod dataset;
mod edit;
mod embeddings;
mod failed;
mod falcon;
mod idle;
mod notebook;
mod publish;
mod registry;
mod restart;
mod resume;
mod s3;
mod secret;
mod trainer;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use substratus::bucket::BucketUrl;
use substratus_crds::{ArtifactStatus, Dataset, Model, ModelStatus, Server, ServerStatus};
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::platform::{self, Parts, Platform};

/// Longest wait for one step; a busy machine with few processors takes a while.
const LIMIT: Duration = Duration::from_mins(4);

/// The cluster and what runs on it, shared by all tests that need a node.
pub(super) struct Stage<'a> {
    pub(super) cluster: &'a Cluster,
    platform: Platform,
}

/// Held by a test that arms a fault of the hub until it has disarmed them all.
static FAULTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Held by a test that loads the large model, before any other lock: one of them counts its bytes.
static LOADS_LARGE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(super) fn stage() -> Result<&'static Stage<'static>> {
    static SHARED: OnceLock<Result<Stage<'static>, String>> = OnceLock::new();
    SHARED
        .get_or_init(|| Cluster::node().and_then(start).map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

fn start(cluster: &Cluster) -> Result<Stage<'_>> {
    let program = build()?;
    let platform = cluster.block_on(async {
        cluster.advertise_gpus(4, &[("cloud.google.com/gke-accelerator", "nvidia-l4")]).await?;
        let began = Instant::now();
        let repositories = [platform::repositories()?, dataset::repositories()].concat();
        let parts = Parts { program: &program, repositories };
        Platform::start(cluster, parts, |step| tell("platform", began, step)).await
    })?;
    Ok(Stage { cluster, platform })
}

/// The program as the sources are now: cargo builds it for no test by itself.
fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(substratus_tests::guests::root()).args([
        "build",
        "--quiet",
        "--package",
        "substratus",
        "--bin",
        "substratus",
    ]);
    if std::env::current_exe()?.components().any(|part| part.as_os_str() == "release") {
        cargo.arg("--release");
    }
    ensure!(cargo.status()?.success(), "building the operator failed");
    platform::program()
}

/// Says how long a step took; shown with `--nocapture`.
#[expect(clippy::print_stderr, reason = "timings are for people who watch")]
fn tell(what: &str, began: Instant, step: &str) {
    eprintln!("{what}: {:>5.1} s  {step}", began.elapsed().as_secs_f32());
}

impl Stage<'_> {
    fn models(&self, namespace: &str) -> Api<Model> {
        Api::namespaced(self.cluster.client(), namespace)
    }

    /// Waits until a Model's status is as `check` wants it; what it says at the end explains a timeout.
    async fn model(&self, namespace: &str, name: &str, what: &str, check: impl Fn(&ModelStatus) -> bool) -> Result<ModelStatus> {
        let models = self.models(namespace);
        let waited = eventually(&format!("Model {name} {what}"), LIMIT, async || {
            let status = models.get(name).await?.status.context("no status yet")?;
            ensure!(check(&status), "its status is {}", serde_json::to_string(&status)?);
            Ok(Some(status))
        })
        .await;
        self.explained(namespace, waited).await
    }

    /// The same of a Dataset.
    async fn dataset(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        check: impl Fn(&ArtifactStatus) -> bool,
    ) -> Result<ArtifactStatus> {
        let datasets = Api::<Dataset>::namespaced(self.cluster.client(), namespace);
        let waited = eventually(&format!("Dataset {name} {what}"), LIMIT, async || {
            let status = datasets.get(name).await?.status.context("no status yet")?;
            ensure!(check(&status), "its status is {}", serde_json::to_string(&status)?);
            Ok(Some(status))
        })
        .await;
        self.explained(namespace, waited).await
    }

    async fn server(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        check: impl Fn(&ServerStatus) -> bool,
    ) -> Result<ServerStatus> {
        let servers = Api::<Server>::namespaced(self.cluster.client(), namespace);
        let waited = eventually(&format!("Server {name} {what}"), LIMIT, async || {
            let status = servers.get(name).await?.status.context("no status yet")?;
            ensure!(check(&status), "its status is {}", serde_json::to_string(&status)?);
            Ok(Some(status))
        })
        .await;
        self.explained(namespace, waited).await
    }

    /// Adds what the pods say to an error.
    async fn explained<T>(&self, namespace: &str, outcome: Result<T>) -> Result<T> {
        let Err(error) = outcome else { return outcome };
        let pods = self.pods(namespace, "").await.unwrap_or_default();
        let states = pods.iter().map(|pod| {
            let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            let states: Vec<_> = containers.map(|container| container.state.clone()).collect();
            format!("{:?}: {states:?}", pod.metadata.name)
        });
        Err(error.context(format!("pods:\n{}", states.collect::<Vec<_>>().join("\n"))))
    }

    async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), namespace);
        Ok(pods.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Asks a Server for a completion, through its Service.
    async fn complete(&self, namespace: &str, server: &str, question: &Value) -> Result<Value> {
        let url = format!("{}/v1/completions", self.url(namespace, server).await?);
        let client = client()?;
        let answer = eventually("answer", LIMIT, async || Ok(Some(client.post(&url).json(question).send().await?))).await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == 200, "the Server answered {status}: {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn url(&self, namespace: &str, server: &str) -> Result<String> {
        let services = Api::<Service>::namespaced(self.cluster.client(), namespace);
        let service = services.get(&format!("{server}-server")).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?;
        Ok(format!("http://{address}:8080"))
    }
}

/// The folder of the node that an artifact URL stands for.
fn folder(status: &ModelStatus) -> Result<PathBuf> {
    let url = status.artifacts.as_ref().and_then(|artifacts| artifacts.url.as_deref()).context("no artifact URL")?;
    url.parse::<BucketUrl>()?.local_path().context("not a path of the node")
}

/// Reason and message of a condition.
fn condition<'a>(
    conditions: impl IntoIterator<Item = &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    name: &str,
) -> (String, String) {
    let found = conditions.into_iter().find(|condition| condition.type_ == name);
    found.map(|condition| (condition.reason.clone(), condition.message.clone())).unwrap_or_default()
}

/// The node may learn of a ready pod a moment after the API server does, and what was sent before is lost with its connection:
/// short attempts, each on a connection of its own.
fn client() -> Result<reqwest::Client> {
    let client = reqwest::Client::builder().no_proxy().connect_timeout(Duration::from_secs(2)).timeout(Duration::from_mins(1));
    Ok(client.build()?)
}

fn question() -> Value {
    json!({"prompt": "hello world", "max_tokens": 8})
}
