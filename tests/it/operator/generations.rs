//! Ready means ready for what was asked last; and what was whole stays so when a mistake comes and goes.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster, spoken};

fn message(object: &Value, kind: &str) -> String {
    condition(object, kind)["message"].as_str().unwrap_or_default().to_owned()
}

async fn served(fixture: &Fixture, spec: Value) -> Result<Value> {
    fixture.create("Model", "m", json!({"image": "i"})).await?;
    fixture.pod_ends("m-modeller", 0, &json!({})).await?;
    fixture.create("Server", "s", spec).await?;
    fixture.pod_is_ready("server=s").await?;
    spoken(fixture, "Server", "s", |server| server["status"]["ready"] == true).await?;
    fixture.get("Deployment", "s-server").await
}

#[test]
fn server_is_ready_for_its_newest_spec_alone() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let before = served(fixture, json!({"image": "example.test/server", "model": {"name": "m"}})).await?;
        fixture.merge("Server", "s", json!({"spec": {"args": ["--new"]}})).await?;
        let rolling = |server: &Value| message(server, "Serving").contains("1 of 2 pods are of an earlier spec and still serve");
        let server = spoken(fixture, "Server", "s", rolling).await?;
        ensure!(server["status"]["ready"] == false && condition(&server, "Serving")["status"] == "False", "{server}");
        let deployment = fixture.get("Deployment", "s-server").await?;
        ensure!(deployment["status"]["readyReplicas"] == 1, "the old pod serves: {deployment}");
        ensure!(deployment["metadata"]["generation"] != before["metadata"]["generation"], "{deployment}");
        fixture.pod_is_ready("server=s").await?;
        spoken(fixture, "Server", "s", |server| server["status"]["ready"] == true).await?;
        Ok(())
    })
}

#[test]
fn mistake_in_a_servers_spec_leaves_its_pods_and_says_so() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let before = served(fixture, json!({"image": "example.test/server", "model": {"name": "m"}})).await?;
        fixture.merge("Server", "s", json!({"spec": {"env": {"KEY": "{{ secrets.ai.key }}"}}})).await?;
        let told = |server: &Value| message(server, "Serving").ends_with("the pods of the earlier spec keep serving");
        let server = spoken(fixture, "Server", "s", told).await?;
        ensure!(condition(&server, "Serving")["reason"] == "Invalid" && server["status"]["ready"] == false, "{server}");
        fixture.merge("Server", "s", json!({"spec": {"env": null}})).await?;
        spoken(fixture, "Server", "s", |server| server["status"]["ready"] == true).await?;

        // The Model goes, and what was loaded stays.
        fixture.delete("Model", "m").await?;
        let told = |server: &Value| message(server, "Serving").contains("the Model is not ready at the moment");
        let server = spoken(fixture, "Server", "s", told).await?;
        ensure!(server["status"]["ready"] == true && condition(&server, "Serving")["status"] == "True", "{server}");
        let after = fixture.get("Deployment", "s-server").await?;
        ensure!(after["metadata"]["generation"] == before["metadata"]["generation"], "it was rolled out: {after}");
        Ok(())
    })
}

#[test]
fn trouble_that_is_no_edit_takes_no_readiness_away() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        served(fixture, json!({"image": "example.test/server", "model": {"name": "m"}})).await?;
        let model = fixture.get("Model", "m").await?;
        let owner = |object: &Value| {
            json!([{"apiVersion": "substratus.ai/v1", "kind": object["kind"], "name": object["metadata"]["name"],
                "uid": object["metadata"]["uid"], "controller": true}])
        };
        let own = fixture.get("Service", "s-server").await?["metadata"]["ownerReferences"].clone();
        fixture.merge("Service", "s-server", json!({"metadata": {"ownerReferences": owner(&model)}})).await?;
        let told = |server: &Value| message(server, "Serving").ends_with("its pods keep serving");
        let server = spoken(fixture, "Server", "s", told).await?;
        ensure!(condition(&server, "Serving")["reason"] == "Refused" && server["status"]["ready"] == true, "{server}");
        fixture.merge("Service", "s-server", json!({"metadata": {"ownerReferences": own}})).await?;
        fixture.reason("Server", "s", "Serving", "DeploymentReady").await?;
        Ok(())
    })
}

#[test]
fn notebook_is_ready_with_its_newest_pod_alone() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Notebook", "n", json!({"image": "i"})).await?;
        fixture.pod_is_ready("notebook=n").await?;
        spoken(fixture, "Notebook", "n", |notebook| notebook["status"]["ready"] == true).await?;
        fixture.merge("Notebook", "n", json!({"spec": {"args": ["--new"]}})).await?;
        let notebook = spoken(fixture, "Notebook", "n", |_| true).await?;
        ensure!(notebook["status"]["ready"] == false, "the pod of the earlier spec is no answer: {notebook}");
        fixture.pod_is_ready("notebook=n").await?;
        spoken(fixture, "Notebook", "n", |notebook| notebook["status"]["ready"] == true).await?;
        Ok(())
    })
}

