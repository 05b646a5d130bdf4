//! An artifact between a folder and a bucket of a real S3 server on this machine, by `substratus publish` and `stage` and by its
//! peers, in turn. Must not look into the worker.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::child;
use super::load::Options;
use super::peers::{PROXIES, answers};
use super::place::Place;
use super::stats::mebibytes;
use super::table::Table;
use super::turns::{COLUMNS, Program, Row, Run, cores, row};
use crate::engine;
use crate::hub::Content;
use crate::s3::{ACCESS_KEY, BUCKET, S3, SECRET_KEY};

/// Files that one large file is cut into.
const SHARDS: u64 = 20;
/// The artifact that is copied out of the bucket.
const ARTIFACT: &str = "artifact";
/// Where a run copies to.
const FRESH: &str = "fresh";
/// Files by the CRT client, sixteen at a time; the checksums are boto3's own, which it adds and checks by default.
const BOTO3: &str = "\
import os, sys, boto3
from concurrent.futures import ThreadPoolExecutor
from boto3.s3.transfer import TransferConfig
what, bucket, prefix, folder = sys.argv[1:]
s3 = boto3.client('s3')
config = TransferConfig(preferred_transfer_client='crt')
def up(name): s3.upload_file(os.path.join(folder, name), bucket, prefix + '/' + name, Config=config)
def down(key): s3.download_file(bucket, key, os.path.join(folder, key[len(prefix) + 1:]), Config=config)
with ThreadPoolExecutor(16) as pool:
    if what == 'up':
        list(pool.map(up, os.listdir(folder)))
    else:
        pages = s3.get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=prefix + '/')
        list(pool.map(down, (each['Key'] for page in pages for each in page.get('Contents', []))))
";

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Peer {
    Substratus,
    Rclone,
    /// By the Python that has it.
    Boto3(PathBuf),
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Publish,
    Stage,
}

/// One way of one kind of artifact.
#[derive(Debug, Serialize)]
pub struct Measured {
    way: &'static str,
    files: u64,
    mebibytes: f64,
    place: &'static str,
    missing: Vec<String>,
    rows: Vec<Row>,
}

/// What all runs of one kind of artifact share.
struct Bench<'a> {
    options: &'a Options<'a>,
    s3: &'a S3,
    /// The files as a program that publishes finds them.
    folder: &'a Path,
    place: &'a Place,
    scratch: &'a Path,
    files: u64,
    bytes: u64,
}

/// One large file, as many bytes in some files, and `count` files of 100 kB, into a bucket and out of it.
pub fn compared(options: &Options<'_>, bytes: u64, count: u32, mut say: impl FnMut(Measured) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let s3 = S3::start(runtime.handle())?;
    let places = Place::all(4 * bytes)?;
    let place = places.first().context("there is no place to write to")?;
    let scratch = tempfile::tempdir().context("making a folder for the programs' own files")?;
    for (files, size) in [(1, bytes), (SHARDS, bytes / SHARDS), (u64::from(count), 100_000)] {
        let folder = tempfile::tempdir().context("making a folder for the artifact")?;
        fill(folder.path(), files, size)?;
        let (folder, scratch) = (folder.path(), scratch.path());
        let bench = Bench { options, s3: &s3, folder, place, scratch, files, bytes: files * size };
        for way in [Way::Publish, Way::Stage] {
            say(bench.measure(way)?)?;
        }
    }
    Ok(())
}

fn fill(folder: &Path, files: u64, size: u64) -> Result<()> {
    for number in 0..files {
        let mut file = fs::File::create(folder.join(format!("part-{number:06}.bin")))?;
        Content::noise(number, size).write_to(&mut file).context("writing the artifact")?;
        file.flush()?;
    }
    rustix::fs::sync();
    Ok(())
}

