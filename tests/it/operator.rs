//! The operator against a real API server, controller manager and scheduler. There is no node: the tests play the kubelet.

mod artifact;
mod build;
mod chaos;
mod edits;
mod fixture;
mod generations;
mod idle;
mod imports;
mod manifests;
mod network;
mod notebook;
mod plugins;
mod publish;
mod scale;
mod security;
mod siblings;
mod takeover;
mod transfer;
mod upload;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use substratus_tests::cluster::eventually;

use self::fixture::{Fixture, condition, loaded, on_cluster};

const LIMIT: Duration = Duration::from_mins(1);

#[test]
fn model_is_loaded_by_the_plugin_of_its_source_and_latched() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture
            .create(
                "Model",
                "falcon",
                json!({"source": "hf://tiiuae/falcon-40b", "env": {
            "HF_TOKEN": "${{ secrets.ai.HF_TOKEN }}", "OTHER": "x"}}),
            )
            .await?;
        let job = fixture.wait("Job", "falcon-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        ensure!(container["name"] == "model" && container["image"] == "registry.test/substratus:test", "{container}");
        let env = container["env"].as_array().context("no env")?;
        ensure!(env.len() == 1 && env[0]["name"] == "HF_TOKEN", "a worker sees the secrets of its plugin alone: {env:?}");
        ensure!(env[0]["valueFrom"]["secretKeyRef"] == json!({"name": "ai", "key": "HF_TOKEN", "optional": true}), "{env:?}");
        ensure!(job["metadata"]["ownerReferences"][0]["kind"] == "Model", "no owner: {job}");

        // The scheduler's own words reach the condition.
        let model = fixture
            .wait("Model", "falcon", LIMIT, async |model| {
                let complete = condition(model, "Complete");
                Ok(complete["message"].as_str().is_some_and(|m| m.contains("no nodes available")).then_some(()))
            })
            .await?;
        ensure!(condition(&model, "Complete")["reason"] == "JobNotComplete", "{model}");
        ensure!(model["status"]["plugin"]["name"] == "loader-huggingface", "{model}");
        let url = model["status"]["artifacts"]["url"].as_str().context("no artifact URL")?;
        ensure!(url.starts_with("tar:////bucket/"), "{url}");

        fixture.pod_ends("falcon-modeller", 0, &loaded(&model, 7)).await?;
        let model =
            fixture.wait("Model", "falcon", LIMIT, async |model| Ok((model["status"]["ready"] == true).then_some(()))).await?;
        ensure!(condition(&model, "Complete")["reason"] == "JobComplete", "{model}");
        ensure!(model["status"]["source"]["format"] == "gguf" && model["status"]["transfer"]["progress"] == "100%", "{model}");
        Ok(())
    })
}

#[test]
fn typed_failure_reaches_the_condition_and_the_retry_annotation_starts_again() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "gated", json!({"source": "hf://org/gated"})).await?;
        let model =
            fixture.wait("Model", "gated", LIMIT, async |model| Ok(model["status"]["plan"].is_object().then_some(()))).await?;
        let outcome = json!({"outcome": "failed", "inputs": model["status"]["plan"]["inputs"], "reason": "Gated",
            "message": "ask for access at https://hub.test/org/gated"});
        let first = fixture.pod_ends("gated-modeller", 64, &outcome).await?;
        let model = fixture
            .wait("Model", "gated", LIMIT, async |model| {
                // The pod speaks a moment before its Job has failed.
                let said = condition(model, "Complete");
                let teaches = said["message"].as_str().is_some_and(|message| message.contains("substratus.ai/retry"));
                Ok((said["reason"] == "Gated" && teaches).then_some(()))
            })
            .await?;
        let message = condition(&model, "Complete")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("https://hub.test/org/gated"), "{message}");
        fixture.annotate("Model", "gated", "substratus.ai/retry", "1").await?;
        fixture.delete("Pod", &first).await?;
        fixture
            .wait("Job", "gated-modeller", LIMIT, async |job| {
                Ok((job["metadata"]["annotations"]["substratus.ai/retry"] == "1").then_some(()))
            })
            .await?;
        let event = fixture.event("gated", "Gated").await?;
        ensure!(event["type"] == "Warning", "{event}");
        Ok(())
    })
}

