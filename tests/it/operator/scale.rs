//! Replicas of a Server: `kubectl scale`, autoscalers, and nobody who fights over the field.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use substratus_tests::cluster::eventually;

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster};
use super::transfer::Worker;

#[test]
fn servers_scale_and_rest() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"image": "i"})).await?;
        fixture.pod_ends("m-modeller", 0, &json!({})).await?;
        let spec = json!({"image": "example.test/server", "args": ["--fast"], "model": {"name": "m"}});
        fixture.create("Server", "s", spec).await?;
        let deployment = fixture.wait("Deployment", "s-server", LIMIT, async |_| Ok(Some(()))).await?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        ensure!(
            container["args"] == json!(["--fast"]) && container["lifecycle"]["preStop"]["sleep"]["seconds"] == 5,
            "{container}"
        );
        let plan = fixture
            .wait("Server", "s", LIMIT, async |server| Ok((server["status"]["selector"] == "role=run,server=s").then_some(())))
            .await?["status"]["plan"]
            .clone();

        fixture.kubectl(&["scale", "server", "s", "--replicas=3"]).await?;
        let scaled = async |replicas: i64| {
            fixture
                .wait("Deployment", "s-server", LIMIT, async |deployment| {
                    Ok((deployment["spec"]["replicas"] == replicas).then_some(()))
                })
                .await
        };
        let deployment = scaled(3).await?;
        ensure!(deployment["spec"]["template"]["spec"]["containers"][0] == *container, "scaling rolls nothing out");
        fixture.wait("Server", "s", LIMIT, async |server| Ok((server["status"]["replicas"] == 3).then_some(()))).await?;
        ensure!(fixture.get("Server", "s").await?["status"]["plan"] == plan, "scaling plans nothing anew");

        // Back at one the field is free, and an autoscaler of the Deployment itself may have it.
        fixture.kubectl(&["scale", "server", "s", "--replicas=1"]).await?;
        scaled(1).await?;
        fixture.kubectl(&["scale", "deployment", "s-server", "--replicas=4"]).await?;
        fixture.settled().await?;
        scaled(4).await?;

        fixture.kubectl(&["scale", "server", "s", "--replicas=0"]).await?;
        scaled(0).await?;
        let server = fixture
            .wait("Server", "s", LIMIT, async |server| {
                let message = condition(server, "Serving")["message"].as_str().unwrap_or_default().to_owned();
                Ok(message.contains("0 replicas").then_some(()))
            })
            .await?;
        ensure!(server["status"]["ready"] == false, "{server}");
        Ok(())
    })
}

/// Without metrics the real autoscaler keeps to its bounds, which is enough to see who owns the field.
#[test]
fn autoscaler_moves_a_server_and_nobody_moves_it_back() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"image": "i"})).await?;
        fixture.pod_ends("m-modeller", 0, &json!({})).await?;
        let manifest = json!({"apiVersion": "substratus.ai/v1", "kind": "Server", "metadata": {"name": "scaled"},
            "spec": {"image": "example.test/server", "model": {"name": "m"}}});
        fixture.apply(&manifest)?;
        fixture.wait("Deployment", "scaled-server", LIMIT, async |_| Ok(Some(()))).await?;
        let scaled = async |replicas: i64| {
            let asked = async |object: &Value| Ok((object["spec"]["replicas"] == replicas).then_some(()));
            fixture.wait("Server", "scaled", LIMIT, asked).await?;
            fixture.wait("Deployment", "scaled-server", LIMIT, asked).await
        };
        let bounds = |least: i64, most: i64| {
            json!({"minReplicas": least, "maxReplicas": most,
                "scaleTargetRef": {"apiVersion": "substratus.ai/v1", "kind": "Server", "name": "scaled"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]})
        };
        let hpa = |spec: Value| json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "scaled"}, "spec": spec});
        fixture.apply(&hpa(bounds(3, 5)))?;
        scaled(3).await?;
        // A manifest that says nothing of replicas leaves them to the autoscaler, before and after an edit.
        fixture.apply(&manifest)?;
        let mut edited = manifest.clone();
        edited["spec"]["args"] = json!(["--fast"]);
        fixture.apply(&edited)?;
        let rolled = async |deployment: &Value| {
            Ok((deployment["spec"]["template"]["spec"]["containers"][0]["args"] == json!(["--fast"])).then_some(()))
        };
        let deployment = fixture.wait("Deployment", "scaled-server", LIMIT, rolled).await?;
        ensure!(deployment["spec"]["replicas"] == 3, "{deployment}");
        fixture.settled().await?;
        scaled(3).await?;
        fixture.apply(&hpa(bounds(1, 2)))?;
        scaled(2).await?;
        Ok(())
    })
}

