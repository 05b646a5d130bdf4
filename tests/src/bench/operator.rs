//! The operator as a process against a real API server: start to ready, memory, writes, with few and with many Models.
//! Must not know the operator's insides; what the API server, `/proc` and `/readyz` say is all there is.

mod account;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, ListParams, PostParams};
use serde::Serialize;
use substratus_crds::{Model, ModelSpec};

use self::account::writes;
use super::child;
use super::stats::mebibytes;
use super::table::{Table, or_dash};
use crate::cluster::{Cluster, Mode, eventually};
use crate::install;

const READY: &str = "http://127.0.0.1:18081/readyz";
const ADDRESSES: [&str; 3] = [
    "--health-probe-bind-address=127.0.0.1:18081",
    "--metrics-bind-address=127.0.0.1:18080",
    "--store-bind-address=127.0.0.1:18090",
];
const START_LIMIT: Duration = Duration::from_mins(2);
const SETTLE_LIMIT: Duration = Duration::from_mins(10);
/// Without a write for so long, the operator has done what it had to.
const QUIET: Duration = Duration::from_secs(5);
/// Models that are created at the same time.
const PARALLEL: usize = 16;

/// How to measure.
#[derive(Debug)]
pub struct Options<'a> {
    /// The `substratus` program.
    pub substratus: &'a Path,
    /// Folder of the bundled plugins.
    pub plugins: &'a Path,
    /// Models of the second half.
    pub models: u32,
    /// How long the operator is watched at rest.
    pub rest: Duration,
}

/// One situation.
#[derive(Debug, Serialize)]
pub struct Row {
    situation: String,
    ready_milliseconds: Option<f64>,
    /// Until the last write, where there was something to do.
    settled_seconds: Option<f64>,
    settling_writes: Option<u64>,
    resident_mebibytes: f64,
    peak_mebibytes: f64,
    rest_seconds: f64,
    rest_writes: u64,
    rest_cpu_seconds: f64,
}

/// Starts a control plane of its own, and the operator in it several times.
pub fn measure(options: &Options<'_>) -> Result<Vec<Row>> {
    // No controller but the operator: what else happens in a cluster would be measured with it.
    let cluster = Cluster::start(Mode::Api)?;
    let folder = tempfile::tempdir().context("making a folder for the operator")?;
    let kubeconfig = folder.path().join("kubeconfig");
    cluster.block_on(async {
        install::apply(&cluster.client(), &install::objects(&install::deploy("base"))?).await?;
        account::count_writes(&cluster).await?;
        account::kubeconfig(&cluster, &kubeconfig).await
    })?;
    let start = || Operator::start(&cluster, options, folder.path(), &kubeconfig);
    let mut rows = Vec::new();

    let operator = start()?;
    rows.push(operator.rest(&cluster, "no Model, nothing compiled", options.rest)?);
    drop(operator);
    let operator = start()?;
    rows.push(operator.rest(&cluster, "no Model, plugins compiled", options.rest)?);

    let (seconds, written) = settle(&cluster, options.models)?;
    let mut row = operator.rest(&cluster, &format!("{} new Models", options.models), options.rest)?;
    (row.ready_milliseconds, row.settled_seconds, row.settling_writes) = (None, Some(seconds), Some(written));
    rows.push(row);
    drop(operator);

    let before = cluster.block_on(writes(&cluster))?;
    let operator = start()?;
    let mut row = operator.rest(&cluster, &format!("started with {} Models", options.models), options.rest)?;
    // The start belongs to it: a restart must not write either.
    row.rest_writes = cluster.block_on(writes(&cluster))? - before;
    rows.push(row);
    Ok(rows)
}

/// A running operator, killed when dropped.
struct Operator {
    child: Child,
    ready: Duration,
}

