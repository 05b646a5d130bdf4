//! Notebooks: a pod under the contract, suspended and resumed with its token, and left alone while it runs.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster};

const LABEL: &str = "notebook=lab";

fn paths(pod: &Value) -> Vec<(&str, &str)> {
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array();
    let text = |value: &Value| -> &'static str { value.as_str().unwrap_or_default().to_owned().leak() };
    mounts
        .into_iter()
        .flatten()
        .map(|mount| (text(&mount["mountPath"]), text(&mount["subPath"])))
        .filter(|(path, _)| path.starts_with("/content"))
        .collect()
}

#[test]
fn notebook_is_suspended_and_resumed_with_the_same_token() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Notebook", "lab", json!({"image": "example.test/lab", "params": {"x": 1}})).await?;
        let pod = fixture.pod(LABEL).await?;
        ensure!(pod["metadata"]["name"] == "lab-notebook" && pod["spec"]["serviceAccountName"] == "notebook", "{pod}");
        let container = &pod["spec"]["containers"][0];
        ensure!(container["name"] == "notebook" && container["ports"][0]["containerPort"] == 8888, "{container}");
        ensure!(container["readinessProbe"]["httpGet"]["path"] == "/api", "{container}");
        let command = json!([
            "jupyter",
            "lab",
            "--allow-root",
            "--ip=0.0.0.0",
            "--NotebookApp.token=$(NOTEBOOK_TOKEN)",
            "--notebook-dir=/content"
        ]);
        ensure!(container["command"] == command, "{container}");
        let wanted =
            [("/content/artifacts", "artifacts"), ("/content/params.json", "params.json"), ("/content/workspace", "workspace")];
        ensure!(paths(&pod) == wanted, "{:?}", paths(&pod));
        let token = container["env"].as_array().and_then(|env| env.last()).context("no variables")?;
        ensure!(token["name"] == "NOTEBOOK_TOKEN", "{token}");
        ensure!(token["valueFrom"]["secretKeyRef"]["name"] == "lab-notebook-token", "{token}");
        let secret = fixture.get("Secret", "lab-notebook-token").await?;
        let text = secret["data"]["token"].as_str().context("no token")?.to_owned();
        ensure!(text.len() == 64, "24 random bytes in hexadecimal, in base64: {text}");
        ensure!(secret["metadata"]["ownerReferences"][0]["kind"] == "Notebook", "{secret}");

        fixture.pod_is_ready(LABEL).await?;
        let notebook = fixture.reason("Notebook", "lab", "Serving", "PodReady").await?;
        ensure!(notebook["status"]["ready"] == true && notebook["status"]["workspace"] == "/content/workspace", "{notebook}");

        fixture.merge("Notebook", "lab", json!({"spec": {"suspend": true}})).await?;
        let notebook = fixture.reason("Notebook", "lab", "Serving", "Suspended").await?;
        ensure!(notebook["status"]["ready"] == false, "{notebook}");
        fixture.gone(&[("Pod", "lab-notebook")]).await?;
        fixture.settled().await?;
        fixture.merge("Notebook", "lab", json!({"spec": {"suspend": false}})).await?;
        let again = fixture.pod(LABEL).await?;
        ensure!(again["metadata"]["uid"] != pod["metadata"]["uid"], "it is a new pod");
        ensure!(again["spec"]["volumes"] == pod["spec"]["volumes"] || paths(&again) == paths(&pod), "{again}");
        ensure!(fixture.get("Secret", "lab-notebook-token").await?["data"]["token"] == text.as_str(), "the token stays");
        fixture.event("lab", "Suspended").await?;
        Ok(())
    })
}

#[test]
fn edit_replaces_the_pod_and_a_reference_does_not() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Notebook", "lab", json!({"model": {"name": "base"}, "dataset": {"name": "data"}})).await?;
        fixture.reason("Notebook", "lab", "Serving", "ModelNotFound").await?;
        fixture.create("Model", "base", json!({"image": "i"})).await?;
        fixture.reason("Notebook", "lab", "Serving", "ModelNotReady").await?;
        fixture.pod_ends("base-modeller", 0, &json!({})).await?;
        fixture.reason("Notebook", "lab", "Serving", "DatasetNotFound").await?;
        fixture.create("Dataset", "data", json!({"image": "i"})).await?;
        fixture.reason("Notebook", "lab", "Serving", "ReasonDatasetNotReady").await?;
        fixture.pod_ends("data-data-loader", 0, &json!({})).await?;
        let pod = fixture.pod(LABEL).await?;
        let wanted = [
            ("/content", "workspace"),
            ("/content/artifacts", "artifacts"),
            ("/content/data", "artifacts"),
            ("/content/model", "artifacts"),
            ("/content/params.json", "params.json"),
        ];
        ensure!(paths(&pod) == wanted, "{:?}", paths(&pod));
        let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        ensure!(image.contains("jupyter") && pod["spec"]["containers"][0]["securityContext"]["runAsUser"] == 0, "{pod}");
        fixture.pod_is_ready(LABEL).await?;
        fixture.reason("Notebook", "lab", "Serving", "PodReady").await?;

        fixture.delete("Model", "base").await?;
        let notebook = fixture
            .wait("Notebook", "lab", LIMIT, async |notebook| {
                let message = condition(notebook, "Serving")["message"].as_str().unwrap_or_default().to_owned();
                Ok(message.contains("Model is not ready").then_some(()))
            })
            .await?;
        ensure!(notebook["status"]["ready"] == true, "{notebook}");
        ensure!(fixture.get("Pod", "lab-notebook").await?["metadata"]["uid"] == pod["metadata"]["uid"], "it was replaced");

        fixture.merge("Notebook", "lab", json!({"spec": {"model": null, "env": {"NOTEBOOK_TOKEN": "default"}}})).await?;
        fixture
            .wait("Pod", "lab-notebook", LIMIT, async |now| Ok((now["metadata"]["uid"] != pod["metadata"]["uid"]).then_some(())))
            .await?;
        let pod = fixture.pod(LABEL).await?;
        ensure!(pod["spec"]["containers"][0]["env"] == json!([{"name": "NOTEBOOK_TOKEN", "value": "default"}]), "{pod}");
        Ok(())
    })
}

#[test]
fn pod_of_somebody_else_is_left_alone() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        // The owner must exist, or the garbage collector takes the pod.
        fixture.post(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}})).await?;
        let uid = fixture.get("ConfigMap", "other").await?["metadata"]["uid"].clone();
        let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": uid, "controller": true}]);
        fixture
            .post(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lab-notebook", "ownerReferences": owner},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}))
            .await?;
        fixture.create("Notebook", "lab", json!({"image": "example.test/lab"})).await?;
        fixture.reason("Notebook", "lab", "Serving", "Refused").await?;
        fixture
            .create("Notebook", "built", json!({"build": {"upload": {"md5Checksum": "0".repeat(32), "requestID": "r"}}}))
            .await?;
        fixture.reason("Notebook", "built", "Serving", "ImageNotBuilt").await?;
        Ok(())
    })
}
