//! A load whose process is killed half way goes on where it stopped, in a fresh pod, and the user sees it move.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use substratus_tests::cluster::process;
use substratus_tests::hub::{Fault, Kind, Rule};
use substratus_tests::platform::{self, LARGE, LARGE_BYTES};

use super::{FAULTS, LOADS_LARGE, Stage, folder, stage, tell};

const MANIFEST: &str = "{apiVersion: substratus.ai/v1, kind: Model, metadata: {name: large}, spec: {source: hf://acme/large}}";

#[test]
fn a_killed_load_goes_on_in_a_fresh_pod() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let hub = &stage.platform.hub;
        let namespace = cluster.namespace("resume").await?;
        let _alone = LOADS_LARGE.lock().await;
        let fetched = || hub.stats().cdn.bytes_with(&format!("{LARGE}/"));
        let before = fetched();
        let faults = FAULTS.lock().await;
        hub.fault(Rule::cdn(LARGE, Fault::BytesPerSecond(512 << 10)));
        platform::apply_text(cluster, &namespace, MANIFEST)?;
        let third = i64::try_from(LARGE_BYTES / 3)?;
        let moving = stage
            .model(&namespace, "large", "to be a third there", |status| {
                status.transfer.as_ref().is_some_and(|transfer| transfer.bytes_done > third)
            })
            .await?;
        ensure!(!moving.ready, "it was too fast to be killed");
        tell("resume", began, &format!("{:?}", moving.transfer));

        let first = kill(stage, &namespace).await?;
        tell("resume", began, "worker killed");
        hub.clear_faults();
        drop(faults);
        let status = stage.model(&namespace, "large", "to be ready", |status| status.ready).await?;
        tell("resume", began, "Model ready");
        let pods = stage.pods(&namespace, "model=large").await?;
        ensure!(pods.iter().any(|pod| pod.metadata.uid.as_ref() != Some(&first)), "no fresh pod");

        let filler = folder(&status)?.join("artifacts/filler.dat");
        ensure!(fs::metadata(&filler)?.len() == LARGE_BYTES, "{} is not whole", filler.display());
        let announced = hub.sha256(Kind::Model, LARGE, "main", "filler.dat")?;
        let manifest = fs::read_to_string(folder(&status)?.join(".substratus/manifest.json"))?;
        ensure!(manifest.contains(&announced), "the digest is not in the manifest");
        let again = fetched().saturating_sub(before + LARGE_BYTES);
        tell("resume", began, &format!("{again} bytes were fetched twice"));
        ensure!(again < LARGE_BYTES / 5, "{again} of {LARGE_BYTES} bytes were fetched twice");
        Ok(())
    })
}

/// Kills the worker's process of the one pod of a namespace and returns the pod's id.
async fn kill(stage: &Stage, namespace: &str) -> Result<String> {
    let pods = stage.pods(namespace, "model=large").await?;
    let uid = pods.first().and_then(|pod| pod.metadata.uid.clone()).context("no pod loads")?;
    // A pod's processes are those in its cgroup; the pause container is another program.
    let in_pod = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(&uid));
    let worker = process::all()?
        .into_iter()
        .find(|(pid, words)| words.first().is_some_and(|program| program.ends_with("substratus")) && in_pod(*pid));
    let (pid, _) = worker.context("no worker runs in the pod")?;
    let pid = rustix::process::Pid::from_raw(pid).context("a process has an id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(uid)
}