impl Operator {
    fn start(cluster: &Cluster, options: &Options<'_>, folder: &Path, kubeconfig: &Path) -> Result<Self> {
        let log = folder.join("log");
        let began = Instant::now();
        let mut child = command(cluster, options, folder, kubeconfig)?.spawn().context("starting the operator")?;
        let ready = cluster.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build()?;
            loop {
                if client.get(READY).send().await.is_ok_and(|response| response.status().is_success()) {
                    return Ok(began.elapsed());
                }
                if let Some(status) = child.try_wait()? {
                    bail!("the operator ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default());
                }
                ensure!(
                    began.elapsed() < START_LIMIT,
                    "the operator is not ready: {}",
                    fs::read_to_string(&log).unwrap_or_default()
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let mut operator = Self { child, ready: Duration::ZERO };
        operator.ready = ready?;
        Ok(operator)
    }

    /// Watches it for a while.
    fn rest(&self, cluster: &Cluster, situation: &str, rest: Duration) -> Result<Row> {
        let pid = self.child.id();
        let (writes_before, cpu_before) = (cluster.block_on(writes(cluster))?, child::cpu_seconds(pid)?);
        std::thread::sleep(rest);
        Ok(Row {
            situation: situation.to_owned(),
            ready_milliseconds: Some(self.ready.as_secs_f64() * 1e3),
            settled_seconds: None,
            settling_writes: None,
            resident_mebibytes: mebibytes(child::memory(pid, "VmRSS")?),
            peak_mebibytes: mebibytes(child::memory(pid, "VmHWM")?),
            rest_seconds: rest.as_secs_f64(),
            rest_writes: cluster.block_on(writes(cluster))? - writes_before,
            rest_cpu_seconds: child::cpu_seconds(pid)? - cpu_before,
        })
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself, which was reported already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(cluster: &Cluster, options: &Options<'_>, folder: &Path, kubeconfig: &Path) -> Result<Command> {
    let log = File::create(folder.join("log")).context("making the operator's log")?;
    let mut command = cluster.command(std::path::absolute(options.substratus)?);
    command.arg("operator").args(ADDRESSES).args(["--cloud=local", "--operator-image=substratus", "--leader-elect=false"]);
    command.arg("--plugins-dir").arg(std::path::absolute(options.plugins)?);
    command.arg("--plugin-cache-dir").arg(folder.join("cache"));
    command.env("KUBECONFIG", kubeconfig).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// Creates Models and waits until the operator has nothing left to write: seconds and writes.
fn settle(cluster: &Cluster, count: u32) -> Result<(f64, u64)> {
    cluster.block_on(async {
        let before = writes(cluster).await?;
        let namespace = cluster.namespace("bench").await?;
        let began = Instant::now();
        let models = Api::<Model>::namespaced(cluster.client(), &namespace);
        let create = async |number: u32| {
            let spec = ModelSpec { source: Some(format!("hf://bench/model-{number}")), ..ModelSpec::default() };
            models.create(&PostParams::default(), &Model::new(&format!("model-{number}"), spec)).await.map(drop)
        };
        stream::iter(0..count).map(create).buffer_unordered(PARALLEL).try_collect::<()>().await.context("creating Models")?;
        let jobs = Api::<Job>::namespaced(cluster.client(), &namespace);
        eventually("Jobs of all Models", SETTLE_LIMIT, async || {
            let found = jobs.list_metadata(&ListParams::default()).await?.items.len();
            ensure!(found == count as usize, "there are {found} of {count}");
            Ok(Some(()))
        })
        .await?;
        let (mut seen, mut since) = (writes(cluster).await?, Instant::now());
        while since.elapsed() < QUIET {
            ensure!(began.elapsed() < SETTLE_LIMIT, "the operator still writes");
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = writes(cluster).await?;
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        ensure!(seen > before, "{count} Models and no write: the counter does not see the operator");
        Ok((since.duration_since(began).as_secs_f64(), seen - before))
    })
}

/// For people.
pub fn table(rows: &[Row], options: &Options<'_>) -> Table {
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let count = |number: u64| number as f64;
    let cells = |row: &Row| {
        vec![
            row.situation.clone(),
            or_dash(row.ready_milliseconds, 0),
            or_dash(row.settled_seconds, 1),
            or_dash(row.settling_writes.map(count), 0),
            format!("{:.1}", row.resident_mebibytes),
            format!("{:.1}", row.peak_mebibytes),
            row.rest_writes.to_string(),
            format!("{:.2}", row.rest_cpu_seconds),
        ]
    };
    Table {
        title: format!(
            "operator: as its own account against an API server of its own; at rest means {} s",
            options.rest.as_secs()
        ),
        columns: vec!["situation", "ready ms", "settled s", "writes", "MiB", "peak MiB", "writes at rest", "CPU s at rest"],
        rows: rows.iter().map(cells).collect(),
        notes: Vec::new(),
    }
}
