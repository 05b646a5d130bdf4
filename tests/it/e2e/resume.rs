//! A load whose process is killed, or whose pod is deleted, goes on where it stopped, in a fresh pod, and the user sees it move.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use substratus_tests::cluster::{Cluster, process};
use substratus_tests::hub::{Fault, Kind, Rule};
use substratus_tests::platform::{self, LARGE, LARGE_BYTES};

use super::{FAULTS, LOADS_LARGE, folder, stage, tell};

const MANIFEST: &str = "{apiVersion: substratus.ai/v1, kind: Model, metadata: {name: large}, spec: {source: hf://acme/large}}";

#[test]
fn a_killed_load_goes_on_in_a_fresh_pod() -> Result<()> {
    interrupted("killed", |_, _, pod| kill(pod))
}

#[test]
fn a_load_whose_pod_is_deleted_goes_on_in_a_fresh_one() -> Result<()> {
    interrupted("deleted", |cluster, namespace, pod| {
        let name = pod.metadata.name.as_deref().context("a pod has a name")?;
        platform::kubectl(cluster, &["delete", "pod", name, "--namespace", namespace]).map(drop)
    })
}

/// Loads the large model, does something to its pod when a third is there, and looks at what comes of it.
fn interrupted(how: &str, interrupt: impl FnOnce(&Cluster, &str, &Pod) -> Result<()>) -> Result<()> {
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
        let watched = watch(cluster, &namespace)?;
        platform::apply_text(cluster, &namespace, MANIFEST)?;
        let third = i64::try_from(LARGE_BYTES / 3)?;
        let moving = stage
            .model(&namespace, "large", "to be a third there", |status| {
                status.transfer.as_ref().is_some_and(|transfer| transfer.bytes_done > third)
            })
            .await?;
        ensure!(!moving.ready, "it was too fast to be disturbed");
        tell(how, began, &format!("{:?}", moving.transfer));

        let pods = stage.pods(&namespace, "model=large").await?;
        let first = pods.first().context("no pod loads")?;
        interrupt(cluster, &namespace, first)?;
        tell(how, began, "worker interrupted");
        hub.clear_faults();
        drop(faults);
        let status = stage.model(&namespace, "large", "to be ready", |status| status.ready).await?;
        tell(how, began, "Model ready");
        let pods = stage.pods(&namespace, "model=large").await?;
        ensure!(pods.iter().any(|pod| pod.metadata.uid != first.metadata.uid), "no fresh pod");

        let filler = folder(&status)?.join("artifacts/filler.dat");
        ensure!(fs::metadata(&filler)?.len() == LARGE_BYTES, "{} is not whole", filler.display());
        let announced = hub.sha256(Kind::Model, LARGE, "main", "filler.dat")?;
        let manifest = fs::read_to_string(folder(&status)?.join(".substratus/manifest.json"))?;
        ensure!(manifest.contains(&announced), "the digest is not in the manifest");
        let again = fetched().saturating_sub(before + LARGE_BYTES);
        tell(how, began, &format!("{again} bytes were fetched twice"));
        ensure!(again < LARGE_BYTES / 5, "{again} of {LARGE_BYTES} bytes were fetched twice");

        let seen = watched.ended()?;
        tell(how, began, &format!("seen by a watch: {seen:?}"));
        ensure!(seen.len() >= 3, "`kubectl get -w` showed no load that moves: {seen:?}");
        Ok(())
    })
}

/// A running `kubectl get models --watch`.
struct Watched(Child);

fn watch(cluster: &Cluster, namespace: &str) -> Result<Watched> {
    let mut command = cluster.command("kubectl");
    command.args(["get", "models", "--watch", "--namespace", namespace]).stdout(Stdio::piped());
    Ok(Watched(command.spawn().context("start `kubectl get --watch`")?))
}

impl Watched {
    /// Ends it; every percentage that its table showed.
    fn ended(mut self) -> Result<BTreeSet<String>> {
        let output = self.0.stdout.take().context("no output")?;
        self.0.kill().context("end `kubectl get --watch`")?;
        let mut seen = BTreeSet::new();
        for line in BufReader::new(output).lines() {
            seen.extend(line?.split_whitespace().filter(|word| word.ends_with('%')).map(str::to_owned));
        }
        Ok(seen)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // One that ended well has nothing to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Kills the worker's process of a pod.
fn kill(pod: &Pod) -> Result<()> {
    let uid = pod.metadata.uid.as_deref().context("a pod has an id")?;
    // A pod's processes are those in its cgroup; the pause container is another program.
    let in_pod = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(uid));
    let worker = process::all()?
        .into_iter()
        .find(|(pid, words)| words.first().is_some_and(|program| program.ends_with("substratus")) && in_pod(*pid));
    let (pid, _) = worker.context("no worker runs in the pod")?;
    let pid = rustix::process::Pid::from_raw(pid).context("a process has an id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}
