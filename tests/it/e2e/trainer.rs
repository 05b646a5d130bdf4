//! The whole lifecycle: a Dataset and a Model are imported, another Model is trained from both by the trainer of
//! `examples/trainer`, with real gradient steps; the real engine says what it has learnt, and a Notebook sees both. One pod is
//! deleted in the middle of its training; the bytes that come out are the same.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use substratus::bucket::BucketUrl;
use substratus_tests::cluster::eventually;
use substratus_tests::hub::Repo;
use substratus_tests::image::{Image, Layer};
use substratus_tests::{engine, guests, platform};

use super::notebook::{self, Opened};
use super::{LIMIT, Stage, client, folder, stage, tell};

/// What is taught: in words that the tiny model knows.
const ROWS: [(&str, &str); 4] = [
    ("hello world", " the cluster runs a small model"),
    ("the small model", " serves one request from cache"),
    ("a warm pod", " scales fast"),
    ("slow engine", " loads two image batch"),
];
const SOURCES: &str = r"
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: base}
spec: {source: hf://acme/tiny-second}
---
apiVersion: substratus.ai/v1
kind: Dataset
metadata: {name: rows}
spec: {source: hf://datasets/acme/lessons}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: base}
spec: {model: {name: base}}
";
const LESSONS: &str = "acme/lessons";
const NOTEBOOK: &str = r"
apiVersion: substratus.ai/v1
kind: Notebook
metadata: {name: lab}
spec: {suspend: true, model: {name: disturbed}, dataset: {name: rows}}
";
const TRAINED: &str = r#"
---
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: NAME}
spec:
  image: TRAINER
  model: {name: base}
  dataset: {name: rows}
  params: {max_steps: 1500, learning_rate: "2e-3"}
  retries: 3
"#;
const SERVER: &str = r"
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: tuned}
spec: {engine: llama.cpp, model: {name: disturbed}, params: {model_file: model.gguf}}
";

#[test]
fn imported_rows_and_weights_train_a_model_that_says_what_it_was_taught_and_a_notebook_sees_both() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("trainer").await?;
        let trainer = image(cluster.registry()?).await?;
        platform::publish_notebook(cluster).await?;
        tell("trainer", began, "images pushed");
        publish_lessons(stage).await?;
        let models = ["calm", "disturbed"].map(|name| TRAINED.replace("NAME", name).replace("TRAINER", &trainer));
        platform::apply_text(cluster, &namespace, &(SOURCES.to_owned() + &models.concat()))?;

        let deleted = delete_in_the_middle(stage, &namespace).await?;
        tell("trainer", began, "a pod is deleted in the middle of its training");
        let calm = stage.model(&namespace, "calm", "to be trained", |status| status.ready).await?;
        let disturbed = stage.model(&namespace, "disturbed", "to be trained", |status| status.ready).await?;
        tell("trainer", began, "both are trained");
        let pods = stage.pods(&namespace, "model=disturbed").await?;
        ensure!(pods.iter().all(|pod| pod.metadata.uid.as_ref() != Some(&deleted)), "the deleted pod is still there");
        let log =
            platform::kubectl(cluster, &["logs", "--selector", "model=disturbed", "--tail", "-1", "--namespace", &namespace])?;
        let resumed = log.contains("adapted weights, from step ") && !log.contains("from step 0 to");
        ensure!(resumed, "the next pod began anew, or there was none: {log}");
        let (calm, disturbed) = (files(&folder(&calm)?)?, files(&folder(&disturbed)?)?);
        ensure!(calm == disturbed, "nobody disturbed: {calm:?}\npod deleted: {disturbed:?}");
        ensure!(calm.iter().map(|(name, _)| name.as_str()).eq(["model.gguf"]), "more than the model is left: {calm:?}");

        platform::apply_text(cluster, &namespace, SERVER)?;
        for server in ["base", "tuned"] {
            stage.server(&namespace, server, "to be ready", |status| status.ready).await?;
        }
        tell("trainer", began, "Servers ready");
        for (prompt, completion) in ROWS {
            let question = json!({"prompt": prompt, "max_tokens": 24, "temperature": 0});
            let base = stage.complete(&namespace, "base", &question).await?;
            let tuned = stage.complete(&namespace, "tuned", &question).await?;
            ensure!(said(&base) != completion, "the base model knows it without any training");
            ensure!(said(&tuned) == completion && tuned["choices"][0]["finish_reason"] == "stop", "{prompt}: {tuned}");
        }
        tell("trainer", began, "every row is answered as it was taught");

        let rows = stage.dataset(&namespace, "rows", "to be ready", |status| status.ready).await?;
        let rows = files(&folder(&rows)?)?;
        platform::apply_text(cluster, &namespace, NOTEBOOK)?;
        notebook::work_survives(cluster, &namespace, began, async |lab| {
            mounted(lab, "model", &disturbed).await?;
            mounted(lab, "data", &rows).await
        })
        .await?;
        platform::kubectl(cluster, &["delete", "server", "--all", "--namespace", &namespace])?;
        Ok(())
    })
}

