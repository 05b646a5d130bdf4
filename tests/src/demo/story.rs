//! What the demo shows, in order: import, a kill half way, resume, an engine, an answer. It must not know how a cluster starts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use substratus_crds::{Model, ModelStatus, Server};

use super::NAMESPACE;
use super::screen::Screen;
use crate::cluster::layout::Layout;
use crate::cluster::{Cluster, eventually, process};
use crate::hub::{Fault, Rule};
use crate::platform::{self, LARGE, LARGE_BYTES, Parts, Platform};

const LIMIT: Duration = Duration::from_mins(5);
/// Speed of each connection until the kill, so that there is a half way.
const SLOW: u64 = 1 << 20;

const MODEL: &str = "\
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: tiny}
spec:
  source: hf://acme/large
";
const SERVER: &str = "\
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: tiny}
spec:
  model: {name: tiny}
";

/// The whole way, on a cluster that runs.
pub async fn tell(cluster: &Cluster, program: &Path, screen: &Screen) -> Result<()> {
    screen.title("Install: the operator, its bundled plugins, and a model hub beside the cluster");
    let parts = Parts { program, repositories: platform::repositories()? };
    let platform = Platform::start(cluster, parts, |step| screen.step(step)).await?;
    namespace(cluster).await?;
    import(cluster, &platform, screen).await?;
    serve(cluster, screen).await?;
    answer(cluster, screen).await
}

async fn namespace(cluster: &Cluster) -> Result<()> {
    let wanted =
        Namespace { metadata: ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() };
    let namespaces = Api::<Namespace>::all(cluster.client());
    namespaces.patch(NAMESPACE, &PatchParams::apply("demo"), &Patch::Apply(&wanted)).await.context("making the namespace")?;
    Ok(())
}

async fn import(cluster: &Cluster, platform: &Platform, screen: &Screen) -> Result<()> {
    let hub = &platform.hub;
    screen.title("Import: loader-huggingface.wasm says what to fetch, native code fetches and verifies it");
    screen.quote(MODEL);
    let models = Api::<Model>::namespaced(cluster.client(), NAMESPACE);
    if models.get_opt("tiny").await?.is_some() {
        platform::kubectl(cluster, &["delete", "model,server", "--all", "--namespace", NAMESPACE])?;
        platform::kubectl(cluster, &["wait", "--for=delete", "pod", "--all", "--timeout=120s", "--namespace", NAMESPACE])?;
        // Else the next load would find everything there already, and there would be nothing to interrupt.
        fs::remove_dir_all(&platform.bucket).with_context(|| format!("emptying {}", platform.bucket.display()))?;
        screen.step("what an earlier demo made was deleted");
    }
    hub.fault(Rule::cdn(LARGE, Fault::BytesPerSecond(SLOW)));
    platform::apply_text(cluster, NAMESPACE, MODEL)?;
    let half = i64::try_from(LARGE_BYTES / 2)?;
    let mut last = String::new();
    eventually("load to be half done", LIMIT, async || {
        let status = models.get("tiny").await?.status.unwrap_or_default();
        ensure!(!status.ready, "the load was over before it could be interrupted; an artifact of an earlier demo was found");
        let transfer = status.transfer.unwrap_or_default();
        if transfer.progress != last && transfer.bytes_total > 0 {
            last.clone_from(&transfer.progress);
            screen.step(&format!(
                "{} of {} MiB, {} MiB/s",
                transfer.progress,
                transfer.bytes_total >> 20,
                transfer.bytes_per_second >> 20
            ));
        }
        Ok((transfer.bytes_done > half).then_some(()))
    })
    .await?;
    kill(cluster).await?;
    hub.clear_faults();
    screen.step("the worker was killed with SIGKILL, on purpose; its Job starts a fresh pod");
    let status = loaded(cluster, "tiny", screen).await?;
    let again = hub.stats().cdn.bytes_with("filler.dat").saturating_sub(LARGE_BYTES);
    screen.step(&format!("Model is ready; {} of {} MiB were fetched a second time", again >> 20, LARGE_BYTES >> 20));
    let source = status.source.unwrap_or_default();
    screen.quote(&format!(
        "{} files, {} bytes of {}, large files checked against the hub's sha256, revision {}",
        source.files,
        source.bytes,
        source.format.unwrap_or_default(),
        source.revision.unwrap_or_default()
    ));
    Ok(())
}

/// Waits for a Model, and shows how its load goes.
pub(super) async fn loaded(cluster: &Cluster, name: &str, screen: &Screen) -> Result<ModelStatus> {
    let models = Api::<Model>::namespaced(cluster.client(), NAMESPACE);
    let mut last = String::new();
    eventually(&format!("Model {name}"), LIMIT, async || {
        let status = models.get(name).await?.status.unwrap_or_default();
        let transfer = status.transfer.clone().unwrap_or_default();
        if transfer.progress != last && transfer.bytes_total > 0 && !status.ready {
            last.clone_from(&transfer.progress);
            screen.step(&format!(
                "{} of {} MiB, {} MiB/s",
                transfer.progress,
                transfer.bytes_total >> 20,
                transfer.bytes_per_second >> 20
            ));
        }
        let said = status.conditions.iter().find(|condition| condition.type_ == "Complete");
        ensure!(status.ready, "{}", said.map(|condition| condition.message.clone()).unwrap_or_default());
        Ok(Some(status))
    })
    .await
}

