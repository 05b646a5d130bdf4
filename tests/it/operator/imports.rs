//! Datasets that an importer brings in: its Job, its words in the status, and shards spread over an Indexed Job.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster};

fn args(job: &Value) -> Vec<&str> {
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    args.into_iter().flatten().filter_map(Value::as_str).collect()
}

async fn planned(fixture: &Fixture, name: &str) -> Result<Value> {
    let planned = async |dataset: &Value| Ok(dataset["status"]["plan"].is_object().then_some(()));
    fixture.wait("Dataset", name, LIMIT, planned).await
}

/// What a worker says of a whole import.
fn imported(dataset: &Value) -> Value {
    json!({"outcome": "complete", "inputs": dataset["status"]["plan"]["inputs"], "source": {
        "revision": "abc", "license": "mit", "bytes": 1000, "files": 2, "rows": 30, "splits": ["train", "test"],
        "schema": ["prompt: string"], "partial": "the hub converted only the beginning of train"}})
}

fn failed(dataset: &Value, reason: &str, message: &str) -> Value {
    json!({"outcome": "failed", "inputs": dataset["status"]["plan"]["inputs"], "reason": reason, "message": message})
}

/// Waits until the Dataset says this, for this reason.
async fn said(fixture: &Fixture, name: &str, reason: &str, words: &str) -> Result<Value> {
    let says = async |dataset: &Value| {
        let complete = condition(dataset, "Complete");
        let message = complete["message"].as_str().unwrap_or_default();
        Ok((complete["reason"] == reason && message.contains(words)).then_some(()))
    };
    fixture.wait("Dataset", name, LIMIT, says).await
}

#[test]
fn dataset_is_imported_by_the_plugin_of_its_source() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let spec = json!({"source": "hf://datasets/acme/data", "params": {"split": "train"}, "env": {
            "HF_TOKEN": "${{ secrets.ai.HF_TOKEN }}", "OTHER": "x"}});
        fixture.create("Dataset", "rows", spec).await?;
        let job = fixture.wait("Job", "rows-data-loader", LIMIT, async |_| Ok(Some(()))).await?;
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        ensure!(container["name"] == "load" && container["image"] == "registry.test/substratus:test", "{container}");
        ensure!(args(&job).first() == Some(&"import") && !args(&job).contains(&"--lead"), "{container}");
        ensure!(container["env"].as_array().is_some_and(|env| env.len() == 1 && env[0]["name"] == "HF_TOKEN"), "{container}");
        ensure!(job["spec"]["template"]["spec"]["serviceAccountName"] == "data-loader", "{job}");
        // A loader and an importer claim `hf`: the kind decides.
        let dataset = planned(fixture, "rows").await?;
        ensure!(dataset["status"]["plugin"]["name"] == "importer-huggingface", "{dataset}");
        let request = fixture.get("ConfigMap", "rows-data-loader").await?;
        let request: Value = serde_json::from_str(request["data"]["request.json"].as_str().context("no request")?)?;
        ensure!(
            request["plugin"]["name"] == "importer-huggingface" && request["params"] == json!({"split": "train"}),
            "{request}"
        );

        fixture.pod_ends("rows-data-loader", 0, &imported(&dataset)).await?;
        let dataset = fixture.reason("Dataset", "rows", "Complete", "JobComplete").await?;
        let (status, source) = (&dataset["status"], &dataset["status"]["source"]);
        ensure!(status["ready"] == true && status["transfer"]["progress"] == "100%", "{dataset}");
        ensure!(source["rows"] == 30 && source["bytes"] == 1000 && source["revision"] == "abc", "{source}");
        ensure!(source["splits"] == json!(["train", "test"]) && source["schema"] == json!(["prompt: string"]), "{source}");
        ensure!(source["license"] == "mit", "{source}");
        // Less than the whole is never silent.
        let message = condition(&dataset, "Complete")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("30 rows") && message.contains("only a part: the hub converted"), "{message}");
        ensure!(!fixture.exists("Job", "rows-data-shards").await?, "nobody asked for more than one pod");
        Ok(())
    })
}

#[test]
fn typed_failures_of_an_import_are_conditions() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Dataset", "gated", json!({"source": "hf://datasets/acme/gated"})).await?;
        let dataset = planned(fixture, "gated").await?;
        fixture
            .pod_ends("gated-data-loader", 64, &failed(&dataset, "Gated", "ask for access at https://huggingface.co/x"))
            .await?;
        let dataset = said(fixture, "gated", "Gated", "annotate dataset gated").await?;
        let message = condition(&dataset, "Complete")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("https://huggingface.co/x"), "{message}");
        ensure!(dataset["status"]["ready"] == false, "{dataset}");
        Ok(())
    })
}