#[test]
fn kubectl_waits_and_lists() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"image": "i"})).await?;
        fixture.create("Dataset", "d", json!({"image": "i"})).await?;
        fixture.create("Notebook", "n", json!({"image": "i", "suspend": true})).await?;
        fixture.create("Server", "s", json!({"image": "i", "model": {"name": "m"}})).await?;
        fixture.pod_ends("m-modeller", 0, &json!({})).await?;
        fixture.pod_ends("d-data-loader", 0, &json!({})).await?;
        fixture.kubectl(&["wait", "--for=jsonpath={.status.ready}=true", "model/m", "dataset/d", "--timeout=60s"]).await?;
        fixture.kubectl(&["wait", "--for=condition=Complete", "model/m", "data/d", "--timeout=60s"]).await?;
        fixture.pod_is_ready("server=s").await?;
        fixture.kubectl(&["wait", "--for=condition=Serving", "server/s", "--timeout=60s"]).await?;
        fixture.reason("Notebook", "n", "Serving", "Suspended").await?;
        let listed = fixture.kubectl(&["get", "ai"]).await?;
        ensure!(listed.lines().all(|line| line.trim_end().len() <= 80), "wider than a terminal:\n{listed}");
        insta::with_settings!({filters => vec![(r"\b[0-9]+m?[0-9]*s\b *", "[age]"), (r" +\n", "\n")]}, {
            insta::assert_snapshot!("kubectl_get_ai", listed);
        });
        Ok(())
    })
}

/// Names as manifests have them, the longest reasons, a load that runs. The list of all kinds repeats the kind in every name.
#[test]
fn lists_of_a_kind_fit_a_terminal() -> Result<()> {
    const NAME: &str = "llama2-13b-chat-gguf";
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", NAME, json!({"source": "hf://substratusai/llama-2-13b-chat-gguf"})).await?;
        fixture.create("Model", "small", json!({"source": "hf://substratusai/small-gguf"})).await?;
        fixture.create("Dataset", NAME, json!({"source": "hf://datasets/acme/data"})).await?;
        fixture.create("Notebook", NAME, json!({"image": "i"})).await?;
        fixture.load("small", 1 << 30).await?;
        fixture.create("Server", NAME, json!({"model": {"name": "small"}})).await?;
        let tuned = json!({"image": "trainer", "model": {"name": "small"}, "dataset": {"name": NAME}});
        fixture.create("Model", "llama2-13b-finetuned", tuned).await?;

        half_way(fixture, NAME).await?;
        fixture.reason("Server", NAME, "Serving", "DeploymentNotReady").await?;
        fixture.reason("Model", "llama2-13b-finetuned", "Complete", "ReasonDatasetNotReady").await?;
        fixture.reason("Notebook", NAME, "Serving", "PodNotReady").await?;
        for (kind, words) in [
            ("models", ["JobNotComplete", "47%"]),
            ("models", ["ReasonDatasetNotReady", "llama2-13b-finetuned"]),
            ("datasets", ["JobNotComplete", NAME]),
            ("servers", ["DeploymentNotReady", "llama.cpp"]),
            ("notebooks", ["PodNotReady", NAME]),
        ] {
            let listed = fixture.kubectl(&["get", kind]).await?;
            ensure!(listed.lines().any(|line| words.iter().all(|word| line.contains(word))), "no {words:?}:\n{listed}");
            ensure!(listed.lines().all(|line| line.trim_end().len() + DAYS <= 80), "wider than a terminal:\n{listed}");
        }
        Ok(())
    })
}

/// The widest age (`2y364d`) has four letters more than the youngest (`0s`).
const DAYS: usize = 4;

/// Reports as the worker of a load does, and waits until the status says so.
async fn half_way(fixture: &Fixture, name: &str) -> Result<()> {
    let worker = Worker::of(fixture, name).await?;
    let transfer = json!({"progress": "47%", "bytesDone": 47 << 20, "bytesTotal": 100 << 20, "bytesPerSecond": 1 << 20,
        "filesDone": 0, "filesTotal": 1});
    // Another test may start the operator anew, which forgets what it was told.
    eventually("the load to be half way", LIMIT, async || {
        worker.report(&transfer).await?;
        let model = fixture.get("Model", name).await?;
        ensure!(model["status"]["transfer"]["progress"] == "47%", "{}", model["status"]);
        Ok(Some(()))
    })
    .await
}
