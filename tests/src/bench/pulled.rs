//! From a registry on this machine to a plugin that can be asked: pulled, compiled and loaded with nothing kept of it before, and
//! what a signature costs beside that. Knows no plugin by name.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;
use substratus::plugin::{Isolation, PlainHttp, PluginOptions, Plugins, RegistryAuth, push};

use super::stats::{mebibytes, median};
use super::table::{Table, or_dash};
use crate::guests;
use crate::registry::Registry;
use crate::signatures;

/// One plugin, or what is signed.
#[derive(Debug, Serialize)]
pub struct Row {
    name: String,
    mebibytes: f64,
    /// Of the manifest and the component, checked and kept.
    pull_milliseconds: Option<f64>,
    /// From the first request to a plugin that can be asked; the sandbox is started meanwhile.
    ready_milliseconds: Option<f64>,
    /// Of a signature by one key: found in the registry, fetched and checked.
    verify_milliseconds: Option<f64>,
}

/// Every plugin of a folder, `runs` times each from an empty store.
pub async fn measure(substratus: &Path, folder: &Path, runs: u32) -> Result<Vec<Row>> {
    let registry = Registry::start()?;
    let plain = PlainHttp(vec![registry.host.clone()]);
    let mut rows = Vec::new();
    for file in guests::components(folder)? {
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let reference = push(&format!("{}/bench/{name}:1", registry.host), &bytes, RegistryAuth::Anonymous, &plain).await?;
        let (mut pull, mut ready) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let cache = tempfile::tempdir().context("making a folder for a store")?;
            let options = PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() };
            let plugins = Plugins::open_isolated(options, Isolation::Child { program: substratus.to_owned() })?;
            let began = Instant::now();
            let pulled = plugins.pull(&reference, RegistryAuth::Anonymous, &plain).await?;
            pull.push(began.elapsed().as_secs_f64() * 1e3);
            plugins.prepare(&pulled.digest).await?;
            ready.push(began.elapsed().as_secs_f64() * 1e3);
        }
        rows.push(Row {
            name,
            mebibytes: mebibytes(bytes.len() as u64),
            pull_milliseconds: median(&pull),
            ready_milliseconds: median(&ready),
            verify_milliseconds: None,
        });
    }
    rows.extend(verified(&registry, &plain, runs).await?);
    Ok(rows)
}

/// In both forms that cosign writes.
async fn verified(registry: &Registry, plain: &PlainHttp, runs: u32) -> Result<Vec<Row>> {
    let fixtures = signatures::fixtures();
    let published = signatures::publish(&fixtures, &registry.host).await?;
    let policy = signatures::policy(&fixtures, &["release"], 1)?;
    let mut rows = Vec::new();
    for tag in ["bundle", "legacy"] {
        let (_, reference) = published.iter().find(|(name, _)| name == tag).with_context(|| format!("no fixture {tag}"))?;
        let mut took = Vec::new();
        for _ in 0..runs {
            // A host of its own, as a verification is remembered.
            let (_cache, plugins) = signatures::plugins()?;
            let began = Instant::now();
            plugins.verify(reference, RegistryAuth::Anonymous, plain, &policy).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let size = fs::metadata(fixtures.join("component.wasm"))?.len();
        rows.push(Row {
            name: format!("signed ({tag})"),
            mebibytes: mebibytes(size),
            pull_milliseconds: None,
            ready_milliseconds: None,
            verify_milliseconds: median(&took),
        });
    }
    Ok(rows)
}

/// For people.
pub fn table(rows: &[Row], runs: u32) -> Table {
    let cells = |row: &Row| {
        vec![
            row.name.clone(),
            format!("{:.2}", row.mebibytes),
            or_dash(row.pull_milliseconds, 1),
            or_dash(row.ready_milliseconds, 0),
            or_dash(row.verify_milliseconds, 1),
        ]
    };
    Table {
        title: format!("plugins: from a registry on this machine, {runs} times each into an empty store"),
        columns: vec!["plugin", "MiB", "pull ms", "ready ms", "verify ms"],
        rows: rows.iter().map(cells).collect(),
        notes: vec!["ready: pulled, compiled in a child and loaded by a new sandbox".to_owned()],
    }
}