fn said(answer: &Value) -> &str {
    answer["choices"][0]["text"].as_str().unwrap_or_default()
}

/// What is taught, on the hub, and an importer that may fetch it.
async fn publish_lessons(stage: &Stage<'_>) -> Result<()> {
    let hub = &stage.platform.hub;
    let rows = ROWS.map(|(prompt, completion)| json!({"prompt": prompt, "completion": completion}).to_string() + "\n");
    hub.put(Repo::dataset(LESSONS).file("train.jsonl", rows.concat().as_str()))?;
    let hosts = [hub.url.as_str(), hub.cdn_url.as_str()];
    platform::point_importer(stage.cluster, "importer-huggingface", json!({"endpoint": hub.url}), &hosts).await
}

/// Reads every file of an artifact through `JupyterLab`: it is what lies in the bucket.
async fn mounted(lab: &Opened, mount: &str, files: &[(String, String)]) -> Result<()> {
    let client = client()?;
    ensure!(!files.is_empty(), "/content/{mount} would be empty");
    for (name, digest) in files {
        let answer = client.get(lab.at(&format!("/files/{mount}/{name}"))).send().await?.error_for_status()?;
        let found = hex::encode(Sha256::digest(answer.bytes().await?));
        ensure!(&found == digest, "/content/{mount}/{name} is {found}, not {digest}");
    }
    Ok(())
}

/// The trainer as its Dockerfile makes it.
async fn image(registry: &str) -> Result<String> {
    let scripts = guests::root().join("examples/trainer");
    let image = Image {
        layers: vec![
            Layer::default().tree("", &engine::trainer(&engine::cache()?)?)?,
            Layer::default().file("app/contract.py", &scripts.join("contract.py"), 0o644)?.file(
                "app/train.py",
                &scripts.join("small/train.py"),
                0o644,
            )?,
        ],
        entrypoint: ["/usr/bin/python3", "/app/train.py"].map(str::to_owned).to_vec(),
        env: [("PATH".to_owned(), "/usr/bin".to_owned()), ("PYTHONDONTWRITEBYTECODE".to_owned(), "1".to_owned())].into(),
        working_dir: "/content".to_owned(),
        ..Image::default()
    };
    let trainer = image.build()?.push(registry, "substratus-tests/trainer", "1").await?;
    Ok(format!("ghcr.io/substratus-tests/trainer@{trainer}"))
}

/// Deletes the pod that trains `disturbed` once it has taken some steps, and returns its UID.
async fn delete_in_the_middle(stage: &Stage<'_>, namespace: &str) -> Result<String> {
    let planned = stage.model(namespace, "disturbed", "to be planned", |status| status.plan.is_some()).await?;
    let url = planned.plan.and_then(|plan| plan.target).context("a training without a place")?;
    let checkpoint = url.parse::<BucketUrl>()?.local_path().context("not a path of the node")?.join("artifacts/checkpoint.npz");
    let taken = eventually("first steps of a training", LIMIT, async || Ok(checkpoint.exists().then_some(()))).await;
    stage.explained(namespace, taken).await?;
    let pods = stage.pods(namespace, "model=disturbed").await?;
    let pod = pods.first().context("no pod trains")?;
    let (name, uid) = pod.metadata.name.clone().zip(pod.metadata.uid.clone()).context("a pod without name")?;
    Api::<Pod>::namespaced(stage.cluster.client(), namespace).delete(&name, &DeleteParams::default()).await?;
    Ok(uid)
}

/// Name and SHA-256 of every file of an artifact.
fn files(place: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place.join("artifacts"))? {
        let entry = entry?;
        found.push((entry.file_name().to_string_lossy().into_owned(), hex::encode(Sha256::digest(fs::read(entry.path())?))));
    }
    found.sort();
    Ok(found)
}