impl Bench<'_> {
    fn measure(&self, way: Way) -> Result<Measured> {
        let (peers, mut missing) = Peer::present();
        let mut runs: Vec<(Peer, Vec<Run>)> = peers.into_iter().map(|peer| (peer, Vec::new())).collect();
        self.empty(ARTIFACT)?;
        if way == Way::Stage {
            self.run(&mut Peer::Substratus.command(self, Way::Publish, ARTIFACT, self.folder), Peer::Substratus.name())?;
        }
        for turn in 0..self.options.runs {
            if turn > 0 {
                runs.reverse();
            }
            let mut failed = Vec::new();
            for (peer, runs) in &mut runs {
                match self.once(peer, way) {
                    Ok(run) => runs.push(run),
                    Err(error) if *peer == Peer::Substratus => return Err(error),
                    // One that cannot do it is out, and said to be.
                    Err(error) => {
                        let words = format!("{error:#}");
                        missing.push(format!("{} failed: {}", peer.name(), words.lines().last().unwrap_or_default()));
                        failed.push(peer.clone());
                    }
                }
            }
            runs.retain(|(peer, _)| !failed.contains(peer));
        }
        runs.sort_by_key(|(peer, _)| *peer != Peer::Substratus);
        let ours = runs.first().map_or(&[] as &[_], |(_, runs)| runs.as_slice());
        Ok(Measured {
            way: way.name(),
            files: self.files,
            mebibytes: mebibytes(self.bytes),
            place: self.place.name,
            missing,
            rows: runs.iter().filter_map(|(peer, runs)| row(peer.program(), runs, ours, self.bytes)).collect(),
        })
    }

    /// One run from or to an empty place; every file must be whole.
    fn once(&self, peer: &Peer, way: Way) -> Result<Run> {
        self.empty(FRESH)?;
        let target = self.place.target()?;
        let (mut command, found) = match way {
            Way::Publish => (peer.command(self, way, FRESH, self.folder), self.s3.object(&peer.key(FRESH))),
            Way::Stage => (peer.command(self, way, ARTIFACT, &target), peer.files_below(&target)),
        };
        let run = self.run(&mut command, peer.name())?;
        let sizes = fs::read_dir(&found).with_context(|| format!("looking for what {} copied", peer.name()))?;
        let sizes: Vec<u64> = sizes.map(|entry| Ok(entry?.metadata()?.len())).collect::<Result<_>>()?;
        ensure!(
            sizes.iter().sum::<u64>() == self.bytes,
            "{} copied {} of {} bytes",
            peer.name(),
            sizes.iter().sum::<u64>(),
            self.bytes
        );
        ensure!(sizes.len() as u64 == self.files, "{} copied {} of {} files", peer.name(), sizes.len(), self.files);
        Ok(run)
    }

    fn run(&self, command: &mut Command, name: &str) -> Result<Run> {
        let log = fs::File::create(self.scratch.join("log"))?;
        command.envs(self.env()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The server speaks no TLS, and rclone refuses to run with certificates of somebody's own.
        for unwanted in PROXIES.iter().chain(&["AWS_CA_BUNDLE"]) {
            command.env_remove(unwanted);
        }
        let before = self.s3.cpu_seconds()?;
        let (status, cost) = child::run(command)?;
        let server = self.s3.cpu_seconds()? - before;
        if !status.success() {
            bail!("{name} failed: {}", fs::read_to_string(self.scratch.join("log")).unwrap_or_default());
        }
        Ok((cost, server))
    }

    /// Without the proxy that stands before the server in tests.
    fn env(&self) -> Vec<(&'static str, String)> {
        let mut env: Vec<_> = self.s3.env().into_iter().filter(|(name, _)| *name != "AWS_ENDPOINT_URL").collect();
        env.push(("AWS_ENDPOINT_URL", self.s3.direct_url()));
        for (name, value) in [
            ("RCLONE_CONFIG_S3_TYPE", "s3"),
            ("RCLONE_CONFIG_S3_PROVIDER", "Other"),
            ("RCLONE_CONFIG_S3_ACCESS_KEY_ID", ACCESS_KEY),
            ("RCLONE_CONFIG_S3_SECRET_ACCESS_KEY", SECRET_KEY),
            ("RCLONE_CONFIG_S3_ENDPOINT", &self.s3.direct_url()),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ] {
            env.push((name, value.to_owned()));
        }
        env
    }

    fn empty(&self, key: &str) -> Result<()> {
        let place = self.s3.object(key);
        if place.exists() {
            fs::remove_dir_all(&place).context("removing the run before")?;
        }
        rustix::fs::sync();
        Ok(())
    }
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Stage => "stage",
        }
    }
}

