//! A gated model: what the user reads without a token, and that the token goes to the hub alone.

use std::time::Instant;

use anyhow::{Result, ensure};
use substratus_tests::platform::{self, TOKEN};

use super::{condition, folder, stage, tell};

#[test]
fn a_gated_model_says_what_it_needs_and_loads_with_the_secret() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("llama").await?;
        platform::apply(cluster, &namespace, "examples/llama2-7b/model.yaml")?;
        // The pod speaks a moment before its Job has failed.
        let refused = |status: &substratus_crds::ModelStatus| {
            let (reason, message) = condition(&status.conditions, "Complete");
            reason == "NeedsAuth" && message.contains("substratus.ai/retry")
        };
        let status = stage.model(&namespace, "llama-2-7b", "to be refused", refused).await?;
        let (reason, message) = condition(&status.conditions, "Complete");
        tell("secret", began, &format!("{reason}: {message}"));
        ensure!(!status.ready && message.contains("meta-llama/Llama-2-7b-hf"), "{message}");
        ensure!(message.contains("HUGGING_FACE_HUB_TOKEN"), "{message}");

        let literal = format!("--from-literal=HUGGING_FACE_HUB_TOKEN={TOKEN}");
        platform::kubectl(cluster, &["create", "secret", "generic", "ai", "--namespace", &namespace, &literal])?;
        platform::kubectl(cluster, &["annotate", "model", "llama-2-7b", "--namespace", &namespace, "substratus.ai/retry=1"])?;
        let status = stage.model(&namespace, "llama-2-7b", "to be ready", |status| status.ready).await?;
        tell("secret", began, "Model ready");
        ensure!(folder(&status)?.join("artifacts/model.safetensors").exists(), "no weights in {:?}", status.artifacts);

        let counted = stage.platform.hub.stats();
        ensure!(counted.hub.authorization_headers > 0, "the hub was never shown the token");
        ensure!(counted.cdn.authorization_headers == 0, "the token reached the CDN");
        let everything =
            platform::kubectl(cluster, &["get", "model,job,pod,configmap,event", "--namespace", &namespace, "--output", "yaml"])?;
        ensure!(!everything.contains(TOKEN), "the token shows in an object");
        Ok(())
    })
}