async fn kill(cluster: &Cluster) -> Result<()> {
    let pods = Api::<Pod>::namespaced(cluster.client(), NAMESPACE);
    let pods = pods.list(&ListParams::default().labels("model=tiny")).await?.items;
    let ids: Vec<String> = pods.into_iter().filter_map(|pod| pod.metadata.uid).collect();
    let ours =
        |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| ids.iter().any(|id| groups.contains(id)));
    let worker = process::all()?
        .into_iter()
        .find(|(pid, words)| words.first().is_some_and(|program| program.ends_with("substratus")) && ours(*pid));
    let pid = worker.and_then(|(pid, _)| Pid::from_raw(pid)).context("finding the worker's process")?;
    kill_process(pid, Signal::KILL).context("killing the worker")
}

async fn serve(cluster: &Cluster, screen: &Screen) -> Result<()> {
    screen.title("Serve: each server adapter (.wasm) says how well its engine fits, the best one runs");
    screen.quote(SERVER);
    platform::apply_text(cluster, NAMESPACE, SERVER)?;
    serving(cluster, "tiny", screen).await
}

/// Waits for a Server, and shows why its engine was chosen.
pub(super) async fn serving(cluster: &Cluster, name: &str, screen: &Screen) -> Result<()> {
    let servers = Api::<Server>::namespaced(cluster.client(), NAMESPACE);
    let status = eventually(&format!("Server {name}"), LIMIT, async || {
        let status = servers.get(name).await?.status.unwrap_or_default();
        let said = status.conditions.iter().find(|condition| condition.type_ == "Serving");
        ensure!(status.ready, "{}", said.map(|condition| condition.message.clone()).unwrap_or_default());
        Ok(Some(status))
    })
    .await?;
    for candidate in &status.candidates {
        screen.quote(&format!("{:>3}  {}: {}", candidate.score, candidate.engine, candidate.reason));
    }
    screen.step(&format!("Server is ready: {}", status.reason.unwrap_or_default()));
    Ok(())
}

async fn answer(cluster: &Cluster, screen: &Screen) -> Result<()> {
    screen.title("Use it");
    let table = platform::kubectl(cluster, &["get", "ai", "--namespace", NAMESPACE])?;
    screen.quote(&format!("$ kubectl get ai -n {NAMESPACE}\n{table}"));
    let answer = ask(cluster, "tiny", "/v1/completions", &json!({"prompt": "Kubernetes is", "max_tokens": 16}), screen).await?;
    let text = answer.pointer("/choices/0/text").and_then(Value::as_str).context("an answer without text")?;
    let tokens = answer.pointer("/usage/completion_tokens").and_then(Value::as_u64).context("an answer that counts no tokens")?;
    screen.step(&format!("the engine answered {tokens} tokens: {text:?}"));
    screen.quote("It is nonsense: the weights of the built-in model are random, which keeps it at half a megabyte.");
    Ok(())
}

/// Asks a Server through its Service.
pub(super) async fn ask(cluster: &Cluster, name: &str, path: &str, question: &Value, screen: &Screen) -> Result<Value> {
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build()?;
    let url = format!("http://{}{path}", address(cluster, name).await?);
    screen.quote(&format!("$ curl {url} -d '{question}'"));
    Ok(client.post(&url).json(question).send().await?.error_for_status()?.json().await?)
}

/// Where a Server's Service answers, in the cluster's network.
pub(super) async fn address(cluster: &Cluster, name: &str) -> Result<String> {
    let service = Api::<Service>::namespaced(cluster.client(), NAMESPACE).get(&format!("{name}-server")).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?;
    Ok(format!("{address}:8080"))
}

/// What the user can do from here.
pub(super) fn go_on(cluster: &Cluster, screen: &Screen) {
    screen.title("Go on: the cluster keeps running");
    let layout = Layout::new(&cluster.ready().dir);
    for (what, command) in [
        ("look", kubectl(cluster, &["get", "ai,pods", "-n", NAMESPACE])),
        ("why", kubectl(cluster, &["describe", "server", "tiny", "-n", NAMESPACE])),
        ("talk", super::command("forward", &layout)),
        ("remove", super::command("down", &layout)),
    ] {
        screen.line(&format!("{what:>8}:  {command}"));
    }
    screen.line(&format!(
        "kubeconfig: {} (its addresses exist in the cluster's network namespace only)",
        cluster.kubeconfig().display()
    ));
    screen.line("The hub ended with this command; what was imported needs it no more.");
}

/// A command line that works outside of the cluster's network.
pub(super) fn kubectl(cluster: &Cluster, arguments: &[&str]) -> String {
    let ready = cluster.ready();
    let command = cluster.command("kubectl");
    let found = command.get_args().nth(2).map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let program = if found.is_empty() { "kubectl".to_owned() } else { found };
    format!(
        "nsenter --net={} {program} --kubeconfig {} {}",
        ready.netns.display(),
        ready.kubeconfig.display(),
        arguments.join(" ")
    )
}