#[test]
fn shards_run_as_an_indexed_job_and_a_failed_one_again_by_itself() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let spec = json!({"source": "hf://datasets/acme/big", "parallelism": 2, "retries": 3});
        fixture.create("Dataset", "big", spec).await?;
        let shards = fixture.wait("Job", "big-data-shards", LIMIT, async |_| Ok(Some(()))).await?;
        let spec = &shards["spec"];
        ensure!(spec["completionMode"] == "Indexed" && spec["completions"] == 2 && spec["parallelism"] == 2, "{spec}");
        ensure!(spec["backoffLimitPerIndex"] == 3, "{spec}");
        ensure!(args(&shards).contains(&"--share=$(JOB_COMPLETION_INDEX)/2"), "{:?}", args(&shards));
        ensure!(!args(&shards).iter().any(|arg| arg.starts_with("--progress-url")), "the leader tells how far all are");
        let lead = fixture.get("Job", "big-data-loader").await?;
        ensure!(args(&lead).contains(&"--lead") && lead["spec"]["backoffLimit"] == 3, "{lead}");
        ensure!(volumes(&lead) == volumes(&shards), "they meet in one folder: {lead}");

        // One index fails and is done again; the other one is left alone.
        let dataset = planned(fixture, "big").await?;
        let pod = fixture.pod_ends("big-data-shards", 1, &failed(&dataset, "Unavailable", "the hub does not answer")).await?;
        let index = fixture.get("Pod", &pod).await?["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"].clone();
        let again = format!(
            "batch.kubernetes.io/job-name=big-data-shards,batch.kubernetes.io/job-completion-index={}",
            index.as_str().context("no index")?
        );
        let fresh = fixture.pod(&again).await?;
        ensure!(fresh["metadata"]["name"] != pod.as_str(), "{fresh}");
        for _ in 0..2 {
            fixture.pod_ends("big-data-shards", 0, &imported(&dataset)).await?;
        }
        let complete = async |job: &Value| Ok(job["status"]["completionTime"].is_string().then_some(()));
        let shards = fixture.wait("Job", "big-data-shards", LIMIT, complete).await?;
        ensure!(shards["status"]["failed"] == 1 && shards["status"]["succeeded"] == 2, "{shards}");
        // Whole is what the leader has put together.
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(fixture.get("Dataset", "big").await?["status"]["ready"] == false, "shards are no artifact");
        fixture.pod_ends("big-data-loader", 0, &imported(&dataset)).await?;
        let dataset = fixture.reason("Dataset", "big", "Complete", "JobComplete").await?;
        ensure!(dataset["status"]["ready"] == true && dataset["status"]["source"]["rows"] == 30, "{dataset}");
        Ok(())
    })
}

fn volumes(job: &Value) -> &Value {
    &job["spec"]["template"]["spec"]["volumes"]
}

#[test]
fn a_shard_that_cannot_be_done_ends_the_whole_try() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Dataset", "bad", json!({"source": "hf://datasets/acme/bad", "parallelism": 2})).await?;
        let dataset = planned(fixture, "bad").await?;
        fixture.wait("Job", "bad-data-shards", LIMIT, async |_| Ok(Some(()))).await?;
        fixture.pod_ends("bad-data-shards", 64, &failed(&dataset, "Invalid", "`train.csv`: line 7 is broken")).await?;
        let dataset = said(fixture, "bad", "Invalid", "tried again").await?;
        let message = condition(&dataset, "Complete")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(message.contains("line 7"), "{message}");
        fixture.drop_finished_pods("bad-data-shards").await?;
        fixture.gone(&[("Job", "bad-data-loader")]).await.context("nobody waits for shards that will not come")?;
        fixture.event("bad", "Invalid").await?;

        fixture.annotate("Dataset", "bad", "substratus.ai/retry", "1").await?;
        fixture.drop_finished_pods("bad-data-shards").await?;
        let retried = async |job: &Value| Ok((job["metadata"]["annotations"]["substratus.ai/retry"] == "1").then_some(()));
        fixture.wait("Job", "bad-data-shards", LIMIT, retried).await?;
        fixture.wait("Job", "bad-data-loader", LIMIT, retried).await?;

        // Fewer pods are another way to do the same: what is done stays done, and nobody waits for shares that are gone.
        fixture.merge("Dataset", "bad", json!({"spec": {"parallelism": 1}})).await?;
        let whole = async |job: &Value| Ok((!args(job).contains(&"--lead")).then_some(()));
        fixture.wait("Job", "bad-data-loader", LIMIT, whole).await?;
        fixture.gone(&[("Job", "bad-data-shards")]).await?;
        let dataset = fixture.get("Dataset", "bad").await?;
        fixture.pod_ends("bad-data-loader", 0, &imported(&dataset)).await?;
        fixture.reason("Dataset", "bad", "Complete", "JobComplete").await?;
        Ok(())
    })
}
