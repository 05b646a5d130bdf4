//! The life of a Plugin, before a real API server and a real registry: revisions come and go, and what is not trusted, not
//! approved or not granted never answers. Every test has an operator of its own.

mod bundled;
mod revisions;
mod store;
mod trust;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use substratus::plugin::{Manifest, PlainHttp, RegistryAuth, push};
use substratus_tests::guests;

use super::badinput::registry::HOST;
use super::badinput::{Turn, condition};

const INSECURE: &[&str] = &["--insecure-registry", HOST];

/// A guest that behaves, as a GPU policy of a cloud that nobody else knows.
const POLICY: &str = "tests/guests/policy";
/// The same as a model loader.
const LOADER: &str = "tests/guests/plain";

/// Pushes a guest with another manifest as `NAME:TAG`; gives the reference by digest.
async fn pushed(folder: &str, image: &str, change: impl FnOnce(&mut Manifest)) -> Result<String> {
    let bytes = guests::altered(folder, change)?;
    let plain = PlainHttp(vec![HOST.to_owned()]);
    Ok(push(&format!("{HOST}/{image}"), &bytes, RegistryAuth::Anonymous, &plain).await?)
}

/// The same as nothing but another version.
async fn version(folder: &str, image: &str, version: &str) -> Result<String> {
    pushed(folder, image, |manifest| version.clone_into(&mut manifest.version)).await
}

async fn patch(turn: &Turn, kind: &str, name: &str, change: Value) -> Result<()> {
    turn.api(kind)?.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

/// Waits until a Plugin answers in this version.
async fn answers(turn: &Turn, name: &str, version: &str) -> Result<Value> {
    let good = async |plugin: &Value| {
        Ok(condition(plugin, "Active")["status"] == "True" && plugin["status"]["version"].as_str() == Some(version))
    };
    turn.wait("Plugin", name, good).await.with_context(|| format!("{name} answers as {version}"))
}

/// Waits until a condition has this reason, and what it says has these words.
async fn says(turn: &Turn, name: &str, about: &str, reason: &str, words: &[&str]) -> Result<Value> {
    let plugin = turn.wait("Plugin", name, async |plugin| Ok(condition(plugin, about)["reason"] == reason)).await?;
    let said = condition(&plugin, about);
    for word in words {
        ensure!(said["message"].as_str().is_some_and(|message| message.contains(word)), "`{word}` is not in {said}");
    }
    Ok(plugin)
}

/// Version and state of every revision, the newest first.
fn history(plugin: &Value) -> Vec<(&str, &str)> {
    let revisions = plugin["status"]["revisions"].as_array();
    revisions.into_iter().flatten().map(|revision| (text(revision, "version"), text(revision, "state"))).collect()
}

fn text<'a>(revision: &'a Value, field: &str) -> &'a str {
    revision[field].as_str().unwrap_or("?")
}

/// A Plugin that follows a tag.
fn tracked(image: &str) -> Value {
    json!({"image": format!("{HOST}/{image}"), "update": {"mode": "Track", "interval": "1s"}, "grants": {"scheduling": ["nvidia.com/gpu"]}})
}
