//! A changed Model is loaded into a folder of its own; its Server moves over without a request that is lost, and what served
//! before stays as it was.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use serde_json::Value;
use substratus_tests::cluster::eventually;
use substratus_tests::platform;

use super::{LIMIT, client, folder, question, stage, tell};

const MODEL: &str =
    "{apiVersion: substratus.ai/v1, kind: Model, metadata: {name: tiny}, spec: {source: 'hf://tiiuae/falcon-40b@REVISION'}}";
const SERVER: &str = "{apiVersion: substratus.ai/v1, kind: Server, metadata: {name: tiny}, spec: {model: {name: tiny}}}";

#[test]
fn an_edited_model_moves_its_server_and_leaves_the_old_folder() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("edit").await?;
        platform::apply_text(cluster, &namespace, &MODEL.replace("REVISION", "v1"))?;
        platform::apply_text(cluster, &namespace, SERVER)?;
        let first = stage.model(&namespace, "tiny", "to be ready", |status| status.ready).await?;
        let server = stage.server(&namespace, "tiny", "to be ready", |status| status.ready).await?;
        tell("edit", began, &format!("served by {:?}", server.engine));
        ensure!(
            server.engine.as_deref() == Some("llama.cpp"),
            "the best adapter for GGUF was not chosen: {:?}",
            server.candidates
        );
        let old = folder(&first)?;
        let before = content(&old)?;

        // The node knows the way to the pod once it was gone.
        stage.complete(&namespace, "tiny", &question()).await?;
        let answered = Cell::new(0);
        platform::apply_text(cluster, &namespace, &MODEL.replace("REVISION", "v2"))?;
        let second =
            stage.model(&namespace, "tiny", "to be ready again", |status| status.ready && status.source != first.source).await?;
        tell("edit", began, "second load ready");
        let new = folder(&second)?;
        ensure!(new == old.join("g2"), "{} is not {}/g2", new.display(), old.display());
        ensure!(new.join("artifacts/README.md").exists(), "the second revision has a README");

        let deployments = Api::<Deployment>::namespaced(cluster.client(), &namespace);
        let rollout = eventually("rollout", LIMIT, async || {
            let deployment = deployments.get("tiny-server").await?;
            let volumes = deployment.spec.and_then(|spec| spec.template.spec).and_then(|spec| spec.volumes).unwrap_or_default();
            let path = volumes.into_iter().find_map(|volume| volume.host_path).context("no node path")?.path;
            ensure!(Path::new(&path) == new, "it still mounts {path}");
            let status = deployment.status.unwrap_or_default();
            let done = status.observed_generation == deployment.metadata.generation;
            Ok((done && status.updated_replicas == Some(1) && status.replicas == Some(1) && status.ready_replicas == Some(1))
                .then_some(()))
        });
        let moved = async {
            rollout.await?;
            // The pod that served before finishes what it has begun.
            eventually("old pod to go", LIMIT, async || {
                Ok((stage.pods(&namespace, "server=tiny").await?.len() == 1).then_some(()))
            })
            .await
        };
        let url = stage.url(&namespace, "tiny").await?;
        tokio::select! {
            done = moved => done?,
            failed = ask(&url, &answered) => failed.with_context(|| format!("request {} was lost", answered.get() + 1))?,
        }
        tell("edit", began, &format!("Server moved, and answered {} requests meanwhile", answered.get()));
        ensure!(answered.get() > 10, "only {} requests were answered meanwhile", answered.get());
        let after: BTreeMap<_, _> = content(&old)?.into_iter().filter(|(path, _)| !path.starts_with(&new)).collect();
        ensure!(before == after, "the old folder changed: {before:?} became {after:?}");
        Ok(())
    })
}

/// Asks again and again, each time on a connection of its own, until one is not answered.
async fn ask(url: &str, answered: &Cell<u32>) -> Result<()> {
    loop {
        let answer = client()?.post(format!("{url}/v1/completions")).json(&question()).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        ensure!(answer["usage"]["completion_tokens"] == 8, "{answer}");
        answered.set(answered.get() + 1);
    }
}

/// Every file with its size and time of change.
fn content(folder: &Path) -> Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(content(&entry.path())?);
        } else {
            let facts = entry.metadata()?;
            found.insert(entry.path(), (facts.len(), facts.modified()?));
        }
    }
    Ok(found)
}
