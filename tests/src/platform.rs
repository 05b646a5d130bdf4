//! Substratus as its users get it, on a real cluster: images, a local model hub, the install manifests. For the tests and the
//! demo alike; it must not know what either of them tries.

mod images;
mod installed;
mod models;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::runtime::Handle;

use crate::cluster::Cluster;
use crate::hub::{Hub, Repo};

pub use models::{GATED, LARGE, LARGE_BYTES, SECOND, TINY, TOKEN, repositories};

/// Where the operator lives.
pub const NAMESPACE: &str = "substratus";

/// A cluster with the operator in it and a hub beside it.
#[derive(Debug)]
pub struct Platform {
    /// The local hub, reachable from pods; it ends with this value.
    pub hub: Hub,
    /// The operator's image, by digest.
    pub image: String,
    /// The folder of the node that is the artifact bucket.
    pub bucket: PathBuf,
}

/// What a platform is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The static `substratus` program.
    pub program: &'a Path,
    /// What the hub publishes.
    pub repositories: Vec<Repo>,
}

impl Platform {
    /// Builds, pushes, installs and waits until the operator is ready; `say` hears of each step that is done.
    pub async fn start(cluster: &Cluster, parts: Parts<'_>, mut say: impl FnMut(&str)) -> Result<Self> {
        let registry = cluster.registry()?;
        let bucket = cluster.ready().dir.join("bucket");
        let image = images::operator(registry, parts.program).await?;
        say("operator image built and pushed (one static program, bundled plugins as .wasm)");
        images::engine(registry).await?;
        say("engine image pushed (llama.cpp's server, built for CPUs)");

        let mut builder = Hub::builder();
        for repository in parts.repositories {
            builder = builder.repo(repository);
        }
        let address: IpAddr = cluster.ready().node_address.parse().context("reading the node's address")?;
        let free = SocketAddr::new(address, 0);
        let hub = builder.start_at(free, free, &Handle::current()).context("starting the hub")?;
        say(&format!("model hub answers at {}", hub.url));

        installed::apply(cluster, &image, &bucket).await?;
        say("manifests of examples/deploy applied");
        installed::operator_ready(cluster).await?;
        say("operator is ready");
        let platform = Self { hub, image, bucket };
        point_loader(cluster, &platform.hub.url, &platform.hub.cdn_url).await?;
        say("loader-huggingface.wasm may talk to this hub, and to nobody else");
        Ok(platform)
    }
}

/// Lets the bundled loader speak to the hub at `endpoint`, which alone may get a token, and fetch from `elsewhere` too.
pub async fn point_loader(cluster: &Cluster, endpoint: &str, elsewhere: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "substratus.ai/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "loader-huggingface"},
        "spec": {
            "config": {"endpoint": endpoint},
            "grants": {"hosts": [endpoint, elsewhere], "secrets": [{"use": "hf", "hosts": [endpoint]}]},
        },
    });
    installed::loader(cluster, &object).await
}

/// Stops the operator's pod and waits for the next one to be ready.
pub async fn restart_operator(cluster: &Cluster) -> Result<()> {
    installed::restart(cluster).await
}

/// Runs `kubectl` as the cluster's administrator and returns what it prints.
pub fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let output = run(cluster.command("kubectl").args(arguments))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`kubectl {}` failed: {}", arguments.join(" "), words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `kubectl apply` of a file of this repository in a namespace, as its README tells users.
pub fn apply(cluster: &Cluster, namespace: &str, file: &str) -> Result<String> {
    let path = crate::guests::root().join(file);
    kubectl(cluster, &["apply", "--namespace", namespace, "--filename", &path.to_string_lossy()])
}

/// `kubectl apply` of a manifest that is text.
pub fn apply_text(cluster: &Cluster, namespace: &str, manifest: &str) -> Result<String> {
    let folder = tempfile::tempdir().context("making a folder for a manifest")?;
    let path = folder.path().join("manifest.yaml");
    std::fs::write(&path, manifest).context("writing a manifest")?;
    kubectl(cluster, &["apply", "--namespace", namespace, "--filename", &path.to_string_lossy()])
}

/// The `substratus` program that belongs to our own: cargo puts it beside it, or one folder above a test's.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding our own program")?;
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("substratus"))
        .find(|program| program.is_file())
        .context("cannot find `substratus` near our own program; `cargo build -p substratus` makes it")
}

fn run(command: &mut Command) -> Result<std::process::Output> {
    command.output().with_context(|| format!("running {}", command.get_program().display()))
}