#[test]
fn server_waits_for_its_model_then_serves_with_the_best_engine() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Server", "chat", json!({"model": {"name": "tiny"}})).await?;
        fixture.reason("Server", "chat", "Serving", "ModelNotFound").await?;
        fixture.create("Model", "tiny", json!({"source": "hf://org/tiny"})).await?;
        fixture.reason("Server", "chat", "Serving", "ModelNotReady").await?;
        fixture.load("tiny", 3).await?;
        let deployment = fixture.wait("Deployment", "chat-server", LIMIT, async |_| Ok(Some(()))).await?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        ensure!(container["image"].as_str().is_some_and(|image| image.contains("llama.cpp")), "{container}");
        ensure!(container["ports"][0]["name"] == "http-serve", "{container}");
        let service = fixture.get("Service", "chat-server").await?;
        ensure!(service["spec"]["ports"][0]["port"] == 8080, "{service}");
        let server = fixture.reason("Server", "chat", "Serving", "DeploymentNotReady").await?;
        let candidates = server["status"]["candidates"].as_array().context("nobody was asked")?;
        ensure!(candidates.len() == 3 && candidates[0]["engine"] == "llama.cpp", "{candidates:?}");
        ensure!(candidates.iter().all(|candidate| candidate["reason"].as_str().is_some_and(|r| !r.is_empty())), "{candidates:?}");

        fixture.pod_is_ready("server=chat").await?;
        fixture.reason("Server", "chat", "Serving", "DeploymentReady").await?;
        Ok(())
    })
}

#[test]
fn nothing_is_written_at_rest_nor_by_a_restart() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "still", json!({"source": "hf://org/still"})).await?;
        fixture.create("Server", "still", json!({"model": {"name": "still"}})).await?;
        fixture.load("still", 1).await?;
        fixture.reason("Server", "still", "Serving", "DeploymentNotReady").await?;
        let (before, told) = (fixture.settled().await?, fixture.told().await?);
        ensure!(!told.is_empty(), "nothing was told");
        fixture.restart_operator().await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        ensure!(before == fixture.versions().await?, "a restart wrote something");
        ensure!(told == fixture.told().await?, "a restart told something");
        Ok(())
    })
}

#[test]
fn changed_source_runs_a_new_load_into_a_folder_of_its_own() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "moving", json!({"source": "hf://org/one"})).await?;
        let first = fixture.load("moving", 1).await?;
        fixture.merge("Model", "moving", json!({"spec": {"source": "hf://org/two"}})).await?;
        // The old artifact stays in place until the new one is whole.
        let model = fixture.reason("Model", "moving", "Complete", "JobNotComplete").await?;
        ensure!(model["status"]["artifacts"] == first["status"]["artifacts"], "{model}");
        fixture
            .wait("Model", "moving", LIMIT, async |model| {
                Ok(model["status"]["plan"]["target"].as_str().is_some_and(|target| target.ends_with("/g2")).then_some(()))
            })
            .await?;
        fixture.drop_finished_pods("moving-modeller").await?;
        let second = fixture.load("moving", 2).await?;
        let url = second["status"]["artifacts"]["url"].as_str().unwrap_or_default().to_owned();
        ensure!(url.ends_with("/g2"), "{url}");
        Ok(())
    })
}

#[test]
fn fields_that_somebody_else_changed_are_taken_back() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "guarded", json!({"source": "hf://org/guarded"})).await?;
        fixture.create("Server", "guarded", json!({"model": {"name": "guarded"}})).await?;
        fixture.load("guarded", 1).await?;
        let deployment = fixture.wait("Deployment", "guarded-server", LIMIT, async |_| Ok(Some(()))).await?;
        let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].clone();
        fixture.settled().await?;
        fixture.merge("Service", "guarded-server", json!({"spec": {"selector": {"server": "evil"}}})).await?;
        fixture
            .wait("Service", "guarded-server", LIMIT, async |service| {
                Ok((service["spec"]["selector"]["server"] == "guarded").then_some(()))
            })
            .await?;
        // What is not ours stays: replicas belong to whoever scales.
        fixture.merge("Deployment", "guarded-server", json!({"spec": {"replicas": 3}})).await?;
        fixture.annotate("Deployment", "guarded-server", "someone.else/note", "kept").await?;
        let deployment = fixture
            .wait("Deployment", "guarded-server", LIMIT, async |deployment| {
                Ok((deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image).then_some(()))
            })
            .await?;
        ensure!(deployment["spec"]["replicas"] == 3, "{deployment}");
        Ok(())
    })
}

