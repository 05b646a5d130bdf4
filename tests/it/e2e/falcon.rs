//! Two manifests of the first operator, unchanged: a model is imported and verified, served on the GPUs asked for, and answers.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::Api;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use substratus_tests::hub::Kind;
use substratus_tests::platform::{self, TINY};

use super::{condition, folder, question, stage, tell};

#[test]
fn falcon_is_imported_placed_and_answers() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("falcon").await?;
        platform::apply(cluster, &namespace, "examples/falcon-40b/model.yaml")?;
        platform::apply(cluster, &namespace, "examples/falcon-40b/server.yaml")?;

        let model = stage.model(&namespace, "falcon-40b", "to be ready", |status| status.ready).await?;
        tell("falcon", began, "Model ready");
        let source = model.source.clone().context("no source")?;
        ensure!(source.format.as_deref() == Some("gguf") && source.entrypoint.as_deref() == Some("tiny.gguf"), "{source:?}");
        let commit = stage.platform.hub.commit(Kind::Model, TINY, "main")?;
        ensure!(source.revision.as_ref() == Some(&commit), "{source:?}");
        ensure!(model.plugin.as_ref().is_some_and(|plugin| plugin.name == "loader-huggingface"), "{:?}", model.plugin);
        verified(&folder(&model)?, &stage.platform.hub.sha256(Kind::Model, TINY, "main", "tiny.gguf")?)?;

        let server = stage.server(&namespace, "falcon-40b", "to be ready", |status| status.ready).await?;
        tell("falcon", began, "Server ready");
        ensure!(server.plugin.as_ref().is_some_and(|plugin| plugin.name == "adapter-basaran"), "{:?}", server.plugin);
        placed(&namespace).await?;

        let answer = stage.complete(&namespace, "falcon-40b", &question()).await?;
        ensure!(answer["choices"][0]["text"].as_str().is_some_and(|text| !text.trim().is_empty()), "{answer}");
        ensure!(answer["usage"]["completion_tokens"] == 8 && answer["model"] == "falcon-40b", "{answer}");
        tell("falcon", began, "completion");

        let table = platform::kubectl(cluster, &["get", "ai", "--namespace", &namespace])?;
        tell("falcon", began, &format!("kubectl get ai\n{table}"));
        for kind in ["model.substratus.ai/falcon-40b", "server.substratus.ai/falcon-40b"] {
            let line = table.lines().find(|line| line.starts_with(kind)).with_context(|| format!("no {kind} in {table}"))?;
            ensure!(line.contains("true"), "{line}");
        }
        let (reason, _) = condition(&server.conditions, "Serving");
        ensure!(reason == "DeploymentReady" && table.contains("JobComplete"), "{reason}: {table}");

        let before = revisions(&namespace).await?;
        platform::restart_operator(cluster).await?;
        tell("falcon", began, "operator restarted");
        // Its first pass over all objects is done once a change made after the restart is answered.
        platform::kubectl(cluster, &["annotate", "server", "falcon-40b", "--namespace", &namespace, "seen=yes"])?;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        let after = revisions(&namespace).await?;
        ensure!(before == after && before.0 == Some(1), "a restart changed something: {before:?} became {after:?}");
        // It asks for two cores, which is all that a small node has: the next run needs them.
        platform::kubectl(cluster, &["delete", "server", "falcon-40b", "--namespace", &namespace])?;
        Ok(())
    })
}

/// Generation and resource version of the Deployment and the Model's Job: what a rollout or a write would change.
async fn revisions(namespace: &str) -> Result<(Option<i64>, Value)> {
    let stage = stage()?;
    let deployment = Api::<Deployment>::namespaced(stage.cluster.client(), namespace).get("falcon-40b-server").await?;
    let arguments =
        ["get", "deployment,job,service,configmap,serviceaccount,model,server", "--namespace", namespace, "--output", "json"];
    let listed: Value = serde_json::from_str(&platform::kubectl(stage.cluster, &arguments)?)?;
    let versions = listed["items"].as_array().context("no list")?.iter().map(|item| {
        // The test itself annotates the Server, so its resource version moves; its status must not.
        let version = if item["kind"] == "Server" { &item["status"] } else { &item["metadata"]["resourceVersion"] };
        serde_json::json!([item["kind"], item["metadata"]["name"], version])
    });
    Ok((deployment.metadata.generation, versions.collect()))
}

fn verified(place: &std::path::Path, announced: &str) -> Result<()> {
    let file = place.join("artifacts/tiny.gguf");
    let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let found = hex::encode(Sha256::digest(&bytes));
    ensure!(found == announced, "the file has {found}, the hub announced {announced}");
    let manifest = fs::read_to_string(place.join(".substratus/manifest.json")).context("reading the manifest")?;
    ensure!(manifest.contains(announced) && manifest.contains("tiny.gguf"), "{manifest}");
    Ok(())
}

async fn placed(namespace: &str) -> Result<()> {
    let pods = stage()?.pods(namespace, "server=falcon-40b").await?;
    let spec = pods.first().and_then(|pod| pod.spec.clone()).context("no pod serves")?;
    let selector = spec.node_selector.unwrap_or_default();
    ensure!(selector.get("cloud.google.com/gke-accelerator").is_some_and(|value| value == "nvidia-l4"), "{selector:?}");
    let container = spec.containers.first().context("no container")?;
    let limits = container.resources.clone().and_then(|resources| resources.limits).unwrap_or_default();
    ensure!(limits.get("nvidia.com/gpu").is_some_and(|amount| amount.0 == "4"), "{limits:?}");
    ensure!(container.image.as_deref() == Some("ghcr.io/ggml-org/llama.cpp:server-cuda"), "{:?}", container.image);
    Ok(())
}
