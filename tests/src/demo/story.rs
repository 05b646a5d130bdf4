//! What the demo shows, in order: import, a kill half way, resume, an engine, an answer. It must not know how a cluster starts.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, DeleteParams, ListParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use substratus_crds::{Model, ModelStatus, Server, TransferStatus};

use super::NAMESPACE;
use super::screen::Screen;
use super::stage::{Place, Stage};
use crate::cluster::{Cluster, eventually, process};
use crate::hub::{Fault, Rule};
use crate::platform::{self, Install, Installed, LARGE, LARGE_BYTES, proxy};

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
pub async fn tell(stage: &Stage, program: &Path, screen: &Screen) -> Result<Installed> {
    let installed = install(stage, program, screen).await?;
    import(stage, &installed, screen).await?;
    serve(&stage.cluster, screen).await?;
    answer(&stage.cluster, screen).await?;
    Ok(installed)
}

/// The first part alone.
pub async fn install(stage: &Stage, program: &Path, screen: &Screen) -> Result<Installed> {
    screen.title("Install: the operator, its bundled plugins, and a model hub");
    let wish = Install { program, shelf: &stage.shelf, namespace: NAMESPACE, bucket: &stage.bucket, watch: &[NAMESPACE] };
    platform::install(&stage.cluster, &wish, |step| screen.step(step)).await
}

async fn import(stage: &Stage, Installed { hub, helper }: &Installed, screen: &Screen) -> Result<()> {
    screen.title("Import: loader-huggingface.wasm says what to fetch, native code fetches and verifies it");
    screen.quote(MODEL);
    let cluster = &stage.cluster;
    let client = cluster.client();
    let models = Api::<Model>::namespaced(client.clone(), NAMESPACE);
    if !models.list(&ListParams::default()).await?.items.is_empty() {
        platform::kubectl(cluster, &["delete", "model,server", "--all", "--namespace", NAMESPACE])?;
        platform::pods_gone(cluster, NAMESPACE)?;
        screen.step("what an earlier demo made was deleted");
    }
    // Else the load could find everything there already, and there would be nothing to interrupt.
    platform::empty_bucket(cluster, NAMESPACE, helper, &stage.bucket).await?;
    hub.clear_faults(&client).await?;
    hub.reset_stats(&client).await?;
    hub.fault(&client, &Rule::cdn(LARGE, Fault::BytesPerSecond(SLOW))).await?;
    platform::apply_text(cluster, NAMESPACE, MODEL)?;
    let half = i64::try_from(LARGE_BYTES / 2)?;
    let mut last = String::new();
    eventually("load to be half done", LIMIT, async || {
        let status = models.get("tiny").await?.status.unwrap_or_default();
        ensure!(!status.ready, "the load was over before it could be interrupted; an artifact of an earlier demo was found");
        let transfer = status.transfer.unwrap_or_default();
        moved(&transfer, &mut last, screen);
        Ok((transfer.bytes_done >= half).then_some(()))
    })
    .await?;
    interrupt(stage, screen).await?;
    hub.clear_faults(&client).await?;
    let status = loaded(cluster, "tiny", screen).await?;
    let again = hub.stats(&client).await?.cdn.bytes_with("filler.dat").saturating_sub(LARGE_BYTES);
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

/// Shows how far a load is, if that changed.
fn moved(transfer: &TransferStatus, last: &mut String, screen: &Screen) {
    if transfer.progress != *last && transfer.bytes_total > 0 {
        last.clone_from(&transfer.progress);
        let (whole, speed) = (transfer.bytes_total >> 20, transfer.bytes_per_second >> 20);
        screen.step(&format!("{} of {whole} MiB, {speed} MiB/s", transfer.progress));
    }
}

/// Waits for a Model, and shows how its load goes.
pub(super) async fn loaded(cluster: &Cluster, name: &str, screen: &Screen) -> Result<ModelStatus> {
    let models = Api::<Model>::namespaced(cluster.client(), NAMESPACE);
    let mut last = String::new();
    eventually(&format!("Model {name}"), LIMIT, async || {
        let status = models.get(name).await?.status.unwrap_or_default();
        if !status.ready {
            moved(&status.transfer.clone().unwrap_or_default(), &mut last, screen);
        }
        let said = status.conditions.iter().find(|condition| condition.type_ == "Complete");
        ensure!(status.ready, "{}", said.map(|condition| condition.message.clone()).unwrap_or_default());
        Ok(Some(status))
    })
    .await
}

/// Ends the load half way: with SIGKILL on a node of ours; elsewhere only the way that everybody may.
async fn interrupt(stage: &Stage, screen: &Screen) -> Result<()> {
    let pods = Api::<Pod>::namespaced(stage.cluster.client(), NAMESPACE);
    let loading = pods.list(&ListParams::default().labels("model=tiny")).await?.items;
    if stage.place == Place::Own {
        let ids: Vec<String> = loading.into_iter().filter_map(|pod| pod.metadata.uid).collect();
        kill(&ids)?;
        screen.step("the worker was killed with SIGKILL, on purpose; its Job starts a fresh pod");
        return Ok(());
    }
    let name = loading.into_iter().find_map(|pod| pod.metadata.name).context("finding the pod that loads")?;
    pods.delete(&name, &DeleteParams::default()).await.with_context(|| format!("deleting the pod {name}"))?;
    screen.step("the worker's pod was deleted, on purpose; its Job starts a fresh one");
    Ok(())
}

fn kill(pods: &[String]) -> Result<()> {
    let ours = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| pods.iter().any(|id| groups.contains(id)))
    };
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
    screen.quote("With HUB= and MODEL= a real one answers: make demo HUB=https://huggingface.co MODEL=org/name-GGUF");
    Ok(())
}

