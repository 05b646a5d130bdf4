//! Files from a hub on this machine, by `substratus load` and by its peers, in turn: what it takes, and what bounds it.
//! Must not look into the worker.
//!
//! Hub and client share the machine's processors, so no run can be faster than the processor time of both, spread over all of
//! them: that is the column `bound s`. Into memory it is the only bound; a disk has its own, which is measured beside it.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::child;
use super::peers::{Own, Peer, Work};
use super::place::Place;
use super::stats::{least, mebibytes};
use super::table::Table;
use super::turns::{COLUMNS, Row, Run, cores, row};
use crate::hub::{Content, Fault, Hub, Repo, Rule};

pub(super) const REPO: &str = "bench/noise";
const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"]}"#;
const KIB: u64 = 1024;
/// Files that one large file is cut into.
const SHARDS: u64 = 20;
/// A hub that is not on this machine: how late it answers, in milliseconds, and what one connection brings.
const FAR: (u64, u64) = (50, 40_000_000);

/// Where the hub is, as far as a client can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distance {
    Near,
    Far,
}

impl Distance {
    const fn name(self) -> &'static str {
        match self {
            Self::Near => "next door",
            Self::Far => "50 ms away, 40 MB/s a connection",
        }
    }

    fn impose(self, hub: &Hub) {
        let (late, rate) = match self {
            Self::Near => return,
            Self::Far => FAR,
        };
        for rule in [Rule::api, Rule::resolve, Rule::cdn] {
            hub.fault(rule("", Fault::Latency(late)));
            hub.fault(rule("", Fault::BytesPerSecond(rate)));
        }
    }
}

/// How to measure.
#[derive(Debug)]
pub struct Options<'a> {
    /// What is measured.
    pub own: Own<'a>,
    /// Times that each program runs, in turn with the others.
    pub runs: u32,
}

/// One kind of work into one place.
#[derive(Debug, Serialize)]
pub struct Measured {
    files: usize,
    mebibytes: f64,
    hub: &'static str,
    place: &'static str,
    /// What a single core needs to hash the bytes, and the disk to keep them; only for large work.
    sha256_seconds: Option<f64>,
    write_seconds: Option<f64>,
    missing: Vec<String>,
    rows: Vec<Row>,
}

/// One large file, as many bytes in some files, and `count` files of 100 kB, from a hub next door and a quarter of the bytes from one
/// far away, where a rate binds and not their number. The first goes into memory and onto the disk, others to where most room is
/// for speed.
pub fn compared(options: &Options<'_>, bytes: u64, count: u32, mut say: impl FnMut(Measured) -> Result<()>) -> Result<()> {
    let places = Place::all(2 * bytes)?;
    for (distance, bytes) in [(Distance::Near, bytes), (Distance::Far, bytes / 4)] {
        let shards = (0..SHARDS).map(|number| format!("model-{number:05}.safetensors")).collect();
        let works = [
            Work { repo: REPO, files: vec!["model.safetensors".to_owned()], size_of_each: bytes },
            Work { repo: REPO, files: shards, size_of_each: bytes / SHARDS },
            Work { repo: REPO, files: parts(count), size_of_each: 100_000 },
        ];
        for work in &works {
            let all = distance == Distance::Near && work.files.len() == 1;
            for place in places.iter().take(if all { places.len() } else { 1 }) {
                say(measure(options, work, distance, place)?)?;
            }
        }
    }
    Ok(())
}

fn parts(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("part-{number:06}.json")).collect()
}

/// Many files of 1 KiB, onto the disk.
pub fn small(options: &Options<'_>, count: u32) -> Result<Measured> {
    let work = Work { repo: REPO, files: parts(count), size_of_each: KIB };
    measure(options, &work, Distance::Near, &Place::disk()?)
}

/// A hub that has the files of a work.
pub(super) fn hub(work: &Work, runtime: &tokio::runtime::Runtime) -> Result<Hub> {
    let files = work.files.iter().zip(1..);
    let repo = files.fold(Repo::model(work.repo).file("config.json", CONFIG), |repo, (file, seed)| {
        repo.file(file, Content::noise(seed, work.size_of_each))
    });
    Hub::builder().repo(repo).start(Ipv4Addr::LOCALHOST.into(), runtime.handle())
}

