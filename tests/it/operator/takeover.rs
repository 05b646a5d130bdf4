//! A cluster that the first operator managed: what was ready is taken over as it is, and planned anew only when it is edited.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster};

/// A child as the first operator made it: a controller reference, and no label of its own.
fn child(api: &str, kind: &str, name: &str, owner: &Value, spec: &Value) -> Value {
    let reference = json!([{"apiVersion": "substratus.ai/v1", "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true}]);
    json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "ownerReferences": reference}, "spec": spec})
}

fn ready(condition: &str, reason: &str) -> Value {
    json!({"ready": true, "conditions": [{"type": condition, "status": "True", "reason": reason, "message": "",
        "lastTransitionTime": "2024-01-01T00:00:00Z", "observedGeneration": 1}]})
}

async fn old_cluster(fixture: &Fixture) -> Result<()> {
    let image = "substratusai/model-loader-huggingface";
    let make = async |kind: &str, name: &str, spec: Value, status: Value| -> Result<Value> {
        fixture.create(kind, name, spec).await?;
        fixture.set_status(kind, name, status).await?;
        fixture.get(kind, name).await
    };
    let with_url = |mut status: Value, url: &str| {
        status["artifacts"] = json!({"url": url});
        status
    };
    let complete = || ready("Complete", "JobComplete");
    make(
        "Model",
        "opt",
        json!({"image": image, "params": {"name": "facebook/opt-125m"}}),
        with_url(complete(), "tar:////bucket/opt"),
    )
    .await?;
    make("Dataset", "squad", json!({"image": "substratusai/dataset-squad"}), with_url(complete(), "tar:////bucket/squad"))
        .await?;
    let server = json!({"image": "substratusai/model-server-basaran", "model": {"name": "opt"}});
    let server = make("Server", "opt", server, ready("Serving", "DeploymentReady")).await?;
    let template = json!({"metadata": {"labels": {"server": "opt", "role": "run"}},
        "spec": {"containers": [{"name": "serve", "image": "substratusai/model-server-basaran"}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"server": "opt"}}, "template": template});
    fixture.post(&child("apps/v1", "Deployment", "opt-server", &server, &spec)).await?;
    let spec = json!({"selector": {"server": "opt", "role": "run"},
        "ports": [{"name": "http", "port": 8080, "targetPort": "http-serve", "protocol": "TCP"}]});
    fixture.post(&child("v1", "Service", "opt-server", &server, &spec)).await?;
    let notebook = make("Notebook", "lab", json!({"image": "substratusai/base"}), ready("Serving", "PodReady")).await?;
    let env = json!([{"name": "NOTEBOOK_TOKEN", "value": "default"}]);
    let spec = json!({"containers": [{"name": "notebook", "image": "substratusai/base", "env": env}]});
    let mut pod = child("v1", "Pod", "lab-notebook", &notebook, &spec);
    pod["metadata"]["labels"] = json!({"notebook": "lab", "role": "run"});
    fixture.post(&pod).await?;
    fixture.pod_is_ready("server=opt").await?;
    fixture.pod_is_ready("notebook=lab").await
}

#[test]
fn what_was_ready_is_taken_over_as_it_is() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.behind_its_back(async || old_cluster(fixture).await).await?;
        let deployment = fixture.get("Deployment", "opt-server").await?;
        let pod = fixture.get("Pod", "lab-notebook").await?;
        for (kind, name, main) in [
            ("Model", "opt", "Complete"),
            ("Dataset", "squad", "Complete"),
            ("Server", "opt", "Serving"),
            ("Notebook", "lab", "Serving"),
        ] {
            let object = fixture
                .wait(kind, name, LIMIT, async |object| {
                    Ok((object["status"]["observedGeneration"] == 1 && object["status"]["plan"].is_object()).then_some(()))
                })
                .await?;
            ensure!(object["status"]["ready"] == true && condition(&object, main)["status"] == "True", "{kind}: {object}");
        }
        fixture.settled().await?;
        for job in ["opt-modeller", "squad-data-loader"] {
            ensure!(!fixture.exists("Job", job).await?, "{job} ran");
        }
        let now = fixture.get("Deployment", "opt-server").await?;
        ensure!(now["metadata"]["generation"] == deployment["metadata"]["generation"], "the Deployment was rolled out: {now}");
        ensure!(fixture.get("Pod", "lab-notebook").await?["metadata"]["uid"] == pod["metadata"]["uid"], "the Pod was replaced");
        let before = fixture.versions().await?;
        fixture.restart_operator().await?;
        ensure!(fixture.settled().await? == before, "a restart wrote something");

        // Edits are for us.
        fixture.merge("Server", "opt", json!({"spec": {"params": {"x": 1}}})).await?;
        fixture
            .wait("Deployment", "opt-server", LIMIT, async |deployment| {
                let image =
                    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
                Ok((!image.contains("basaran")).then_some(()))
            })
            .await?;
        fixture.merge("Model", "opt", json!({"spec": {"params": {"name": "facebook/opt-350m"}}})).await?;
        let job = fixture.wait("Job", "opt-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        let volumes = job["spec"]["template"]["spec"]["volumes"].as_array().context("volumes")?;
        let written = volumes.iter().filter(|volume| volume["name"] == "artifacts");
        let paths: Vec<_> = written.filter_map(|volume| volume["hostPath"]["path"].as_str()).collect();
        ensure!(paths.len() == 1 && paths[0].ends_with("/g2"), "what was there stays: {paths:?}");
        ensure!(fixture.get("Model", "opt").await?["status"]["artifacts"]["url"] == "tar:////bucket/opt");
        Ok(())
    })
}

#[test]
fn unfinished_job_of_the_first_operator_is_replaced() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture
            .behind_its_back(async || {
                fixture.create("Model", "half", json!({"image": "example.test/loader"})).await?;
                let owner = fixture.get("Model", "half").await?;
                let template = json!({"metadata": {"labels": {"model": "half", "role": "run"}},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "model", "image": "example.test/loader"}]}});
                let spec = json!({"backoffLimit": 0, "template": template});
                fixture.post(&child("batch/v1", "Job", "half-modeller", &owner, &spec)).await
            })
            .await?;
        fixture
            .wait("Job", "half-modeller", LIMIT, async |job| {
                Ok(job["metadata"]["labels"]["app.kubernetes.io/managed-by"].is_string().then_some(()))
            })
            .await?;
        fixture.pod_ends("half-modeller", 0, &json!({})).await?;
        fixture.reason("Model", "half", "Complete", "JobComplete").await?;
        Ok(())
    })
}

#[test]
fn children_of_somebody_else_are_not_taken() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        // The owner must exist, or the garbage collector takes its child.
        fixture.create("Model", "other", json!({"plugin": "none"})).await?;
        let owner = fixture.get("Model", "other").await?;
        let spec = json!({"ports": [{"port": 80}]});
        fixture.post(&child("v1", "Service", "s-server", &owner, &spec)).await?;
        fixture.create("Model", "m", json!({"image": "i"})).await?;
        fixture.pod_ends("m-modeller", 0, &json!({})).await?;
        fixture.create("Server", "s", json!({"image": "i", "model": {"name": "m"}})).await?;
        fixture.reason("Server", "s", "Serving", "Refused").await?;
        ensure!(fixture.get("Service", "s-server").await?["spec"]["ports"][0]["port"] == 80, "it was overwritten");
        Ok(())
    })
}
