//! Datasets that importers bring in, on a real node: rows in the bucket, what they are in the status, shards in several pods, and
//! one of those killed.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::api::Api;
use serde_json::{Value, json};
use substratus_tests::hub::{Fault, Repo, Rule};
use substratus_tests::platform;

use super::{FAULTS, condition, folder, stage, tell};

const SQUAD: &str = "acme/squad";
const TABLES: &str = "acme/tables";
const TABLE_ROWS: usize = 20_000;
const TABLES_NUMBER: usize = 4;

/// `SQuAD` in small, and tables.
pub(super) fn repositories() -> Vec<Repo> {
    let squad = |articles: usize| {
        let answer = json!([{"text": "yes", "answer_start": 0}]);
        let paragraphs = json!([{"context": "It is so.", "qas": [{"question": "Is it?", "answers": answer}]}]);
        let articles: Vec<Value> = (0..articles).map(|n| json!({"title": format!("T{n}"), "paragraphs": paragraphs})).collect();
        json!({"version": "v2.0", "data": articles}).to_string()
    };
    let mut tables = Repo::dataset(TABLES).lfs_threshold(1).info("tags", json!(["license:mit"]));
    for table in 0..TABLES_NUMBER {
        let mut rows = String::from("prompt,completion\n");
        for row in 0..TABLE_ROWS {
            // Writing to a string cannot fail.
            let _ = writeln!(rows, "question {row} of table {table},answer {row}");
        }
        tables = tables.file(&format!("train-{table}.csv"), rows.as_str());
    }
    let squad = Repo::dataset(SQUAD).file("train-v2.0.json", squad(300).as_str()).file("dev-v2.0.json", squad(20).as_str());
    vec![squad, tables]
}

#[test]
fn a_dataset_of_the_first_operator_is_imported_by_its_plugin() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let hub = &stage.platform.hub;
        let endpoint = format!("{}/datasets/{SQUAD}/resolve/main", hub.url);
        platform::point_importer(cluster, "importer-squad", json!({"endpoint": endpoint}), &[&hub.url, &hub.cdn_url]).await?;
        let namespace = cluster.namespace("dataset").await?;
        platform::apply(cluster, &namespace, "tests/fixtures/first-operator/datasets/squad.yaml")?;
        let status = stage.dataset(&namespace, "squad", "to be ready", |status| status.ready).await?;
        tell("dataset", began, "Dataset ready");
        ensure!(status.plugin.as_ref().is_some_and(|plugin| plugin.name == "importer-squad"), "{:?}", status.plugin);
        let source = status.source.clone().context("no word of what was imported")?;
        ensure!((source.rows, source.files, source.splits.as_slice()) == (Some(300), 1, ["train".to_owned()].as_slice()), "{source:?}");
        ensure!(source.schema == ["completion: string", "prompt: string"] && source.revision.is_some(), "{source:?}");
        let rows = fs::read_to_string(folder(&status)?.join("artifacts/all.jsonl"))?;
        ensure!(i64::try_from(rows.len())? == source.bytes && rows.lines().count() == 300, "{} bytes: {source:?}", rows.len());
        let row: Value = serde_json::from_str(rows.lines().next().context("no row")?)?;
        ensure!(row == json!({"prompt": "T0\n\nIt is so.\n\nQuestion: Is it?\nAnswer:", "completion": " yes"}), "{row}");

        // What is not there is said in words.
        let missing = "{apiVersion: substratus.ai/v1, kind: Dataset, metadata: {name: missing}, spec: {image: substratusai/dataset-squad, params: {split: none}}}";
        platform::apply_text(cluster, &namespace, missing)?;
        let status = stage
            .dataset(&namespace, "missing", "to say why not", |status| condition(&status.conditions, "Complete").0 == "Invalid")
            .await?;
        let (_, message) = condition(&status.conditions, "Complete");
        ensure!(message.contains("must be train, dev or all"), "{message}");
        Ok(())
    })
}

#[test]
fn shards_are_spread_over_pods_and_a_killed_one_goes_on() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let hub = &stage.platform.hub;
        let hosts = [hub.url.as_str(), hub.cdn_url.as_str()];
        platform::point_importer(cluster, "importer-huggingface", json!({"endpoint": hub.url}), &hosts).await?;
        let namespace = cluster.namespace("shards").await?;
        let faults = FAULTS.lock().await;
        // One file of the second pod's share is slow.
        hub.fault(Rule::cdn("train-1.csv", Fault::BytesPerSecond(16 << 10)));
        let source = format!("hf://datasets/{TABLES}");
        let manifest = format!("{{apiVersion: substratus.ai/v1, kind: Dataset, metadata: {{name: tables}}, spec: {{source: '{source}', parallelism: 2}}}}");
        platform::apply_text(cluster, &namespace, &manifest)?;
        let moving = stage
            .dataset(&namespace, "tables", "to have all but one shard", |status| {
                status.transfer.as_ref().is_some_and(|transfer| transfer.files_done == 3 && transfer.files_total == 4)
            })
            .await?;
        tell("shards", began, &format!("{:?}", moving.transfer));
        ensure!(!moving.ready && moving.transfer.as_ref().is_some_and(|transfer| transfer.progress != "100%"), "{moving:?}");
        let pods = stage.pods(&namespace, "batch.kubernetes.io/job-completion-index=1").await?;
        let killed = pods.first().and_then(|pod| pod.metadata.name.clone()).context("no pod of the second index")?;
        platform::kubectl(cluster, &["delete", "pod", &killed, "--grace-period=0", "--force", "--namespace", &namespace])?;
        tell("shards", began, "one pod killed");
        hub.clear_faults();
        drop(faults);
        let status = stage.dataset(&namespace, "tables", "to be ready", |status| status.ready).await?;
        tell("shards", began, "Dataset ready");

        let source = status.source.clone().context("no word of what was imported")?;
        ensure!(source.rows == i64::try_from(TABLES_NUMBER * TABLE_ROWS).ok() && source.files == 4, "{source:?}");
        ensure!(source.license.as_deref() == Some("mit"), "{source:?}");
        for table in 0..TABLES_NUMBER {
            let rows = fs::read_to_string(folder(&status)?.join(format!("artifacts/train-{table}.jsonl")))?;
            ensure!(rows.lines().count() == TABLE_ROWS, "table {table} has {} rows", rows.lines().count());
            ensure!(rows.starts_with(&format!("{{\"prompt\":\"question 0 of table {table}\"")), "{:?}", rows.get(..80));
        }
        let jobs = Api::<Job>::namespaced(cluster.client(), &namespace);
        let shards = jobs.get("tables-data-shards").await?.spec.context("no spec")?;
        ensure!(shards.completion_mode.as_deref() == Some("Indexed") && shards.completions == Some(2), "{shards:?}");
        // What was done was not fetched again.
        let fetched = |table: usize| hub.stats().cdn.bytes_with(&format!("{TABLES}/")).min(hub.stats().cdn.bytes_with(&format!("train-{table}.csv")));
        for table in [0, 2, 3] {
            let size = fs::metadata(folder(&status)?.join(format!("artifacts/train-{table}.jsonl")))?.len();
            ensure!(fetched(table) < size, "table {table}: {} bytes were fetched of a table of less than {size}", fetched(table));
        }
        Ok(())
    })
}
