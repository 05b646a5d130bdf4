//! A Notebook from `kubectl apply`, and from its resumption, to an answer of its `JupyterLab` on a real node, next to the same image
//! in a Pod without any operator. Must not know the operator's insides.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use reqwest::{Client, StatusCode};
use serde::Serialize;
use substratus::settings::NOTEBOOK_IMAGE;

use super::child;
use super::stats::{least, median};
use super::table::Table;
use crate::cluster::{Cluster, Mode, eventually};
use crate::platform::{self, Parts, Platform};

const LIMIT: Duration = Duration::from_mins(3);
/// How often is asked; what is measured is that much too long at most.
const ASK: Duration = Duration::from_millis(10);

const NAME: &str = "lab";
const POD: &str = "lab-notebook";
const NOTEBOOK: &str = "
apiVersion: substratus.ai/v1
kind: Notebook
metadata: {name: lab}
spec: {}
";
/// The same image, asked as the operator asks it.
const PLAIN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  automountServiceAccountToken: false
  containers:
  - name: notebook
    image: IMAGE
    command: [jupyter, lab, --allow-root, --ip=0.0.0.0, --NotebookApp.token=plain, --notebook-dir=/content]
    volumeMounts: [{name: content, mountPath: /content}]
  volumes: [{name: content, emptyDir: {}}]
";

/// One situation.
#[derive(Debug, Serialize)]
pub struct Row {
    situation: &'static str,
    /// From the command to the answer.
    total: Seconds,
    /// From the start of the image's process to the answer.
    image: Seconds,
    /// The difference, run by run.
    ours: Seconds,
}

#[derive(Debug, Serialize)]
struct Seconds {
    least_seconds: f64,
    median_seconds: f64,
}

/// One start.
#[derive(Debug, Clone, Copy)]
struct Run {
    total: f64,
    image: f64,
}

/// Where Notebooks start.
struct Bench<'a> {
    cluster: &'a Cluster,
    namespace: String,
    client: Client,
}

/// Starts a cluster with a node, and the operator in it.
pub fn measure(substratus: &Path, runs: u32) -> Result<Vec<Row>> {
    let cluster = Cluster::start(Mode::Node)?;
    cluster.block_on(async {
        let _platform = Platform::start(&cluster, Parts { program: substratus, repositories: Vec::new() }, |_| ()).await?;
        platform::publish_notebook(&cluster).await?;
        let namespace = cluster.namespace("bench").await?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(2)).build()?;
        let bench = Bench { cluster: &cluster, namespace, client };
        // The first start pulls the image.
        bench.plain().await?;
        let (mut applied, mut resumed, mut plain) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs {
            let (first, second) = bench.notebook().await?;
            applied.push(first);
            resumed.push(second);
            plain.push(bench.plain().await?);
        }
        let rows = [("Notebook, applied", applied), ("Notebook, resumed", resumed), ("Pod without an operator, applied", plain)];
        rows.into_iter().map(|(situation, runs)| Row::of(situation, &runs).context("no runs")).collect()
    })
}