#[test]
fn mistake_that_comes_and_goes_runs_nothing_again() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"image": "example.test/trainer"})).await?;
        fixture.pod_ends("m-modeller", 0, &json!({})).await?;
        let before = spoken(fixture, "Model", "m", |model| model["status"]["ready"] == true).await?;
        // Finished Jobs are cleaned up sooner or later.
        fixture.delete("Job", "m-modeller").await?;
        fixture.drop_finished_pods("m-modeller").await?;
        fixture.merge("Model", "m", json!({"spec": {"source": "nope://x/y"}})).await?;
        let refused = |model: &Value| condition(model, "Complete")["reason"] == "PluginNotFound";
        let model = spoken(fixture, "Model", "m", refused).await?;
        ensure!(model["status"]["ready"] == false, "{model}");
        fixture.merge("Model", "m", json!({"spec": {"source": null}})).await?;
        let after = spoken(fixture, "Model", "m", |model| model["status"]["ready"] == true).await?;
        ensure!(after["status"]["artifacts"] == before["status"]["artifacts"], "{after}");
        ensure!(condition(&after, "Complete")["observedGeneration"] == after["metadata"]["generation"], "{after}");
        fixture.settled().await?;
        ensure!(!fixture.exists("Job", "m-modeller").await?, "it ran into the folder that is in use");
        // What only the next run takes is no reason to wait either.
        fixture.merge("Model", "m", json!({"spec": {"retries": 1}})).await?;
        fixture.kubectl(&["wait", "--for=condition=Complete", "model/m", "--timeout=60s"]).await?;
        Ok(())
    })
}

#[test]
fn pods_that_are_not_let_in_are_told_in_the_words_of_who_refuses() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.apply(&json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
            "spec": {"hard": {"pods": "0"}}}))?;
        // The quota controller counts first; until then everything is let in.
        fixture.kubectl(&["wait", "--for=jsonpath={.status.hard.pods}=0", "resourcequota/none", "--timeout=60s"]).await?;
        fixture.create("Dataset", "d", json!({"image": "example.test/loader"})).await?;
        let refused = |dataset: &Value| condition(dataset, "Complete")["reason"] == "Rejected";
        let dataset = spoken(fixture, "Dataset", "d", refused).await?;
        ensure!(message(&dataset, "Complete").contains("exceeded quota: none"), "{dataset}");
        fixture.event("d", "Rejected").await?;
        fixture.kubectl(&["delete", "resourcequota", "none"]).await?;
        fixture.annotate("Dataset", "d", "look", "again").await?;
        fixture.wait("Job", "d-data-loader", LIMIT, async |_| Ok(Some(()))).await?;
        Ok(())
    })
}

#[test]
fn what_is_no_longer_wanted_is_removed() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"source": "hf://org/name"})).await?;
        fixture.wait("ConfigMap", "m-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        fixture.create("Model", "other", json!({"source": "hf://org/name"})).await?;
        fixture.merge("Model", "m", json!({"spec": {"source": null, "image": "example.test/trainer"}})).await?;
        fixture.gone(&[("ConfigMap", "m-modeller")]).await?;
        ensure!(fixture.exists("ConfigMap", "m-model-params").await?, "the parameters stay");
        ensure!(fixture.exists("ConfigMap", "other-modeller").await?, "what belongs to another stays");
        Ok(())
    })
}

#[test]
fn typed_failure_is_tried_again_by_itself() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"source": "hf://org/gated"})).await?;
        let model = spoken(fixture, "Model", "m", |model| model["status"]["plan"].is_object()).await?;
        let outcome = json!({"outcome": "failed", "inputs": model["status"]["plan"]["inputs"], "reason": "NeedsAuth", "message": "no token"});
        fixture.pod_ends("m-modeller", 64, &outcome).await?;
        // The pod speaks a moment before its Job has failed.
        spoken(fixture, "Model", "m", |model| message(model, "Complete").contains("tried again with growing pauses")).await?;
        fixture.drop_finished_pods("m-modeller").await?;
        let second = async |job: &Value| Ok((job["metadata"]["annotations"]["substratus.ai/attempt"] == "1").then_some(()));
        fixture.wait("Job", "m-modeller", LIMIT * 2, second).await?;
        Ok(())
    })
}

#[test]
fn numbers_beyond_64_bits_are_refused_with_a_way_out() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        for (name, number) in
            [("above", "9223372036854775808"), ("far", "18446744073709551615"), ("below", "-9223372036854775809")]
        {
            let manifest = format!(
                "{{apiVersion: substratus.ai/v1, kind: Model, metadata: {{name: {name}}}, spec: {{image: i, params: {{seed: {number}}}}}}}"
            );
            let told = fixture.apply_text(&manifest).err().map(|error| format!("{error:#}"));
            let told = match told {
                Some(refused) => refused,
                None => message(&fixture.reason("Model", name, "Complete", "Invalid").await?, "Complete"),
            };
            ensure!(told.contains("spec.params.seed") && told.contains("string"), "{number}: {told}");
        }
        for (name, number) in [("most", i64::MAX), ("least", i64::MIN)] {
            fixture.create("Model", name, json!({"image": "i", "params": {"seed": number}})).await?;
            let params = fixture.wait("ConfigMap", &format!("{name}-model-params"), LIMIT, async |_| Ok(Some(()))).await?;
            ensure!(params["data"]["params.json"] == format!("{{\n  \"seed\": {number}\n}}"), "{params}");
        }
        Ok(())
    })
}