/// Runs every peer in turn, there and back again: what a run leaves behind for the next one falls on everybody alike.
fn measure(options: &Options<'_>, work: &Work, distance: Distance, place: &Place) -> Result<Measured> {
    let runtime = tokio::runtime::Runtime::new()?;
    let hub = hub(work, &runtime)?;
    distance.impose(&hub);
    let scratch = tempfile::tempdir().context("making a folder for the programs' own files")?;
    let (peers, missing) = Peer::present();
    let mut runs: Vec<(Peer, Vec<Run>)> = peers.into_iter().map(|peer| (peer, Vec::new())).collect();
    // The first load compiles the loader; all that are timed find it in the cache.
    once(&Peer::Substratus, options, work, &hub, scratch.path(), place)?;
    let bytes = work.size_of_each * work.files.len() as u64;
    let (mut sha256, mut write) = (Vec::new(), Vec::new());
    for turn in 0..options.runs {
        if turn > 0 {
            runs.reverse();
        }
        for (peer, runs) in &mut runs {
            runs.push(once(peer, options, work, &hub, scratch.path(), place)?);
        }
        if work.files.len() == 1 {
            sha256.push(hash(bytes)?);
            write.push(keep(bytes, &place.target()?)?);
        }
    }
    runs.sort_by_key(|(peer, _)| *peer != Peer::Substratus);
    let ours = runs.first().map_or(&[] as &[_], |(_, runs)| runs.as_slice());
    Ok(Measured {
        files: work.files.len(),
        mebibytes: mebibytes(bytes),
        hub: distance.name(),
        place: place.name,
        sha256_seconds: least(&sha256),
        write_seconds: least(&write),
        missing,
        rows: runs.iter().filter_map(|(peer, runs)| row(peer.program(), runs, ours, bytes)).collect(),
    })
}

/// One run into an empty folder; every file must be whole.
fn once(peer: &Peer, options: &Options<'_>, work: &Work, hub: &Hub, scratch: &Path, place: &Place) -> Result<Run> {
    let target = place.target()?;
    let mut command = peer.command(&options.own, work, hub, scratch, &target)?;
    let log = fs::File::create(scratch.join("log"))?;
    command.stdout(log.try_clone()?).stderr(log);
    let before = child::cpu_seconds(std::process::id())?;
    let (status, cost) = child::run(&mut command)?;
    // The hub is in this process, whose account takes over that of the program when it has ended.
    let hub_cpu = (child::cpu_seconds(std::process::id())? - before - cost.cpu_seconds).max(0.0);
    if !status.success() {
        bail!("{} failed: {}", peer.name(), fs::read_to_string(scratch.join("log")).unwrap_or_default());
    }
    for file in &work.files {
        let path = peer.files_below(&target).join(file);
        let size = fs::metadata(&path).with_context(|| format!("looking for what {} loaded", peer.name()))?.len();
        ensure!(size == work.size_of_each, "{} loaded {size} bytes of {} of {file}", peer.name(), work.size_of_each);
    }
    Ok((cost, hub_cpu))
}

/// What a core needs to hash so many bytes that lie in memory.
fn hash(bytes: u64) -> Result<f64> {
    let block = vec![1; 256 * 1024];
    let (began, mut hasher) = (Instant::now(), Sha256::new());
    for _ in 0..bytes / block.len() as u64 {
        hasher.update(&block);
    }
    ensure!(hasher.finalize().iter().any(|byte| *byte != 0), "a hash of zeros");
    Ok(began.elapsed().as_secs_f64())
}

/// What it takes to write so many bytes one behind the other and to make them durable.
fn keep(bytes: u64, folder: &Path) -> Result<f64> {
    let (block, began) = (vec![1; 1024 * 1024], Instant::now());
    let mut file = fs::File::create(folder.join("file"))?;
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(&block).context("writing to the target")?;
    }
    file.sync_all().context("making the target durable")?;
    Ok(began.elapsed().as_secs_f64())
}

/// For people.
pub fn table(measured: &Measured, runs: u32) -> Table {
    let what = match measured.files {
        1 => format!("one file of {:.0} MiB", measured.mebibytes),
        files => format!("{files} files, {:.1} MiB", measured.mebibytes),
    };
    let alone = |what: &str, seconds: Option<f64>| seconds.map(|seconds| format!("{what}: {seconds:.2} s"));
    let notes = [
        alone("the same bytes through SHA-256 on one core, nothing else", measured.sha256_seconds),
        alone("the same bytes written and made durable, nothing else", measured.write_seconds),
    ];
    Table {
        title: format!("load: {what} from a hub {} into {}, {} cores, {runs} turns", measured.hub, measured.place, cores()),
        columns: COLUMNS.to_vec(),
        rows: measured.rows.iter().map(Row::cells).collect(),
        notes: notes.into_iter().flatten().chain(measured.missing.clone()).collect(),
    }
}
