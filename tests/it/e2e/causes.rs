//! What goes wrong is said where users look: in a condition, in the words of who stops it. And what is deleted is gone.

use std::time::Instant;

use anyhow::{Result, ensure};
use substratus_tests::cluster::eventually;
use substratus_tests::hub::{Content, Fault, Repo, Rule};
use substratus_tests::platform;

use super::{FAULTS, LIMIT, condition, stage, tell};

const READY: &str = "{apiVersion: substratus.ai/v1, kind: Model, metadata: {name: tiny}, spec: {source: hf://acme/tiny-second}}";
const NO_IMAGE: &str = "{apiVersion: substratus.ai/v1, kind: Server, metadata: {name: broken}, spec: {image: 'ghcr.io/nobody/nothing:1', model: {name: tiny}}}";
const EIGHT: &str = "{apiVersion: substratus.ai/v1, kind: Server, metadata: {name: huge}, spec: {model: {name: tiny}, resources: {gpu: {type: nvidia-l4, count: 8}}}}";
const STALLED: &str =
    "{apiVersion: substratus.ai/v1, kind: Model, metadata: {name: stalled}, spec: {source: hf://acme/tiny-stalled}}";

#[test]
fn a_missing_image_and_missing_gpus_are_said() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("causes").await?;
        for manifest in [READY, NO_IMAGE, EIGHT] {
            platform::apply_text(cluster, &namespace, manifest)?;
        }
        let status = stage
            .server(&namespace, "broken", "to say why", |status| {
                condition(&status.conditions, "Serving").1.contains("ImagePullBackOff")
            })
            .await?;
        let (reason, message) = condition(&status.conditions, "Serving");
        tell("causes", began, &format!("{reason}: {message}"));
        ensure!(reason == "DeploymentNotReady" && message.contains("ghcr.io/nobody/nothing:1"), "{reason}: {message}");

        let status = stage
            .server(&namespace, "huge", "to say why", |status| {
                condition(&status.conditions, "Serving").1.contains("nvidia.com/gpu")
            })
            .await?;
        let (reason, message) = condition(&status.conditions, "Serving");
        tell("causes", began, &format!("{reason}: {message}"));
        ensure!(reason == "DeploymentNotReady" && message.contains("Insufficient nvidia.com/gpu"), "{reason}: {message}");
        Ok(())
    })
}

#[test]
fn what_the_hub_refuses_is_said_in_its_terms() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("refused").await?;
        let hub = &stage.platform.hub;
        let repo = |name: &str| Repo::model(name).file("model.gguf", Content::noise(5, 1 << 20));
        hub.put(repo("acme/tiny-private").private().reader("somebody"))?;
        hub.put(repo("acme/tiny-limited"))?;
        let faults = FAULTS.lock().await;
        hub.fault(Rule::api("tiny-limited", Fault::TooManyRequests { seconds: 40_000 }));
        let cases = [
            ("missing", "hf://acme/tiny-missing", "NotFound", "acme/tiny-missing"),
            ("private", "hf://acme/tiny-private", "NotFound", "HF_TOKEN"),
            ("limited", "hf://acme/tiny-limited", "RateLimited", "40000 s"),
        ];
        for (name, source, ..) in cases {
            let model = format!(
                "{{apiVersion: substratus.ai/v1, kind: Model, metadata: {{name: {name}}}, spec: {{source: '{source}'}}}}"
            );
            platform::apply_text(cluster, &namespace, &model)?;
        }
        for (name, _, expected, words) in cases {
            // The pod speaks a moment before its Job has failed.
            let said = |status: &substratus_crds::ModelStatus| {
                let (reason, message) = condition(&status.conditions, "Complete");
                reason == expected && message.contains("substratus.ai/retry")
            };
            let status = stage.model(&namespace, name, &format!("to say {expected}"), said).await?;
            let (reason, message) = condition(&status.conditions, "Complete");
            tell("refused", began, &format!("{name}: {reason}: {message}"));
            ensure!(message.contains(words), "{name}: {message}");
        }
        hub.clear_faults();
        drop(faults);
        Ok(())
    })
}

#[test]
fn a_model_deleted_while_it_loads_leaves_nothing() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("deleted").await?;
        let repository = Repo::model("acme/tiny-stalled").file("model.gguf", Content::noise(3, 8 << 20));
        stage.platform.hub.put(repository)?;
        let faults = FAULTS.lock().await;
        stage.platform.hub.fault(Rule::cdn("tiny-stalled", Fault::BytesPerSecond(4 << 10)));
        platform::apply_text(cluster, &namespace, STALLED)?;
        stage
            .model(&namespace, "stalled", "to be loading", |status| {
                status.transfer.as_ref().is_some_and(|transfer| transfer.bytes_total > 0)
            })
            .await?;
        ensure!(!stage.models(&namespace).get("stalled").await?.status.is_some_and(|status| status.ready), "it was too fast");
        platform::kubectl(cluster, &["delete", "model", "stalled", "--namespace", &namespace])?;
        eventually("children to be gone", LIMIT, async || {
            let left = platform::kubectl(cluster, &["get", "job,pod,configmap", "--namespace", &namespace, "--output", "name"])?;
            let left: Vec<_> = left.lines().filter(|name| !name.ends_with("kube-root-ca.crt")).collect();
            ensure!(left.is_empty(), "still there: {left:?}");
            Ok(Some(()))
        })
        .await?;
        stage.platform.hub.clear_faults();
        drop(faults);
        tell("deleted", began, "children gone");
        Ok(())
    })
}