impl Peer {
    /// All that this machine has, and who is missing.
    fn present() -> (Vec<Self>, Vec<String>) {
        let (mut peers, mut missing) = (vec![Self::Substratus], Vec::new());
        if answers("rclone") {
            peers.push(Self::Rclone);
        } else {
            missing.push("rclone is not here".to_owned());
        }
        match engine::cache().and_then(|cache| engine::bench_python(&cache)) {
            Ok(python) => peers.push(Self::Boto3(python)),
            Err(error) => missing.push(format!("boto3 is not here: {error:#}")),
        }
        (peers, missing)
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Substratus => "substratus",
            Self::Rclone => "rclone",
            Self::Boto3(_) => "boto3[crt]",
        }
    }

    /// As a row of a table: whoever compares a checksum of what was sent or received verifies.
    fn program(&self) -> Program {
        Program { name: self.name(), verifies: true, is_ours: *self == Self::Substratus }
    }

    /// Where its files lie below a prefix.
    fn key(&self, prefix: &str) -> String {
        if *self == Self::Substratus { format!("{prefix}/artifacts") } else { prefix.to_owned() }
    }

    fn files_below(&self, target: &Path) -> PathBuf {
        if *self == Self::Substratus { target.join("artifacts") } else { target.to_owned() }
    }

    /// Copies between `folder` and `prefix`; what is staged was published by us.
    fn command(&self, bench: &Bench<'_>, way: Way, prefix: &str, folder: &Path) -> Command {
        let artifacts = format!("{prefix}/artifacts");
        match (self, way) {
            (Self::Substratus, Way::Publish) => {
                let mut command = ours(bench, "publish");
                command.arg(folder).arg("--to").arg(format!("s3://{BUCKET}/{prefix}"));
                command
            }
            (Self::Substratus, Way::Stage) => {
                let mut command = ours(bench, "stage");
                command.arg(format!("s3://{BUCKET}/{prefix}")).arg("--to").arg(folder);
                command
            }
            (Self::Rclone, way) => {
                let mut command = Command::new("rclone");
                command.args([
                    "copy",
                    "--transfers=16",
                    "--checkers=16",
                    "--multi-thread-streams=16",
                    "--s3-upload-concurrency=16",
                ]);
                match way {
                    Way::Publish => command.arg(folder).arg(format!("s3:{BUCKET}/{prefix}")),
                    Way::Stage => command.arg(format!("s3:{BUCKET}/{artifacts}")).arg(folder),
                };
                command
            }
            (Self::Boto3(python), way) => {
                let mut command = Command::new(python);
                let (what, prefix) = match way {
                    Way::Publish => ("up", prefix),
                    Way::Stage => ("down", artifacts.as_str()),
                };
                command.args(["-B", "-c", BOTO3, what, BUCKET, prefix]).arg(folder);
                command
            }
        }
    }
}

fn ours(bench: &Bench<'_>, what: &str) -> Command {
    let mut command = Command::new(bench.options.own.substratus);
    command.arg(what).arg("--termination-log").arg(bench.scratch.join("outcome"));
    command
}

/// For people.
pub fn table(measured: &Measured, runs: u32) -> Table {
    let what = match measured.files {
        1 => format!("one file of {:.0} MiB", measured.mebibytes),
        files => format!("{files} files, {:.1} MiB", measured.mebibytes),
    };
    let way = if measured.way == Way::Publish.name() {
        "from disk into a bucket".to_owned()
    } else {
        format!("from a bucket into {}", measured.place)
    };
    Table {
        title: format!("{}: {what} {way}, {} cores, {runs} turns", measured.way, cores()),
        columns: COLUMNS.to_vec(),
        rows: measured.rows.iter().map(Row::cells).collect(),
        notes: measured.missing.clone(),
    }
}