impl Bench<'_> {
    /// Applied, suspended and resumed; nothing is left of it.
    async fn notebook(&self) -> Result<(Run, Run)> {
        let began = Instant::now();
        platform::apply_text(self.cluster, &self.namespace, NOTEBOOK)?;
        let applied = self.answer(began, POD, None).await?;
        self.suspend("true")?;
        self.gone(POD).await?;
        let began = Instant::now();
        self.suspend("false")?;
        let resumed = self.answer(began, POD, None).await?;
        self.kubectl(&["delete", "notebook", NAME])?;
        self.gone(POD).await?;
        Ok((applied, resumed))
    }

    async fn plain(&self) -> Result<Run> {
        let began = Instant::now();
        platform::apply_text(self.cluster, &self.namespace, &PLAIN.replace("IMAGE", NOTEBOOK_IMAGE))?;
        let run = self.answer(began, "plain", Some("plain")).await?;
        self.kubectl(&["delete", "pod", "plain"])?;
        Ok(run)
    }

    fn suspend(&self, value: &str) -> Result<()> {
        let patch = format!(r#"{{"spec":{{"suspend":{value}}}}}"#);
        self.kubectl(&["patch", "notebook", NAME, "--type=merge", "--patch", &patch])
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        let arguments = [arguments, &["--namespace", &self.namespace]].concat();
        platform::kubectl(self.cluster, &arguments).map(drop)
    }

    async fn gone(&self, pod: &str) -> Result<()> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        eventually(&format!("end of {pod}"), LIMIT, async || Ok(pods.get_opt(pod).await?.is_none().then_some(()))).await
    }

    /// Waits for a 200 on `/api` with the token, the Notebook's own where none is named.
    async fn answer(&self, began: Instant, pod: &str, token: Option<&str>) -> Result<Run> {
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        let address =
            async || Ok(pods.get_opt(pod).await?.and_then(|pod| pod.status?.pod_ip).filter(|address| !address.is_empty()));
        let url = format!("http://{}:8888/api", soon(&format!("an address of {pod}"), address).await?);
        let token = match token {
            Some(token) => token.to_owned(),
            None => self.token().await?,
        };
        let ask = async || {
            let answer = self.client.get(&url).header("Authorization", format!("token {token}")).send().await;
            Ok(answer.is_ok_and(|answer| answer.status() == StatusCode::OK).then(|| (began.elapsed(), uptime())))
        };
        let (total, answered) = soon(&format!("an answer of {pod}"), ask).await?;
        let container = soon(&format!("the container of {pod}"), async || Ok(container(&pods.get(pod).await?))).await?;
        let started = oldest(&container).with_context(|| format!("no process of this machine is in the container of {pod}"))?;
        Ok(Run { total: total.as_secs_f64(), image: answered? - started })
    }

    async fn token(&self) -> Result<String> {
        let secrets = Api::<Secret>::namespaced(self.cluster.client(), &self.namespace);
        let data = secrets.get(&format!("{NAME}-notebook-token")).await?.data.unwrap_or_default();
        Ok(String::from_utf8(data.get("token").context("a Secret without a token")?.0.clone())?)
    }
}

/// Asks more often than a test would.
async fn soon<T>(what: &str, ask: impl AsyncFn() -> Result<Option<T>>) -> Result<T> {
    let wait = async {
        loop {
            if let Some(found) = ask().await? {
                return Ok(found);
            }
            tokio::time::sleep(ASK).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.with_context(|| format!("waited {LIMIT:?} for {what}"))?
}

/// The identity of the container that the image runs in, once the kubelet tells it.
fn container(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|status| status.name == "notebook")?;
    Some(status.container_id.as_ref()?.split_once("://")?.1.to_owned())
}

/// When the first process of a container was started, in seconds since this machine was: to a hundredth, where the kubelet tells
/// whole seconds.
fn oldest(container: &str) -> Option<f64> {
    let processes = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let inside = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|group| group.contains(container));
    processes.filter(inside).filter_map(child::started).min_by(f64::total_cmp)
}

/// Seconds since this machine was started.
fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime").context("reading the uptime")?;
    text.split_ascii_whitespace().next().and_then(|seconds| seconds.parse().ok()).context("an uptime that is no number")
}

impl Row {
    fn of(situation: &'static str, runs: &[Run]) -> Option<Self> {
        let all = |number: fn(&Run) -> f64| {
            let values: Vec<f64> = runs.iter().map(number).collect();
            Some(Seconds { least_seconds: least(&values)?, median_seconds: median(&values)? })
        };
        let ours = |run: &Run| run.total - run.image;
        Some(Self { situation, total: all(|run| run.total)?, image: all(|run| run.image)?, ours: all(ours)? })
    }
}

/// For people.
pub fn table(rows: &[Row], runs: u32) -> Table {
    let cells = |row: &Row| {
        let numbers = [&row.total, &row.image, &row.ours];
        let cells = numbers.into_iter().flat_map(|seconds| [seconds.least_seconds, seconds.median_seconds]);
        std::iter::once(row.situation.to_owned()).chain(cells.map(|seconds| format!("{seconds:.2}"))).collect()
    };
    Table {
        title: format!("notebook: until /api of a JupyterLab answers 200, the image on the node, {runs} runs in turn"),
        columns: vec!["from the command on", "total s", "median", "image s", "median", "ours s", "median"],
        rows: rows.iter().map(cells).collect(),
        notes: vec![
            "the first of two is the least; `image` from the start of its process, `ours` is the rest, run by run".to_owned(),
        ],
    }
}
