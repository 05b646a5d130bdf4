//! The operator and a worker are killed on a real node at moments that a seed picks; what runs in the end is what runs when
//! nobody is killed.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use substratus_tests::cluster::process;
use substratus_tests::hub::{Fault, Rule};
use substratus_tests::platform::{self, LARGE, LARGE_BYTES};
use substratus_tests::seeds::{self, Chance};

use super::{FAULTS, LOADS_LARGE, Stage, folder, question, stage, tell};

/// Seeds of a normal run; each takes most of a minute.
const FEW: u64 = 2;

const MODEL: &str = "{apiVersion: substratus.ai/v1, kind: Model, metadata: {name: chaos}, spec: {source: hf://acme/large}}";
const SERVER: &str = "{apiVersion: substratus.ai/v1, kind: Server, metadata: {name: chaos}, spec: {model: {name: chaos}}}";

#[test]
fn chaos_killed_workers_and_operators_change_nothing_in_the_end() -> Result<()> {
    let stage = stage()?;
    stage.cluster.block_on(async {
        let _alone = LOADS_LARGE.lock().await;
        let calm = run(stage, None::<Calm>).await.context("with nobody killed")?;
        for seed in seeds::all(FEW)? {
            let kills = async |namespace: &str, began| kills(stage, namespace, seed.begin(), began).await;
            let found = run(stage, Some(kills)).await?;
            ensure!(found == calm, "nobody killed: {calm:#}\nthis seed: {found:#}");
        }
        Ok(())
    })
}

/// Nobody disturbs.
pub(super) type Calm = fn(&str, Instant) -> std::future::Ready<Result<()>>;

/// Imports and serves a model that comes slowly while it is disturbed, and tells what there is in the end.
pub(super) async fn run(stage: &Stage<'_>, disturb: Option<impl AsyncFnOnce(&str, Instant) -> Result<()>>) -> Result<Value> {
    let began = Instant::now();
    let cluster = stage.cluster;
    let namespace = cluster.namespace("chaos").await?;
    platform::apply_text(cluster, &namespace, SERVER)?;
    if let Some(disturb) = disturb {
        let _faults = FAULTS.lock().await;
        // Some seconds, in which something can happen.
        stage.platform.hub.fault(Rule::cdn(LARGE, Fault::BytesPerSecond(4 << 20)));
        platform::apply_text(cluster, &namespace, MODEL)?;
        disturb(&namespace, began).await?;
        stage.platform.hub.clear_faults();
    } else {
        platform::apply_text(cluster, &namespace, MODEL)?;
    }
    let model = stage.model(&namespace, "chaos", "to be ready", |status| status.ready).await?;
    tell("chaos", began, "Model ready");
    let place = folder(&model)?;
    ensure!(fs::metadata(place.join("artifacts/filler.dat"))?.len() == LARGE_BYTES, "{} is not whole", place.display());
    let manifest: Value = serde_json::from_slice(&fs::read(place.join(".substratus/manifest.json"))?)?;
    stage.server(&namespace, "chaos", "to be ready", |status| status.ready).await?;
    tell("chaos", began, "Server ready");
    let answer = stage.complete(&namespace, "chaos", &question()).await?;
    ensure!(answer["usage"]["completion_tokens"] == 8, "{answer}");

    let listed = ["get", "job,deployment,service,configmap,serviceaccount", "--namespace", &namespace, "--output", "json"];
    let listed: Value = serde_json::from_str(&platform::kubectl(cluster, &listed)?)?;
    let children: Vec<Value> = listed["items"].as_array().context("no list")?.iter().map(child).collect();
    let hash = place.file_name().context("an artifact lies in a folder")?.to_string_lossy().into_owned();
    let text = json!({"children": children, "files": manifest["files"], "revision": manifest["revision"]}).to_string();
    // The next run needs the processors.
    platform::kubectl(cluster, &["delete", "server,model", "--all", "--namespace", &namespace])?;
    Ok(serde_json::from_str(&text.replace(&namespace, "NAMESPACE").replace(&hash, "HASH"))?)
}

/// What of an object does not depend on when it was made. A Deployment of generation 1 was never rolled out again.
fn child(object: &Value) -> Value {
    let generation = if object["kind"] == "Deployment" { &object["metadata"]["generation"] } else { &Value::Null };
    json!([
        object["kind"],
        object["metadata"]["name"],
        object["metadata"]["ownerReferences"][0]["kind"],
        generation,
        object["spec"]["template"]["spec"],
        object["spec"]["ports"],
        if object["metadata"]["name"] == "kube-root-ca.crt" { &Value::Null } else { &object["data"] },
    ])
}

async fn kills(stage: &Stage<'_>, namespace: &str, mut chance: Chance, began: Instant) -> Result<()> {
    for _ in 0..chance.number(2..5) {
        tokio::time::sleep(chance.pause(300..4000)).await;
        let (what, pods) = match chance.number(0..2) {
            0 => ("operator", stage.pods(platform::NAMESPACE, "app.kubernetes.io/name=substratus").await?),
            _ => ("worker", stage.pods(namespace, "model=chaos").await?),
        };
        let ids: Vec<String> = pods.into_iter().filter_map(|pod| pod.metadata.uid).collect();
        let killed = kill(&ids)?;
        tell("chaos", began, &format!("{killed} {what} process(es) killed"));
    }
    Ok(())
}

/// Kills what runs of our program in these pods; there may be nothing at this moment.
pub(super) fn kill(pods: &[String]) -> Result<usize> {
    let in_pods = |pid: i32| {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| pods.iter().any(|id| groups.contains(id)))
    };
    let mut killed = 0;
    for (pid, words) in process::all()? {
        let ours = words.first().is_some_and(|program| program.ends_with("substratus")) && in_pods(pid);
        if let Some(pid) = Pid::from_raw(pid).filter(|_| ours) {
            // It may have ended meanwhile.
            killed += usize::from(kill_process(pid, Signal::KILL).is_ok());
        }
    }
    Ok(killed)
}
