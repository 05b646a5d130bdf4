//! A Model goes into a registry and comes back as another one, in real pods.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use substratus_tests::platform;
use substratus_tests::registry::proxied::{PASSWORD, Registry, docker_config};
use tokio::runtime::Handle;

use super::{Stage, condition, folder, stage, tell};

fn model(name: &str, spec: &serde_json::Value) -> String {
    json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// The loader of registries may reach this one, which speaks no TLS.
fn grant(stage: &Stage<'_>, host: &str) -> Result<()> {
    let origin = format!("http://{host}");
    let spec = json!({"grants": {"hosts": [origin], "secrets": [{"use": "registry", "hosts": [origin]}]}});
    let plugin =
        json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": {"name": "loader-oci"}, "spec": spec});
    platform::apply_text(stage.cluster, "default", &plugin.to_string())?;
    Ok(())
}

#[test]
fn a_model_is_published_with_an_account_and_loaded_back() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("publish").await?;
        let registry = Registry::start_at(cluster.node_address()?.parse()?, true, &Handle::current())?;
        grant(stage, &registry.host)?;
        let place = format!("oci://{}/team/tiny:v1", registry.host);
        let spec = json!({"source": format!("hf://{}", platform::TINY), "publish": place, "publishSecret": "push"});
        platform::apply_text(cluster, &namespace, &model("tiny", &spec))?;
        let refused = |status: &substratus_crds::ModelStatus| {
            let (reason, message) = condition(&status.conditions, "Published");
            reason == "NeedsAuth" && message.contains("substratus.ai/retry")
        };
        let status = stage.model(&namespace, "tiny", "to be refused by the registry", refused).await?;
        ensure!(status.ready, "what is complete waits for its push: {status:?}");
        tell("publish", began, "refused without an account");

        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "push"}, "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": docker_config(&registry.host, PASSWORD).to_string()}});
        platform::apply_text(cluster, &namespace, &secret.to_string())?;
        platform::kubectl(cluster, &["annotate", "model", "tiny", "--namespace", &namespace, "substratus.ai/retry=1"])?;
        let digest = |status: &substratus_crds::ModelStatus| status.published.as_ref().and_then(|published| published.digest.clone());
        let status = stage.model(&namespace, "tiny", "to be published", |status| digest(status).is_some()).await?;
        let digest = digest(&status).context("no digest")?;
        let (found, manifest) = registry.manifest("team/tiny", "v1").await?.context("nothing was pushed")?;
        ensure!(found == digest, "{manifest}");
        tell("publish", began, &format!("published as {digest}"));

        let spec = json!({"source": place, "imagePullSecrets": [{"name": "push"}]});
        platform::apply_text(cluster, &namespace, &model("back", &spec))?;
        let back = stage.model(&namespace, "back", "to be ready", |status| status.ready).await?;
        let source = back.source.clone().context("nothing is known of it")?;
        ensure!(source.revision.as_deref() == Some(digest.as_str()) && source.format.as_deref() == Some("gguf"), "{source:?}");
        for entry in std::fs::read_dir(folder(&status)?.join("artifacts"))? {
            let path = entry?.path();
            let same = folder(&back)?.join("artifacts").join(path.file_name().context("a name")?);
            ensure!(std::fs::read(&path)? == std::fs::read(same)?, "{} is another", path.display());
        }
        tell("publish", began, "loaded back");
        let everything = platform::kubectl(
            cluster,
            &["get", "model,job,pod,configmap,event", "--namespace", &namespace, "--output", "yaml"],
        )?;
        ensure!(!everything.contains(PASSWORD), "the password shows in an object");
        platform::kubectl(cluster, &["delete", "plugin", "loader-oci"])?;
        Ok(())
    })
}
