//! An image from `kubectl apply` of its sources to its place in the registry, for the first time and with every step known, next to the
//! same builder run by hand in a Pod. Must not know the operator's insides.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde::Serialize;
use serde_json::json;
use substratus::settings::BUILDER_IMAGE;
use substratus_crds::Dataset;
use tokio::runtime::Handle;

use super::stats::{least, median};
use super::table::Table;
use crate::cluster::{Cluster, Mode, eventually};
use crate::git::{GitServer, Repository};
use crate::image;
use crate::platform::{self, Parts, Platform};

const LIMIT: Duration = Duration::from_mins(5);
/// A step that takes a while, and one that copies.
const DOCKERFILE: &str = "FROM BASE\nRUN dd if=/dev/urandom of=/noise bs=1M count=64\nCOPY rows.jsonl /\n";
/// What somebody types who has no operator; the builder's image, its user and its capabilities are the same.
const BY_HAND: &str = r#"set -e
export USER=user HOME=/builder XDG_RUNTIME_DIR=/builder
git clone -q --depth 1 URL /builder/source && rm -rf /builder/source/.git
printf '[registry."HOST"]\n  http = true\n' > /builder/buildkitd.toml
at=unix:///builder/sock
rootlesskit buildkitd --config=/builder/buildkitd.toml --addr=$at --root=/builder/root --oci-worker-no-process-sandbox 2>/builder/log &
until buildctl --addr=$at debug workers >/dev/null 2>&1; do sleep 0.1; done
buildctl --addr=$at build --frontend=dockerfile.v0 --local=context=/builder/source --local=dockerfile=/builder/source \
  --output=type=image,name=IMAGE:v1,push=true,registry.insecure=true \
  --import-cache=type=registry,ref=IMAGE:cache,registry.insecure=true \
  --export-cache=type=registry,ref=IMAGE:cache,mode=max,registry.insecure=true
"#;

/// One situation.
#[derive(Debug, Serialize)]
pub struct Row {
    situation: &'static str,
    /// The fastest.
    least_seconds: f64,
    /// The middle one.
    median_seconds: f64,
}

struct Bench<'a> {
    cluster: &'a Cluster,
    namespace: String,
    code: Repository,
}

/// Starts a cluster with a node, the operator in it, and a git server beside it.
pub fn measure(substratus: &Path, runs: u32) -> Result<Vec<Row>> {
    let cluster = Cluster::start(Mode::Node)?;
    cluster.block_on(async {
        let _platform = Platform::start(&cluster, Parts { program: substratus, repositories: Vec::new() }, |_| ()).await?;
        platform::publish_builder(&cluster).await?;
        let base = image::busybox()?.build()?.push(cluster.registry()?, "substratus-bench/busybox", "1").await?;
        let base = format!("{}/substratus-bench/busybox@{base}", cluster.registry()?);
        let address: IpAddr = cluster.node_address()?.parse().context("reading the node's address")?;
        let git = GitServer::start(SocketAddr::new(address, 0), ("nobody", "nothing"), &Handle::current())?;
        let code = git.repository("code")?;
        code.commit("main", &[("Dockerfile", DOCKERFILE.replace("BASE", &base).as_str()), ("rows.jsonl", "{}\n")])?;
        let namespace = cluster.namespace("bench").await?;
        let bench = Bench { cluster: &cluster, namespace, code };
        // The first one pulls the images.
        bench.by_hand("warm").await?;
        let mut all = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
        for run in 0..runs {
            let name = format!("run-{run}");
            let taken = [
                bench.built(&name).await?,
                bench.built_again(&name).await?,
                bench.by_hand(&name).await?,
                bench.by_hand(&name).await?,
            ];
            all.iter_mut().zip(taken).for_each(|(list, seconds)| list.push(seconds));
        }
        let names = ["Dataset, first build", "Dataset, built again", "by hand in a Pod, first", "by hand in a Pod, again"];
        let row = |(situation, runs): (&'static str, Vec<f64>)| {
            Some(Row { situation, least_seconds: least(&runs)?, median_seconds: median(&runs)? })
        };
        names.into_iter().zip(all).map(|pair| row(pair).context("no runs")).collect()
    })
}

