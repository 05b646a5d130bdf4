//! Substratus as its users get it, on a real cluster: images, a local model hub, the install manifests. For the tests and the
//! demo alike; it must not know what either of them tries.

mod bucket;
mod images;
mod installed;
pub mod kind;
mod models;
pub mod pod_hub;
pub mod proxy;
pub mod shelf;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::runtime::Handle;

use crate::cluster::Cluster;
use crate::hub::{Hub, Repo};

use pod_hub::PodHub;
use shelf::Shelf;

pub use models::{ENCODER, GATED, LARGE, LARGE_BYTES, SECOND, TINY, TOKEN, repositories, repositories_of};

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
        let shelf = Shelf::Mirror(cluster.registry()?.to_owned());
        let bucket = cluster.ready().dir.join("bucket");
        let image = images::operator(&shelf, parts.program).await?;
        say("operator image built and pushed (one static program, bundled plugins as .wasm)");
        images::engine(&shelf).await?;
        say("engine image pushed (llama.cpp's server, built for CPUs)");

        let mut builder = Hub::builder();
        for repository in parts.repositories {
            builder = builder.repo(repository);
        }
        let address: IpAddr = cluster.node_address()?.parse().context("reading the node's address")?;
        let free = SocketAddr::new(address, 0);
        let hub = builder.start_at(free, free, &Handle::current()).context("starting the hub")?;
        say(&format!("model hub answers at {}", hub.url));

        installed::apply(cluster, &installed::objects(&image, &bucket, &[], Some(cluster.registry()?))?).await?;
        say("manifests of examples/deploy applied");
        installed::operator_ready(cluster).await?;
        say("operator is ready");
        let platform = Self { hub, image, bucket };
        point_loader(cluster, &platform.hub.url, &[&platform.hub.cdn_url]).await?;
        say("loader-huggingface.wasm may talk to this hub, and to nobody else");
        Ok(platform)
    }
}

/// What to install on a cluster that may be anybody's.
#[derive(Debug)]
pub struct Install<'a> {
    /// The static `substratus` program.
    pub program: &'a Path,
    /// Where images go.
    pub shelf: &'a Shelf,
    /// The namespace of the hub, and of what users make.
    pub namespace: &'a str,
    /// The folder of the node that is the artifact bucket.
    pub bucket: &'a Path,
    /// The only namespaces that the operator looks after; none are all of them.
    pub watch: &'a [&'a str],
}

/// What was installed.
#[derive(Debug)]
pub struct Installed {
    /// The hub, a pod.
    pub hub: PodHub,
    /// The image of the hub, which has a shell too.
    pub helper: String,
}

/// Installs the operator, and a hub that stays when this process ends. Everything is marked as ours; what is there already
/// and is not marked makes this fail before anything is changed.
pub async fn install(cluster: &Cluster, wish: &Install<'_>, mut say: impl FnMut(&str)) -> Result<Installed> {
    // The check needs only the objects' names.
    installed::refuse_strangers(cluster, &installed::objects("none", wish.bucket, wish.watch, None)?, wish.namespace).await?;
    let image = images::operator(wish.shelf, wish.program).await?;
    say("operator image (one static program, bundled plugins as .wasm)");
    let engine = images::engine(wish.shelf).await?;
    say("engine image (llama.cpp's server, built for CPUs)");
    let helper = images::hub(wish.shelf).await?;
    say("hub image (serves the tiny model and some others)");
    installed::apply(cluster, &installed::objects(&image, wish.bucket, wish.watch, None)?).await?;
    installed::namespace(cluster, wish.namespace).await?;
    say("manifests of examples/deploy applied");
    let hub = PodHub::start(wish.namespace, cluster, &helper).await?;
    say(&format!("the hub answers at {}", hub.url));
    installed::operator_ready(cluster).await?;
    say("operator is ready");
    point_loader(cluster, &hub.url, &[&hub.cdn_url]).await?;
    say("loader-huggingface.wasm may talk to this hub, and to nobody else");
    if !wish.shelf.is_mirror() {
        point_engine(cluster, &engine).await?;
        say("adapter-llama-cpp.wasm may run this engine image, and no other");
    }
    Ok(Installed { hub, helper })
}