#[test]
fn bad_specs_become_conditions() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let cases: [(&str, &str, Value, &str, &str); 7] = [
            ("Model", "scheme", json!({"source": "nope://x/y"}), "PluginNotFound", "hf"),
            ("Model", "named", json!({"source": "hf://x/y", "plugin": "nobody"}), "PluginNotFound", "nobody"),
            ("Model", "empty", json!({}), "Invalid", "source"),
            ("Model", "typo", json!({"source": "hf://x/y", "env": {"A": "${{ secret.a.b }}"}}), "Invalid", "spec.env.A"),
            ("Model", "build", json!({"build": {}}), "Invalid", "spec.image"),
            ("Model", "base", json!({"image": "trainer", "model": {"name": "none"}}), "BaseModelNotFound", "none"),
            ("Server", "engine", json!({"engine": "warp", "model": {"name": "base"}}), "PluginNotFound", "warp"),
        ];
        for (kind, name, spec, _, _) in &cases {
            fixture.create(kind, name, spec.clone()).await?;
        }
        for (kind, name, _, reason, says) in &cases {
            let main = if *kind == "Model" { "Complete" } else { "Serving" };
            let object = fixture.reason(kind, name, main, reason).await?;
            let message = condition(&object, main)["message"].as_str().unwrap_or_default().to_owned();
            ensure!(message.contains(says), "{name}: {message}");
        }
        Ok(())
    })
}

#[test]
fn a_model_deleted_while_it_loads_leaves_no_job_and_no_complaint() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "short-lived", json!({"source": "hf://org/short-lived"})).await?;
        fixture.wait("Job", "short-lived-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        fixture.delete("Model", "short-lived").await?;
        fixture.gone(&[("Job", "short-lived-modeller"), ("ConfigMap", "short-lived-modeller")]).await?;
        // The Job's end is an event, too: nothing comes back by it.
        tokio::time::sleep(Duration::from_secs(3)).await;
        fixture.gone(&[("Job", "short-lived-modeller"), ("ConfigMap", "short-lived-modeller")]).await?;
        let complaints = fixture.complaints("short-lived").await?;
        ensure!(complaints.is_empty(), "{complaints:#?}");
        Ok(())
    })
}

#[test]
fn unclaimed_image_runs_under_the_container_contract() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let spec = json!({"image": "example.test/trainer", "command": ["train.sh"], "params": {"epochs": 1, "name": "x"},
            "env": {"KEY": "${{ secrets.ai.tls.crt }}", "B": "2"}, "resources": {"cpu": 1}});
        fixture.create("Model", "trained", spec).await?;
        let job = fixture.wait("Job", "trained-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        let pod = &job["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        ensure!(job["spec"]["backoffLimit"] == 0 && pod["securityContext"]["fsGroup"] == 3003, "{job}");
        ensure!(container["command"] == json!(["train.sh"]) && container["image"] == "example.test/trainer", "{container}");
        let requests = json!({"cpu": "1", "memory": "10Gi", "ephemeral-storage": "10Gi"});
        ensure!(container["resources"]["requests"] == requests, "{container}");
        let paths: Vec<&str> =
            container["volumeMounts"].as_array().into_iter().flatten().filter_map(|m| m["mountPath"].as_str()).collect();
        ensure!(paths == ["/content/artifacts", "/content/params.json"], "{paths:?}");
        ensure!(
            container["env"][0]["name"] == "B" && container["env"][1]["valueFrom"]["secretKeyRef"]["key"] == "tls.crt",
            "{container}"
        );
        let params = fixture.get("ConfigMap", "trained-model-params").await?;
        ensure!(params["data"] == json!({"params.json": "{\n  \"epochs\": 1,\n  \"name\": \"x\"\n}"}), "{params}");
        Ok(())
    })
}

#[test]
fn plugin_that_cannot_be_had_says_why_and_harms_nobody() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("PluginSource", "absent", json!({"prefix": "127.0.0.1:9", "unverified": "Allow"})).await?;
        fixture.create_plugin("absent", json!({"image": "127.0.0.1:9/org/none:1"})).await?;
        fixture.create_plugin("nothing", json!({})).await?;
        fixture.create_plugin("adapter-vllm", json!({"config": {"nonsense": true}})).await?;
        let plugin = fixture.plugin("absent", "Resolved", "RegistryUnavailable").await?;
        ensure!(condition(&plugin, "Active")["status"] == "False", "{plugin}");
        fixture.plugin("nothing", "Resolved", "ImageNotFound").await?;
        let plugin = fixture.plugin("adapter-vllm", "ConfigValid", "ConfigInvalid").await?;
        let message = condition(&plugin, "ConfigValid")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("nonsense"), "{message}");
        // What a pass came to is counted when it ends, which is after it has written.
        eventually("reconciles of Plugins to be counted", LIMIT, async || {
            Ok(fixture.metrics().await?.contains("substratus_reconciles_total{kind=\"Plugin\"").then_some(()))
        })
        .await?;
        for name in ["absent", "nothing", "adapter-vllm"] {
            fixture.delete_plugin(name).await?;
        }
        Ok(())
    })
}
