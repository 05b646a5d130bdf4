//! Plans are sticky: what runs keeps its engine and its pods while plugins are updated and better ones come, until it is edited.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use substratus_tests::cluster::eventually;
use substratus_tests::guests;

use super::badinput::registry::{HOST, Registry};
use super::badinput::{Turn, alone, condition};

const SERVERS: usize = 100;

fn name(number: usize) -> String {
    format!("s{number:03}")
}

/// Resource version of every Deployment: none changes where nothing is written.
async fn versions(turn: &Turn) -> Result<BTreeMap<String, String>> {
    let named = |object: DynamicObject| object.metadata.name.zip(object.metadata.resource_version);
    turn.list("Deployment").await?.into_iter().map(|object| named(object).context("a nameless Deployment")).collect()
}

/// Waits until so many Servers are as `good` wants them.
async fn servers(turn: &Turn, what: &str, good: impl Fn(&Value) -> bool) -> Result<()> {
    let api = turn.api("Server")?;
    eventually(&format!("{SERVERS} Servers {what}"), super::badinput::LIMIT, async || {
        let all = api.list(&ListParams::default()).await?;
        let mut lacks = Vec::new();
        for server in all {
            let server = serde_json::to_value(server)?;
            if !good(&server) {
                lacks.push(format!("{}: {}", server["metadata"]["name"], server["status"]["conditions"]));
            }
        }
        ensure!(lacks.is_empty(), "{} lack it, such as {}", lacks.len(), lacks.first().map_or("", String::as_str));
        Ok(Some(()))
    })
    .await
}

/// Waits until a Plugin answers in this version.
async fn active(turn: &Turn, plugin: &str, version: &str) -> Result<()> {
    let good = async |plugin: &Value| {
        Ok(condition(plugin, "Active")["status"] == "True" && plugin["status"]["version"].as_str() == Some(version))
    };
    turn.wait("Plugin", plugin, good).await.map(drop)
}

async fn engine(turn: &Turn, server: &str, engine: &str) -> Result<()> {
    turn.wait("Server", server, async |server| Ok(server["status"]["engine"].as_str() == Some(engine))).await.map(drop)
}

#[test]
fn hundred_servers_keep_their_pods_when_a_plugin_is_updated_and_a_better_one_comes() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        turn.create("Model", "m", json!({"source": "hf://acme/adopted"})).await?;
        let status = json!({"status": {"ready": true, "artifacts": {"url": "tar:////bucket/adopted"},
            "source": {"revision": "r", "format": "safetensors", "architecture": "LlamaForCausalLM", "bytes": 1, "files": 1}}});
        turn.api("Model")?.patch_status("m", &PatchParams::default(), &Patch::Merge(status)).await?;
        for number in 0..SERVERS {
            turn.create("Server", &name(number), json!({"model": {"name": "m"}, "params": {"do": "good"}})).await?;
        }
        let operator = turn.operator(&["--insecure-registry", HOST]).await?;
        servers(turn, "to be planned", |server| condition(server, "Serving")["reason"] == "DeploymentNotReady").await?;
        let before = versions(turn).await?;
        ensure!(before.len() == SERVERS, "{} Deployments", before.len());
        let first = turn.wait("Server", &name(0), async |_| Ok(true)).await?;
        let best = &first["status"]["candidates"][0];
        ensure!(first["status"]["engine"] == "vllm" && best["engine"] == "vllm", "{first}");
        ensure!(best["score"].as_i64().is_some_and(|score| score < 100), "nobody can be better than {best}");

        let updated = guests::later("plugins/adapter-vllm", "0.9.0")?;
        let image = registry.push("adapter-vllm", &updated, updated.len()).await?;
        turn.create("Plugin", "adapter-vllm", json!({"image": image, "grants": {"images": ["docker.io/"]}})).await?;
        active(turn, "adapter-vllm", "0.9.0").await?;
        let better = std::fs::read(guests::component("tests/guests/adapter")?)?;
        let image = registry.push("better", &better, better.len()).await?;
        turn.create("Plugin", "better", json!({"image": image, "grants": {"images": ["docker.io/hostile/"]}})).await?;
        active(turn, "better", "0.1.0").await?;
        servers(turn, "to know of the update", |server| condition(server, "PlanOutdated")["status"] == "True").await?;
        turn.calm(&operator, 0).await?;
        ensure!(versions(turn).await? == before, "a Deployment was written");

        // Nor does a restart move anything.
        let scope = turn.scope();
        let _operator = operator.restart(turn.cluster, &[&scope, "--insecure-registry", HOST]).await?;
        // What is new goes to the better one, and so does what is edited: it alone.
        turn.create("Server", "new", json!({"model": {"name": "m"}, "params": {"do": "good"}})).await?;
        engine(turn, "new", "hostile").await?;
        let edit = json!({"spec": {"args": ["--edited"]}});
        turn.api("Server")?.patch(&name(7), &PatchParams::default(), &Patch::Merge(edit)).await?;
        engine(turn, &name(7), "hostile").await?;
        let after = eventually("the edited Deployment", super::badinput::LIMIT, async || {
            let after = versions(turn).await?;
            Ok((after.get("s007-server") != before.get("s007-server") && after.contains_key("new-server")).then_some(after))
        })
        .await?;
        let moved: Vec<&String> = before.keys().filter(|name| before.get(*name) != after.get(*name)).collect();
        ensure!(moved == ["s007-server"], "{moved:?}");
        Ok(())
    })
}
