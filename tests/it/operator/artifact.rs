//! Datasets, and Models that are trained from them: containers under the contract, and who waits for whom.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::fixture::{Fixture, condition, on_cluster};

fn mounts(job: &Value) -> Vec<(String, bool)> {
    let mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].as_array();
    let mount = |mount: &Value| (mount["mountPath"].as_str().unwrap_or_default().to_owned(), mount["readOnly"] == true);
    mounts.into_iter().flatten().map(mount).collect()
}

#[test]
fn dataset_runs_under_the_container_contract_and_is_latched() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let spec = json!({"image": "example.test/loader", "command": ["load.sh"], "args": ["--all"],
            "params": {"urls": "https://example.test/a", "x": 123}, "env": {"KEY": "${{ secrets.ai.key }}"},
            "nodeSelector": {"disk": "fast"}, "priorityClassName": "system-cluster-critical",
            "imagePullSecrets": [{"name": "pull"}], "securityContext": {"runAsUser": 1000},
            "volumes": [{"name": "certs", "mountPath": "/certs", "readOnly": true, "secret": {"secretName": "tls"}}]});
        fixture.create("Dataset", "squad", spec).await?;
        let job = fixture.wait("Job", "squad-data-loader", super::LIMIT, async |_| Ok(Some(()))).await?;
        let pod = &job["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        ensure!(job["spec"]["backoffLimit"] == 2 && pod["restartPolicy"] == "Never", "{job}");
        ensure!(pod["serviceAccountName"] == "data-loader" && pod["securityContext"]["fsGroup"] == 3003, "{pod}");
        ensure!(job["spec"]["template"]["metadata"]["labels"]["dataset"] == "squad", "{job}");
        ensure!(job["spec"]["template"]["metadata"]["labels"]["role"] == "run", "{job}");
        ensure!(container["name"] == "load" && container["command"] == json!(["load.sh"]), "{container}");
        ensure!(container["args"] == json!(["--all"]) && container["securityContext"]["runAsUser"] == 1000, "{container}");
        ensure!(container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "ai", "{container}");
        ensure!(pod["nodeSelector"] == json!({"disk": "fast"}) && pod["imagePullSecrets"][0]["name"] == "pull", "{pod}");
        ensure!(
            mounts(&job)
                == [("/content/artifacts".into(), false), ("/content/params.json".into(), false), ("/certs".into(), true)],
            "{:?}",
            mounts(&job)
        );
        let params = fixture.get("ConfigMap", "squad-dataset-params").await?;
        let text = "{\n  \"urls\": \"https://example.test/a\",\n  \"x\": 123\n}";
        ensure!(params["data"] == json!({"params.json": text}), "{params}");

        fixture.pod_ends("squad-data-loader", 0, &json!({})).await?;
        let dataset = fixture.reason("Dataset", "squad", "Complete", "JobComplete").await?;
        ensure!(dataset["status"]["ready"] == true, "{dataset}");
        ensure!(dataset["status"]["observedGeneration"] == dataset["metadata"]["generation"], "{dataset}");
        let url = dataset["status"]["artifacts"]["url"].as_str().context("no artifact URL")?;
        ensure!(url.starts_with("tar:////bucket/"), "{url}");
        fixture.event("squad", "JobComplete").await?;

        // What only the next run takes does not start one.
        fixture.merge("Dataset", "squad", json!({"spec": {"resources": {"cpu": 1}, "retries": 1}})).await?;
        let dataset = fixture
            .wait("Dataset", "squad", super::LIMIT, async |dataset| {
                Ok((dataset["status"]["observedGeneration"] == dataset["metadata"]["generation"]).then_some(()))
            })
            .await?;
        ensure!(dataset["status"]["ready"] == true, "{dataset}");
        Ok(())
    })
}

