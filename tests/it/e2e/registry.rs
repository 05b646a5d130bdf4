//! Plugins from a registry: one that is in no image answers for its own scheme, and one takes a bundled plugin's place. The
//! worker has neither, and fetches it from the operator.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::Api;
use serde_json::{Value, json};
use substratus::plugin::{PlainHttp, RegistryAuth, push};
use substratus_crds::Plugin;
use substratus_tests::cluster::eventually;
use substratus_tests::guests;
use substratus_tests::hub::{Content, Fault, Repo, Rule};
use substratus_tests::platform::{self, TINY};

use super::{FAULTS, LIMIT, Stage, folder, stage, tell};

const SLOW: &str = "acme/tiny-slow";
const BYTES: u64 = 24 << 20;

async fn pushed(stage: &Stage<'_>, name: &str, component: &[u8]) -> Result<String> {
    let registry = stage.cluster.registry()?;
    let plain = PlainHttp(vec![registry.to_owned()]);
    let source = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "PluginSource", "metadata": {"name": "local"},
        "spec": {"prefix": format!("{registry}/plugins/"), "unverified": "Allow"}});
    platform::apply_text(stage.cluster, "default", &source.to_string())?;
    Ok(push(&format!("{registry}/plugins/{name}:1"), component, RegistryAuth::Anonymous, &plain).await?)
}

/// Applies a Plugin and waits until it is active in this version.
async fn active(stage: &Stage<'_>, name: &str, spec: Value, version: &str) -> Result<()> {
    let object = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": {"name": name}, "spec": spec});
    platform::apply_text(stage.cluster, "default", &object.to_string())?;
    is_active(stage, name, version).await
}

async fn is_active(stage: &Stage<'_>, name: &str, version: &str) -> Result<()> {
    let plugins = Api::<Plugin>::all(stage.cluster.client());
    eventually(&format!("Plugin {name}"), LIMIT, async || {
        let plugin = plugins.get(name).await?;
        let status = plugin.status.context("no status yet")?;
        let active = status.conditions.iter().any(|condition| {
            condition.type_ == "Active"
                && condition.status == "True"
                && condition.observed_generation == plugin.metadata.generation
        });
        ensure!(active && status.version.as_deref() == Some(version), "{}", serde_json::to_string(&status)?);
        Ok(Some(()))
    })
    .await
}

fn model(name: &str, source: &str) -> String {
    json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": name}, "spec": {"source": source}}).to_string()
}

#[test]
fn a_plugin_of_a_registry_loads_for_its_scheme_and_its_progress_moves() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("registry").await?;
        stage.platform.hub.put(Repo::model(SLOW).file("model.gguf", Content::noise(17, BYTES)))?;
        let (hub, cdn) = (&stage.platform.hub.url, &stage.platform.hub.cdn_url);
        let image = pushed(stage, "plain-loader", &std::fs::read(guests::component("tests/guests/plain")?)?).await?;
        active(stage, "plain-loader", json!({"image": image, "grants": {"hosts": [hub, cdn]}}), "0.7.0").await?;
        tell("registry", began, "Plugin active");

        let faults = FAULTS.lock().await;
        stage.platform.hub.fault(Rule::cdn(SLOW, Fault::BytesPerSecond(96 << 10)));
        let address = hub.strip_prefix("http://").context("a hub without TLS")?;
        platform::apply_text(cluster, &namespace, &model("slow", &format!("plain://{address}/{SLOW}/resolve/main/model.gguf")))?;
        let first = moved(stage, &namespace, 0).await?;
        let second = moved(stage, &namespace, first).await?;
        tell("registry", began, &format!("status.transfer went from {first} to {second} bytes"));
        stage.platform.hub.clear_faults();
        drop(faults);
        let status = stage.model(&namespace, "slow", "to be ready", |status| status.ready).await?;
        let used = status.plugin.clone().context("no plugin in the status")?;
        ensure!((used.name.as_str(), used.version.as_str()) == ("plain-loader", "0.7.0"), "{used:?}");
        ensure!(std::fs::metadata(folder(&status)?.join("artifacts/model.gguf"))?.len() == BYTES, "not whole");
        platform::kubectl(cluster, &["delete", "plugin", "plain-loader"])?;
        Ok(())
    })
}

#[test]
fn a_registrys_version_takes_the_place_of_a_bundled_one() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let namespace = cluster.namespace("override").await?;
        let image = pushed(stage, "loader-huggingface", &guests::later("plugins/loader-huggingface", "0.9.0")?).await?;
        let patch = json!({"spec": {"image": image}}).to_string();
        let plugin = ["patch", "plugin", "loader-huggingface", "--type=merge", "--patch"];
        platform::kubectl(cluster, &[&plugin[..], &[&patch]].concat())?;
        is_active(stage, "loader-huggingface", "0.9.0").await?;
        platform::apply_text(cluster, &namespace, &model("later", &format!("hf://{TINY}")))?;
        let status = stage.model(&namespace, "later", "to be ready", |status| status.ready).await?;
        ensure!(status.plugin.as_ref().is_some_and(|used| used.version == "0.9.0"), "{:?}", status.plugin);
        // Without the image the bundled one answers again.
        platform::kubectl(cluster, &[&plugin[..], &[r#"{"spec": {"image": null}}"#]].concat())?;
        is_active(stage, "loader-huggingface", env!("CARGO_PKG_VERSION")).await
    })
}

/// Waits until more bytes than `before` are reported of a load that still runs.
async fn moved(stage: &Stage<'_>, namespace: &str, before: i64) -> Result<i64> {
    let status = stage
        .model(namespace, "slow", &format!("to have moved more than {before} bytes"), |status| {
            status.ready || status.transfer.as_ref().is_some_and(|transfer| transfer.bytes_done > before)
        })
        .await?;
    match status.transfer {
        Some(transfer) if !status.ready => Ok(transfer.bytes_done),
        other => bail!("it was too fast: {other:?}"),
    }
}