/// Asks a Server through its Service; the API server passes it on, as this process may stand outside of the cluster.
pub(super) async fn ask(cluster: &Cluster, name: &str, path: &str, question: &Value, screen: &Screen) -> Result<Value> {
    let service = format!("{name}-server");
    screen.quote(&format!("$ curl http://{service}.{NAMESPACE}:8080{path} -d '{question}'"));
    let service = proxy::Service { namespace: NAMESPACE, name: &service, port: 8080 };
    let answer = service.ask(&cluster.client(), Method::POST, path, Some(question)).await?;
    serde_json::from_str(&answer).context("reading the engine's answer")
}

/// Where a Server's Service answers, in the cluster's network.
pub(super) async fn address(cluster: &Cluster, name: &str) -> Result<String> {
    let service = Api::<Service>::namespaced(cluster.client(), NAMESPACE).get(&format!("{name}-server")).await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?;
    Ok(format!("{address}:8080"))
}

/// What the user can do from here.
pub(super) fn go_on(stage: &Stage, screen: &Screen) {
    screen.title("Go on: the cluster and the hub keep running");
    let example = crate::guests::root().join("examples/falcon-40b/model.yaml");
    let example = example.canonicalize().unwrap_or(example);
    let talk = match stage.place {
        Place::Own => stage.command("forward"),
        Place::Current | Place::Kind => stage.kubectl(&["port-forward", "-n", NAMESPACE, "service/tiny-server", "8080"]),
    };
    for (what, command) in [
        ("look", stage.kubectl(&["get", "ai,pods", "-n", NAMESPACE])),
        ("why", stage.kubectl(&["describe", "server", "tiny", "-n", NAMESPACE])),
        ("talk", talk),
        ("import", stage.kubectl(&["apply", "-n", NAMESPACE, "-f", &example.display().to_string()])),
        ("remove", stage.command("down")),
    ] {
        screen.line(&format!("{what:>8}:  {command}"));
    }
    screen.line("The hub has the tiny model under the names tiiuae/falcon-40b and acme/tiny-second as well.");
    if stage.place == Place::Own {
        screen.line(&format!(
            "kubeconfig: {} (its addresses exist in the cluster's network namespace only)",
            stage.cluster.kubeconfig().display()
        ));
    }
}
