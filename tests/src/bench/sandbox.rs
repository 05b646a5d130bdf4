//! What the process that runs plugins holds and how soon it is back: memory with few plugins and with many, and a restart. Every
//! plugin is a component of its own, made from a bundled one. Knows no plugin by name.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;
use substratus::plugin::{Isolation, PluginOptions, Plugins};

use super::stats::median;
use super::table::{Table, or_dash};
use crate::guests;

/// Plugins at a restart.
const RESTARTED: usize = 20;

/// One number of plugins.
#[derive(Debug, Serialize)]
pub struct Row {
    plugins: usize,
    /// Of the sandbox, all of them loaded and none of them asked.
    resident_mebibytes: f64,
    /// From nothing to the last plugin ready, native code in the cache: a new operator and a new sandbox.
    restart_milliseconds: Option<f64>,
}

/// Memory with 5 and 50 plugins, and `runs` restarts with 20.
pub async fn measure(substratus: &Path, folder: &Path, runs: u32) -> Result<Vec<Row>> {
    let cache = tempfile::tempdir().context("making a folder for compiled plugins")?;
    let open = || {
        let options = PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() };
        Plugins::open_isolated(options, Isolation::Child { program: substratus.to_owned() })
    };
    let components = components(folder)?;
    let mut rows = Vec::new();
    for plugins in [5, RESTARTED, 50] {
        let host = open()?;
        let mut digests = Vec::new();
        for (component, salt) in components.iter().cycle().zip(0_u8..).take(plugins) {
            digests.push(host.add(&salted(component, salt))?.digest);
        }
        prepare(&host, &digests).await?;
        let resident_mebibytes = resident(&host)?;
        drop(host);
        let mut took = Vec::new();
        let restarts = if plugins == RESTARTED { runs } else { 0 };
        for _ in 0..restarts {
            let began = Instant::now();
            prepare(&open()?, &digests).await?;
            took.push(began.elapsed().as_secs_f64() * 1e3);
        }
        rows.push(Row { plugins, resident_mebibytes, restart_milliseconds: median(&took) });
    }
    Ok(rows)
}

async fn prepare(host: &Plugins, digests: &[String]) -> Result<()> {
    let prepared = futures::future::join_all(digests.iter().map(|digest| host.prepare(digest))).await;
    prepared.into_iter().collect::<Result<(), _>>().context("preparing plugins")
}

fn components(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let files = guests::components(folder)?;
    files.iter().map(|file| fs::read(file).with_context(|| format!("reading {}", file.display()))).collect()
}

/// The same component with another digest: a custom section that nobody reads.
fn salted(component: &[u8], salt: u8) -> Vec<u8> {
    [component, &[0, 6, 4], b"salt", &[salt]].concat()
}

/// `VmRSS`, in MiB.
fn resident(host: &Plugins) -> Result<f64> {
    let pid = host.sandbox().and_then(|state| state.pid).context("no sandbox runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// For people.
pub fn table(rows: &[Row]) -> Table {
    let cells = |row: &Row| {
        vec![format!("{} plugins", row.plugins), format!("{:.1}", row.resident_mebibytes), or_dash(row.restart_milliseconds, 0)]
    };
    Table {
        title: "sandbox: the process that runs plugins".to_owned(),
        columns: vec!["loaded", "resident MiB", "restart ms"],
        rows: rows.iter().map(cells).collect(),
        notes: vec!["restart: a new host and a new sandbox, to the last plugin ready; native code is in the cache".to_owned()],
    }
}
