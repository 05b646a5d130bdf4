//! What a plugin that never ends costs the others: calls of one plugin while the machine has nothing else to do, while another plugin
//! loops in call after call until its limit ends each, and while every core is busy. Knows no plugin of ours by name.

use std::hint::black_box;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use substratus::plugin::types::PlaceRequest;
use substratus::plugin::{Isolation, PluginError, PluginOptions, Plugins};
use substratus_crds::PluginRole;

use super::questions;
use super::stats::percentile;
use super::table::{Table, or_dash};
use crate::guests;

/// Calls of a plugin in some company.
#[derive(Debug, Serialize)]
pub struct Row {
    company: &'static str,
    place: &'static str,
    p50_microseconds: Option<f64>,
    p99_microseconds: Option<f64>,
}

/// `count` calls of the folder's first policy in each company, in this process and across a socket.
pub async fn measure(substratus: &Path, folder: &Path, count: u32) -> Result<Vec<Row>> {
    let cache = tempfile::tempdir().context("making a folder for compiled plugins")?;
    let options = PluginOptions { cache: cache.path().to_owned(), bundled: vec![folder.to_owned()] };
    let here = Plugins::open(options.clone())?;
    let there = Plugins::open_isolated(options, Isolation::Child { program: substratus.to_owned() })?;
    let mut rows = Vec::new();
    for (place, plugins) in [("in process", here), ("socket", there)] {
        rows.extend(alone_and_beside(&plugins, place, count).await?);
    }
    Ok(rows)
}

async fn alone_and_beside(plugins: &Plugins, place: &'static str, count: u32) -> Result<Vec<Row>> {
    let policy = plugins.bundled().into_iter().find(|loaded| loaded.manifest.role == PluginRole::GpuPolicy);
    let policy = policy.context("there is no policy among the plugins")?.digest;
    let question = questions::place()?;
    plugins.prepare(&policy).await?;
    let timed = async |company| {
        let mut took = Vec::new();
        for _ in 0..count {
            let asked = Instant::now();
            plugins.place(&policy, &question, None).await.context("asking a policy")?;
            took.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        anyhow::Ok(Row { company, place, p50_microseconds: percentile(&took, 0.5), p99_microseconds: percentile(&took, 0.99) })
    };
    let alone = timed("nobody").await?;
    let runaway = runaway(plugins).await?;
    let beside = timed("a plugin that loops").await?;
    runaway.abort();
    let busy = Busy::every_core()?;
    let crowded = timed("every core busy").await?;
    drop(busy);
    Ok(vec![alone, beside, crowded])
}

/// A plugin that is asked again and again, and never answers.
async fn runaway(plugins: &Plugins) -> Result<tokio::task::JoinHandle<()>> {
    let digest = plugins.add_file(&guests::component("tests/guests/policy")?)?.digest;
    let question = PlaceRequest { gpu_type: Some("loop".to_owned()), ..questions::place()? };
    match plugins.place(&digest, &question, None).await {
        Err(PluginError::Limit { .. }) => {}
        other => bail!("a plugin that loops was to be ended by a limit: {other:?}"),
    }
    let plugins = plugins.clone();
    Ok(tokio::spawn(async move {
        loop {
            drop(plugins.place(&digest, &question, None).await);
        }
    }))
}

/// Threads that do nothing of use, one for each core.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn every_core() -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            let over = Arc::clone(&over);
            let spin = move || {
                while !over.load(Ordering::Relaxed) {
                    black_box(());
                }
            };
            thread::Builder::new().spawn(spin).context("starting a thread")?;
        }
        Ok(Self(over))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// For people.
pub fn table(rows: &[Row], count: u32) -> Table {
    let cells = |row: &Row| {
        vec![format!("{}, beside {}", row.place, row.company), or_dash(row.p50_microseconds, 0), or_dash(row.p99_microseconds, 0)]
    };
    Table {
        title: format!("plugins: {count} calls of a policy, one after the other, beside others"),
        columns: vec!["where, and beside whom", "p50 µs", "p99 µs"],
        rows: rows.iter().map(cells).collect(),
        notes: vec!["a plugin that loops is asked again as soon as its limit of processor time has ended it".to_owned()],
    }
}
