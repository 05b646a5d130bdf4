//! The cluster's own programs end and come back while a model loads and another one is served, on a cluster that nobody else
//! uses: what runs in the end is what runs where nothing ended, and what was served goes on.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use substratus_tests::cluster::{Cluster, Mode, process};
use substratus_tests::platform;

use super::{Stage, chaos, question, start, tell};

const SERVED: &str = r"
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: served}
spec: {source: hf://acme/tiny-second}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: served}
spec: {model: {name: served}}
";

#[test]
fn api_server_and_container_runtime_restart_and_change_nothing_in_the_end() -> Result<()> {
    let cluster = Cluster::start(Mode::Node)?;
    let stage = start(&cluster)?;
    cluster.block_on(async {
        let namespace = cluster.namespace("served").await?;
        platform::apply_text(&cluster, &namespace, SERVED)?;
        stage.server(&namespace, "served", "to be ready", |status| status.ready).await?;
        let before = served(&stage, &namespace).await?;
        let calm = chaos::run(&stage, None::<chaos::Calm>).await.context("with nothing ended")?;
        for program in ["kube-apiserver", "containerd"] {
            let restart = async |loading: &str, began| restarted(&stage, loading, program, began).await;
            let found = chaos::run(&stage, Some(restart)).await.with_context(|| format!("{program} restarted"))?;
            ensure!(found == calm, "nothing ended: {calm:#}\n{program} restarted: {found:#}");
            let after = served(&stage, &namespace).await?;
            ensure!(after == before, "{program} restarted, and what was served {before:?} is {after:?}");
        }
        Ok(())
    })
}

/// Restarts a program of the cluster while the model is on its way.
async fn restarted(stage: &Stage<'_>, namespace: &str, program: &str, began: Instant) -> Result<()> {
    let moving = stage
        .model(namespace, "chaos", "to be moving", |status| {
            status.transfer.as_ref().is_some_and(|transfer| transfer.bytes_done > 0 && transfer.bytes_done < transfer.bytes_total)
        })
        .await?;
    ensure!(!moving.ready, "it was too fast to be disturbed");
    let before = process_of(stage, program)?;
    stage.cluster.restart(program).await?;
    ensure!(process_of(stage, program)? != before, "{program} never ended");
    tell("restart", began, &format!("{program} is back; before it ended: {:?}", moving.transfer));
    Ok(())
}

/// The one process that runs a program of this cluster.
fn process_of(stage: &Stage<'_>, program: &str) -> Result<i32> {
    let dir = stage.cluster.ready().dir.to_string_lossy().into_owned();
    let ours = |words: &[PathBuf]| {
        words.first().is_some_and(|first| first.ends_with(program))
            && words.iter().any(|word| word.to_string_lossy().contains(&dir))
    };
    let found: Vec<i32> = process::all()?.into_iter().filter(|(_, words)| ours(words)).map(|(pid, _)| pid).collect();
    ensure!(found.len() == 1, "{program} runs {} times", found.len());
    found.first().copied().context("no process")
}

/// That the Server answers and is ready; the generation of its Deployment, which counts rollouts, and its pods.
async fn served(stage: &Stage<'_>, namespace: &str) -> Result<(Option<i64>, Vec<Option<String>>)> {
    stage.server(namespace, "served", "to be ready", |status| status.ready).await?;
    stage.complete(namespace, "served", &question()).await?;
    let deployment = Api::<Deployment>::namespaced(stage.cluster.client(), namespace).get("served-server").await?;
    let pods = stage.pods(namespace, "server=served").await?;
    ensure!(!pods.is_empty(), "no pod serves");
    Ok((deployment.metadata.generation, pods.into_iter().map(|pod| pod.metadata.uid).collect()))
}
