//! The operator is killed at moments that a seed picks; what it has made in the end is what it makes when nobody disturbs it.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use substratus_tests::cluster::eventually;
use substratus_tests::seeds::{self, Chance};

use super::fixture::{Fixture, condition, on_cluster};

/// Seeds of a normal run.
const FEW: u64 = 5;

#[test]
fn chaos_an_operator_killed_at_any_moment_ends_where_an_undisturbed_one_does() -> Result<()> {
    let mut calm = BTreeMap::new();
    on_cluster(async |fixture: &Fixture| {
        story(fixture).await?;
        calm = shape(fixture).await?;
        Ok(())
    })?;
    ensure!(calm.len() > 10, "there is little to compare: {calm:?}");
    for seed in seeds::all(FEW)? {
        on_cluster(async |fixture: &Fixture| {
            tokio::try_join!(story(fixture), crashes(fixture, seed.begin()))?;
            let found = shape(fixture).await?;
            for (name, what) in &calm {
                ensure!(found.get(name) == Some(what), "{name} is {:?}, and {what} when nothing is killed", found.get(name));
            }
            let more: Vec<_> = found.keys().filter(|name| !calm.contains_key(*name)).collect();
            ensure!(more.is_empty(), "there is more than when nothing is killed: {more:?}");
            Ok(())
        })?;
    }
    Ok(())
}

async fn crashes(fixture: &Fixture, mut chance: Chance) -> Result<()> {
    for _ in 0..chance.number(2..6) {
        tokio::time::sleep(chance.pause(0..2500)).await;
        fixture.crash_operator().await?;
    }
    Ok(())
}

/// Models come, are loaded, trained, served, changed and deleted; a Dataset comes, and a Notebook that has both.
async fn story(fixture: &Fixture) -> Result<()> {
    for name in ["stays", "moves", "goes"] {
        fixture.create("Model", name, json!({"source": format!("hf://org/{name}")})).await?;
        fixture.create("Server", name, json!({"model": {"name": name}})).await?;
    }
    fixture.create("Dataset", "rows", json!({"image": "example.test/loader", "params": {"n": 1}})).await?;
    let trained = json!({"image": "example.test/trainer", "command": ["train.sh"], "params": {"epochs": 1},
        "model": {"name": "stays"}, "dataset": {"name": "rows"}});
    fixture.create("Model", "trained", trained).await?;
    let both = json!({"image": "example.test/lab", "model": {"name": "trained"}, "dataset": {"name": "rows"}});
    fixture.create("Notebook", "lab", both).await?;
    for name in ["stays", "moves", "goes"] {
        fixture.load(name, 1).await?;
        fixture.reason("Server", name, "Serving", "DeploymentNotReady").await?;
    }
    fixture.merge("Model", "moves", json!({"spec": {"source": "hf://org/moved"}})).await?;
    fixture.delete("Server", "goes").await?;
    fixture.delete("Model", "goes").await?;
    let second = async |model: &Value| {
        let target = model["status"]["plan"]["target"].as_str();
        Ok(target.is_some_and(|target| target.ends_with("/g2")).then_some(()))
    };
    fixture.wait("Model", "moves", super::LIMIT, second).await?;
    fixture.drop_finished_pods("moves-modeller").await?;
    fixture.load("moves", 2).await?;
    let moved = async |deployment: &Value| Ok(deployment["spec"].to_string().contains("/g2").then_some(()));
    fixture.wait("Deployment", "moves-server", super::LIMIT, moved).await?;
    fixture.pod_ends("rows-data-loader", 0, &json!({})).await?;
    fixture.pod_ends("trained-modeller", 0, &json!({})).await?;
    fixture.reason("Model", "trained", "Complete", "JobComplete").await?;
    fixture.pod_is_ready("notebook=lab").await?;
    fixture.reason("Notebook", "lab", "Serving", "PodReady").await?;
    // The garbage collector takes its time.
    eventually("what belonged to the deleted Model to be gone", super::LIMIT, async || {
        fixture.drop_finished_pods("goes-modeller").await?;
        let names = fixture.versions().await?;
        let left: Vec<_> = names.keys().filter(|key| key.contains("/goes")).collect();
        ensure!(left.is_empty(), "still there: {left:?}");
        Ok(Some(()))
    })
    .await
}

/// What users see and what runs, less what a namespace and a clock decide.
async fn shape(fixture: &Fixture) -> Result<BTreeMap<String, String>> {
    let names = fixture.settled().await?;
    let mut found = BTreeMap::new();
    for key in names.keys() {
        let (kind, name) = key.split_once('/').context("a kind and a name")?;
        let object = fixture.get(kind, name).await?;
        let what = match kind {
            "Dataset" | "Model" | "Notebook" | "Server" => json!([
                condition(&object, if matches!(kind, "Dataset" | "Model") { "Complete" } else { "Serving" })["reason"],
                object["status"]["ready"],
                object["status"]["plugin"]["name"],
                object["status"]["artifacts"],
                object["status"]["engine"],
            ]),
            "Job" | "Deployment" => json!([without_offers(&object["spec"]["template"]["spec"]), object["spec"]["backoffLimit"]]),
            "Service" => json!([object["spec"]["ports"], object["spec"]["selector"]]),
            // A token is another one each time.
            "Secret" => json!(object["data"].as_object().map(|data| data.keys().collect::<Vec<_>>())),
            _ => object["data"].clone(),
        };
        found.insert(key.clone(), without_hashes(&what.to_string().replace(fixture.namespace(), "NAMESPACE")));
    }
    Ok(found)
}

/// What a load may take over is what there is when its Job is made.
fn without_offers(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let named = |value: &Value| value["name"].as_str().is_some_and(|name| name.starts_with("reuse-"));
    let said = |value: &Value| value.as_str().is_some_and(|text| text.starts_with("--reuse="));
    for list in ["/volumes", "/containers/0/volumeMounts", "/containers/0/args"] {
        if let Some(list) = pod.pointer_mut(list).and_then(Value::as_array_mut) {
            list.retain(|value| !named(value) && !said(value));
        }
    }
    pod
}

/// Artifacts lie below a hash of the namespace.
fn without_hashes(text: &str) -> String {
    let is_hash = |word: &str| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut clean = String::new();
    for part in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        clean.push_str(&if is_hash(word) { part.replace(word, "HASH") } else { part.to_owned() });
    }
    clean
}