impl Bench<'_> {
    fn apply(&self, object: &serde_json::Value) -> Result<()> {
        platform::apply_text(self.cluster, &self.namespace, &object.to_string()).map(drop)
    }

    /// Seconds until the image of a Dataset is there.
    async fn built(&self, name: &str) -> Result<f64> {
        let began = Instant::now();
        // Nothing runs of it that would take processors from the next one.
        let spec = json!({"build": {"git": {"url": self.code.url}}, "command": ["true"]});
        self.apply(&json!({"apiVersion": "substratus.ai/v1", "kind": "Dataset", "metadata": {"name": name}, "spec": spec}))?;
        self.is_built(name, |_| true).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// The same once more, of the same sources.
    async fn built_again(&self, name: &str) -> Result<f64> {
        let before = self.is_built(name, |_| true).await?;
        let began = Instant::now();
        let annotate = ["annotate", "dataset", name, "substratus.ai/rebuild=1", "--namespace", &self.namespace];
        platform::kubectl(self.cluster, &annotate)?;
        self.is_built(name, |inputs| inputs != before).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Waits until it is; answers what it was built from.
    async fn is_built(&self, name: &str, good: impl Fn(&str) -> bool) -> Result<String> {
        let datasets = Api::<Dataset>::namespaced(self.cluster.client(), &self.namespace);
        eventually(&format!("image of Dataset {name}"), LIMIT, async || {
            let build = datasets.get(name).await?.status.and_then(|status| status.build);
            Ok(build.filter(|build| build.digest.is_some()).and_then(|build| build.inputs).filter(|inputs| good(inputs)))
        })
        .await
    }

    /// Seconds until a Pod has built and pushed it.
    async fn by_hand(&self, name: &str) -> Result<f64> {
        let host = self.cluster.registry()?;
        let image = format!("{host}/by-hand/{name}");
        let script = BY_HAND.replace("URL", &self.code.url).replace("HOST", host).replace("IMAGE", &image);
        let security = json!({"runAsUser": 1000, "runAsGroup": 1000, "allowPrivilegeEscalation": true,
            "capabilities": {"drop": ["ALL"], "add": ["SETUID", "SETGID"]}});
        let mounts = json!([{"name": "builder", "mountPath": "/builder"}, {"name": "tmp", "mountPath": "/tmp"}]);
        let container = json!({"name": "builder", "image": BUILDER_IMAGE, "command": ["sh", "-c", script],
            "securityContext": security, "volumeMounts": mounts});
        let volumes = json!([{"name": "builder", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]);
        let spec = json!({"restartPolicy": "Never", "automountServiceAccountToken": false, "containers": [container], "volumes": volumes});
        let began = Instant::now();
        self.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "by-hand"}, "spec": spec}))?;
        let pods = Api::<Pod>::namespaced(self.cluster.client(), &self.namespace);
        eventually("end of a build by hand", LIMIT, async || {
            let phase = pods.get("by-hand").await?.status.and_then(|status| status.phase).unwrap_or_default();
            anyhow::ensure!(phase != "Failed", "it failed");
            Ok((phase == "Succeeded").then_some(()))
        })
        .await?;
        let taken = began.elapsed().as_secs_f64();
        platform::kubectl(self.cluster, &["delete", "pod", "by-hand", "--namespace", &self.namespace])?;
        Ok(taken)
    }
}

/// For people.
pub fn table(rows: &[Row], runs: u32) -> Table {
    let cells =
        |row: &Row| vec![row.situation.to_owned(), format!("{:.2}", row.least_seconds), format!("{:.2}", row.median_seconds)];
    Table {
        title: format!(
            "builds: from sources to an image in a registry of this machine, the builder's image on the node, {runs} runs in turn"
        ),
        columns: vec!["from the command on", "least s", "median"],
        rows: rows.iter().map(cells).collect(),
        notes: vec!["again: the same sources, with the steps that the registry has".to_owned()],
    }
}