/// Removes all that is marked as ours, and what lies in the bucket. Returns how many objects there were.
pub async fn uninstall(cluster: &Cluster, namespace: &str, bucket: &Path) -> Result<usize> {
    let objects = installed::objects("none", bucket, &[], None)?;
    if let Some(image) = installed::helper_image(cluster, namespace).await? {
        // While the operator still runs: what it has made goes with its owners.
        let everything = ["delete", "model,server", "--all", "--wait", "--timeout=120s", "--namespace", namespace];
        kubectl(cluster, &everything)?;
        pods_gone(cluster, namespace)?;
        bucket::remove(cluster, namespace, &image, bucket).await?;
    }
    installed::delete(cluster, &objects, namespace).await
}

/// Waits until no engine and no worker is left in a namespace.
pub fn pods_gone(cluster: &Cluster, namespace: &str) -> Result<()> {
    // `wait` fails where there is nothing to wait for.
    let left = kubectl(cluster, &["get", "pod", "--selector", "role=run", "--output", "name", "--namespace", namespace])?;
    if !left.trim().is_empty() {
        kubectl(cluster, &["wait", "--for=delete", "pod", "--selector", "role=run", "--timeout=120s", "--namespace", namespace])?;
    }
    Ok(())
}

/// Empties the bucket, through a pod: nobody but the node has its folder.
pub async fn empty_bucket(cluster: &Cluster, namespace: &str, helper: &str, bucket: &Path) -> Result<()> {
    bucket::remove(cluster, namespace, helper, bucket).await
}

/// Lets the bundled loader speak to the hub at `endpoint`, which alone may get a token, and fetch from `elsewhere` too.
pub async fn point_loader(cluster: &Cluster, endpoint: &str, elsewhere: &[&str]) -> Result<()> {
    let hosts: Vec<&str> = std::iter::once(endpoint).chain(elsewhere.iter().copied()).collect();
    let object = json!({
        "apiVersion": "substratus.ai/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "loader-huggingface"},
        "spec": {
            "config": {"endpoint": endpoint},
            "grants": {"hosts": hosts, "secrets": [{"use": "hf", "hosts": [endpoint]}]},
        },
    });
    installed::plugin(cluster, &object).await
}

/// Lets a bundled importer, configured so, fetch from these hosts and from no others.
pub async fn point_importer(cluster: &Cluster, name: &str, config: serde_json::Value, hosts: &[&str]) -> Result<()> {
    let object = json!({
        "apiVersion": "substratus.ai/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": name},
        "spec": {"config": config, "grants": {"hosts": hosts}},
    });
    installed::plugin(cluster, &object).await
}

/// Lets the bundled adapter of llama.cpp run this image, with and without GPUs, and no other.
async fn point_engine(cluster: &Cluster, image: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "substratus.ai/v1alpha1",
        "kind": "Plugin",
        "metadata": {"name": "adapter-llama-cpp"},
        "spec": {"config": {"image": image, "cudaImage": image}, "grants": {"images": [image]}},
    });
    installed::plugin(cluster, &object).await
}

/// Puts a real `JupyterLab` where the node finds the image of a Notebook that names none.
pub async fn publish_notebook(cluster: &Cluster) -> Result<()> {
    images::notebook(cluster.registry()?).await
}

/// Puts a real `BuildKit` where the node finds the image of builders.
pub async fn publish_builder(cluster: &Cluster) -> Result<()> {
    images::builder(cluster.registry()?).await
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
    images::beside("substratus")
}

fn run(command: &mut Command) -> Result<std::process::Output> {
    command.output().with_context(|| format!("running {}", command.get_program().display()))
}
