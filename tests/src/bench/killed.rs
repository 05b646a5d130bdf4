//! A load that is killed half way and run again: what comes over the wire twice. Must not look into the worker.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::child;
use super::load::{self, REPO};
use super::peers::{Own, Work, substratus};
use super::place::Place;
use super::stats::mebibytes;
use super::table::Table;
use crate::hub::Hub;

/// A load that gets nowhere for so long is broken.
const LIMIT: Duration = Duration::from_mins(5);

/// One killed load and the one that ended it.
#[derive(Debug, Serialize)]
pub struct Row {
    killed_at_mebibytes: f64,
    again_mebibytes: f64,
    again_percent: f64,
    peak_mebibytes: f64,
}

/// Kills `runs` loads of `bytes` at a half, and lets another one finish each.
pub fn measure(own: &Own<'_>, bytes: u64, runs: u32) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let work = Work { repo: REPO, files: vec!["model.safetensors".to_owned()], size_of_each: bytes };
    let hub = load::hub(&work, &runtime)?;
    let (place, scratch) = (Place::disk()?, tempfile::tempdir()?);
    (0..runs).map(|_| once(own, &work, &hub, scratch.path(), &place)).collect()
}

fn once(own: &Own<'_>, work: &Work, hub: &Hub, scratch: &std::path::Path, place: &Place) -> Result<Row> {
    let (target, bytes) = (place.target()?, work.size_of_each);
    let command = || -> Result<Command> {
        let log = std::fs::File::create(scratch.join("log"))?;
        let mut command = substratus(own, work, hub, scratch, &target);
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command)
    };
    hub.reset_stats();
    let (began, mut first) = (Instant::now(), command()?.spawn().context("starting a load")?);
    while hub.stats().cdn.bytes < bytes / 2 && began.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The second one tells whether there was anything to kill.
    let _ = first.kill();
    first.wait()?;
    let sent = hub.stats().cdn.bytes;
    ensure!((bytes / 2..bytes).contains(&sent), "the load could not be caught half way, but at {sent} of {bytes} bytes");
    let (status, cost) = child::run(&mut command()?)?;
    ensure!(status.success(), "the second load failed: {}", std::fs::read_to_string(scratch.join("log")).unwrap_or_default());
    let again = hub.stats().cdn.bytes.saturating_sub(bytes);
    Ok(Row {
        killed_at_mebibytes: mebibytes(sent),
        again_mebibytes: mebibytes(again),
        again_percent: 100.0 * mebibytes(again) / mebibytes(bytes),
        peak_mebibytes: mebibytes(cost.peak_bytes),
    })
}

/// For people.
pub fn table(rows: &[Row], bytes: u64) -> Table {
    let cells = |(number, row): (usize, &Row)| {
        vec![
            format!("run {}", number + 1),
            format!("{:.0}", row.killed_at_mebibytes),
            format!("{:.1}", row.again_mebibytes),
            format!("{:.1}", row.again_percent),
            format!("{:.1}", row.peak_mebibytes),
        ]
    };
    Table {
        title: format!("killed: SIGKILL half way through {:.0} MiB at full speed, then run again", mebibytes(bytes)),
        columns: vec!["load", "killed at MiB", "MiB sent twice", "percent", "peak MiB"],
        rows: rows.iter().enumerate().map(cells).collect(),
        notes: vec!["sent twice counts what the hub had handed to a socket and the killed load had not read".to_owned()],
    }
}