#[test]
fn edited_params_run_a_dataset_again_beside_the_old_artifact() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Dataset", "moving", json!({"image": "example.test/loader", "params": {"n": 1}})).await?;
        fixture.pod_ends("moving-data-loader", 0, &json!({})).await?;
        let first = fixture.reason("Dataset", "moving", "Complete", "JobComplete").await?;
        fixture.merge("Dataset", "moving", json!({"spec": {"params": {"n": 2}}})).await?;
        let running = fixture.reason("Dataset", "moving", "Complete", "JobNotComplete").await?;
        ensure!(running["status"]["ready"] == false, "ready is about this generation: {running}");
        ensure!(running["status"]["artifacts"] == first["status"]["artifacts"], "the old one stays in use: {running}");
        fixture.drop_finished_pods("moving-data-loader").await?;
        fixture
            .wait("Job", "moving-data-loader", super::LIMIT, async |job| {
                let volumes = job["spec"]["template"]["spec"]["volumes"].as_array();
                let new = |volume: &Value| volume["hostPath"]["path"].as_str().is_some_and(|path| path.ends_with("/g2"));
                Ok(volumes.into_iter().flatten().any(new).then_some(()))
            })
            .await?;
        fixture.pod_ends("moving-data-loader", 0, &json!({})).await?;
        let second = fixture.reason("Dataset", "moving", "Complete", "JobComplete").await?;
        let url = second["status"]["artifacts"]["url"].as_str().unwrap_or_default();
        ensure!(url.ends_with("/g2") && second["status"]["ready"] == true, "{second}");
        Ok(())
    })
}

#[test]
fn training_waits_for_base_model_and_dataset_and_mounts_both() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let spec = json!({"image": "example.test/trainer", "model": {"name": "base"}, "dataset": {"name": "data"}, "retries": 3});
        fixture.create("Model", "tuned", spec).await?;
        fixture.reason("Model", "tuned", "Complete", "BaseModelNotFound").await?;
        fixture.create("Model", "base", json!({"image": "example.test/loader"})).await?;
        fixture.reason("Model", "tuned", "Complete", "BaseModelNotReady").await?;
        fixture.pod_ends("base-modeller", 0, &json!({})).await?;
        fixture.reason("Model", "tuned", "Complete", "DatasetNotFound").await?;
        fixture.create("Dataset", "data", json!({"image": "example.test/loader"})).await?;
        fixture.reason("Model", "tuned", "Complete", "ReasonDatasetNotReady").await?;
        fixture.pod_ends("data-data-loader", 0, &json!({})).await?;
        let job = fixture.wait("Job", "tuned-modeller", super::LIMIT, async |_| Ok(Some(()))).await?;
        ensure!(job["spec"]["backoffLimit"] == 3, "{job}");
        let wanted =
            [("/content/artifacts", false), ("/content/data", true), ("/content/model", true), ("/content/params.json", false)];
        ensure!(mounts(&job) == wanted.map(|(path, read_only)| (path.to_owned(), read_only)), "{:?}", mounts(&job));
        Ok(())
    })
}

#[test]
fn failed_training_says_why_and_runs_again_when_asked() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "broken", json!({"image": "example.test/trainer"})).await?;
        let first = fixture.pod_ends("broken-modeller", 3, &json!("CUDA out of memory")).await?;
        let model = fixture.reason("Model", "broken", "Complete", "JobFailed").await?;
        let message = condition(&model, "Complete")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("exit code 3") && message.contains("CUDA out of memory"), "{message}");
        ensure!(message.contains("kubectl annotate model broken substratus.ai/retry="), "{message}");
        ensure!(fixture.event("broken", "JobFailed").await?["type"] == "Warning", "a failure is a warning");
        fixture.annotate("Model", "broken", "substratus.ai/retry", "1").await?;
        fixture.delete("Pod", &first).await?;
        fixture.pod_ends("broken-modeller", 0, &json!({})).await?;
        fixture.reason("Model", "broken", "Complete", "JobComplete").await?;
        Ok(())
    })
}

#[test]
fn bad_datasets_become_conditions() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let git = json!({"git": {"url": "https://github.com/org/images", "path": "mine"}});
        let cases: [(&str, Value, &str, &str); 3] = [
            ("scheme", json!({"source": "nope://x/y"}), "PluginNotFound", "nope"),
            ("empty", json!({}), "Invalid", "hf://datasets/org/name"),
            ("build", json!({"build": git}), "ImageNotBuilt", "the image is not built"),
        ];
        for (name, spec, _, _) in &cases {
            fixture.create("Dataset", name, spec.clone()).await?;
        }
        for (name, _, reason, says) in &cases {
            let dataset = fixture.reason("Dataset", name, "Complete", reason).await?;
            let message = condition(&dataset, "Complete")["message"].as_str().unwrap_or_default().to_owned();
            ensure!(message.contains(says), "{name}: {message}");
        }
        Ok(())
    })
}
