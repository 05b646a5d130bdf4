//! One shard from its inputs to its parts: fetched, decoded, mapped where there is something to map, and recorded last. What is
//! recorded is never done again. Knows nothing of the other shards.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use substratus_crds::conditions::reason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::importer::Importer;
use super::part::{Finished, Part, look};
use super::plan::shard_url;
use super::schema::Schema;
use super::streams::{Cause, Fetched, GuestInput, GuestOutputs, Piece, decode};
use crate::bucket::sink::Verified;
use crate::bucket::{BucketUrl, Records, Sink, SinkError};
use crate::plugin::io::Streams;
use crate::plugin::types::{Decoding, Shard, ShardReport};
use crate::worker::asking::refused;
use crate::worker::counters::Counters;
use crate::worker::egress::Egress;
use crate::worker::failure::LoadError;
use crate::worker::journal::Journal;
use crate::worker::load::{clear, keep_flushing};
use crate::worker::plan::{Plan, PlanFile};
use crate::worker::transfer::{Transfer, Tuning};

/// Name of the record of a shard that is done.
const RECORD: &str = "shard.json";
const VERSION: u32 = 1;
/// Folder of a shard that holds its inputs while they are needed.
const INPUTS: &str = "inputs";
/// How often a shard that somebody else works on is asked for again.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// What a shard became.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardRecord {
    version: u32,
    /// Hash of everything that decides the bytes.
    key: String,
    /// In the order in which they were written.
    pub parts: Vec<PartRecord>,
    /// Sentences for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A file of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartRecord {
    /// What it is called in the folder of the shard.
    pub name: String,
    /// Path in the artifact.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
    /// Rows, where it holds some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Columns.
    #[serde(default)]
    pub schema: Schema,
    /// Whether parts of the same path may follow each other in one file.
    pub joins: bool,
}

/// What all shards of a worker share.
pub struct Work {
    /// Who plans and maps.
    pub importer: Importer,
    /// The only way out.
    pub egress: Egress,
    /// How hard to try, for one shard.
    pub tuning: Tuning,
    /// Where the artifact will be.
    pub target: BucketUrl,
    /// What the user sees.
    pub counters: Arc<Counters>,
    /// Ends the work early.
    pub stop: CancellationToken,
    /// The import, its revision and its importer.
    pub identity: String,
    /// Shards that are decoded or mapped at the same time; others fetch meanwhile.
    pub making: Semaphore,
}

impl Work {
    /// What shard `index` became, where it is done.
    pub async fn done(&self, index: usize, shard: &Shard) -> Result<Option<ShardRecord>, LoadError> {
        let Some(records) = Records::of(&shard_url(&self.target, index)) else { return Ok(None) };
        let record: Option<ShardRecord> = records.read(RECORD).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(record.filter(|record| record.version == VERSION && record.key == self.key(shard)))
    }

    fn key(&self, shard: &Shard) -> String {
        let mut hash = Sha256::new();
        hash.update(self.identity.as_bytes());
        // Plain data: serialising cannot fail.
        hash.update(serde_json::to_vec(shard).unwrap_or_default());
        hex::encode(hash.finalize())
    }

    /// Does one shard, or what is missing of it; waits as long as somebody else does.
    pub async fn run(&self, index: usize, shard: &Shard) -> Result<(), LoadError> {
        while !self.attempt(index, shard).await? {
            tokio::select! {
                () = tokio::time::sleep(LOCK_PAUSE) => {}
                () = self.stop.cancelled() => return Err(interrupted()),
            }
        }
        Ok(())
    }

    /// Tells the user what there is to do.
    pub fn expect<'a>(&self, shards: impl IntoIterator<Item = &'a Shard>) {
        for input in shards.into_iter().flat_map(|shard| &shard.inputs) {
            self.counters.expect(1, input.size.unwrap_or(0));
        }
    }

    /// Tells the user of a shard that somebody else did, or an earlier run.
    pub fn count(&self, shard: &Shard) {
        self.counters.found(shard.inputs.iter().filter_map(|input| input.size).sum());
        shard.inputs.iter().for_each(|_| self.counters.file());
    }

    /// The same at once; `false` where somebody else is at it.
    pub async fn attempt(&self, index: usize, shard: &Shard) -> Result<bool, LoadError> {
        let url = shard_url(&self.target, index);
        let sink = match Sink::open(&url).await {
            Err(SinkError::Busy(_)) => return Ok(false),
            other => other?,
        };
        if self.done(index, shard).await?.is_some() {
            self.count(shard);
            return Ok(true);
        }
        let copied = !shard.mapped && matches!(shard.decoding, Decoding::Copy);
        let (parts, report) = if copied {
            (self.copy(&sink, shard).await?, None)
        } else {
            let inputs_sink = Sink::open(&url.join(INPUTS)).await?;
            let files = self.fetch(&inputs_sink, shard).await?.0;
            let mut inputs = Vec::with_capacity(files.len());
            for file in files {
                inputs.push(Fetched { file: inputs_sink.read(&file.path).await?, name: file.path });
            }
            let stopped = |_| LoadError::unavailable("the worker is stopping");
            let _turn = self.making.acquire().await.map_err(stopped)?;
            let (parts, report) = if shard.mapped {
                let (parts, report) = self.map(&sink, shard, inputs).await?;
                (parts, Some(report))
            } else {
                (native(&sink, shard, inputs).await?, None)
            };
            drop(inputs_sink);
            (parts, report)
        };
        let warnings = report.map(|report| report.warnings).unwrap_or_default();
        let record = ShardRecord { version: VERSION, key: self.key(shard), parts, warnings };
        // A record that outlives the files it speaks of would be believed. It comes last: who sees it may take the folder apart.
        sink.settle().await?;
        Sink::discard(&url.join(INPUTS)).await?;
        sink.records().replace(RECORD, true, |out| serde_json::to_writer(out, &record).map_err(Into::into)).await?;
        let rows: u64 = record.parts.iter().filter_map(|part| part.rows).sum();
        tracing::info!(shard = %shard.name, files = record.parts.len(), rows, "shard complete");
        Ok(true)
    }

    /// Fetches the inputs of a shard into `sink`, or what is missing of them.
    async fn fetch(&self, sink: &Sink, shard: &Shard) -> Result<(Vec<PlanFile>, Vec<Verified>), LoadError> {
        let files = self.importer.inputs(shard)?;
        let plan = Plan { files, ..Plan::default() };
        let (journal, left) = Journal::open(sink.records(), &self.key(shard), &plan).await?;
        clear(sink, &journal, left).await?;
        let importer = Arc::new(self.importer.clone());
        let counters = Arc::clone(&self.counters);
        let transfer = Transfer::new(self.egress.clone(), sink.clone(), journal, counters, importer, self.tuning);
        let transfer = Arc::new(transfer);
        let result = tokio::select! {
            result = Arc::clone(&transfer).run(&plan) => result,
            error = keep_flushing(&transfer) => Err(error),
            () = self.stop.cancelled() => Err(interrupted()),
        };
        transfer.journal.flush().await?;
        Ok((plan.files, result?))
    }

    /// Bytes as they are: what was fetched is what the shard became.
    async fn copy(&self, sink: &Sink, shard: &Shard) -> Result<Vec<PartRecord>, LoadError> {
        let (files, verified) = self.fetch(sink, shard).await?;
        let many = files.len() > 1;
        let mut parts = Vec::with_capacity(files.len());
        for (file, verified) in files.into_iter().zip(verified) {
            let path = if many || shard.output.is_empty() { join(&shard.output, &file.path) } else { shard.output.clone() };
            let finished = Finished { path: file.path, verified, rows: None };
            parts.push(record(sink, finished, path, false).await?);
        }
        Ok(parts)
    }

    /// Through the guest.
    async fn map(&self, sink: &Sink, shard: &Shard, inputs: Vec<Fetched>) -> Result<(Vec<PartRecord>, ShardReport), LoadError> {
        let cause = Cause::default();
        let outputs = GuestOutputs::new(sink.clone(), cause.clone());
        let input = |input| -> Box<dyn crate::plugin::io::Input> {
            Box::new(GuestInput::new(input, shard.decoding.clone(), cause.clone()))
        };
        let streams = Streams { inputs: inputs.into_iter().map(input).collect(), outputs: Box::new(outputs.clone()) };
        let transform = self.importer.transform(shard, streams);
        let answer = tokio::select! {
            answer = transform => answer,
            () = self.stop.cancelled() => Err(interrupted()),
        };
        let report = answer.map_err(|error| cause.take().unwrap_or(error))?;
        let mut parts = Vec::new();
        for finished in outputs.finish().await? {
            let path = finished.path.clone();
            parts.push(record(sink, finished, path, true).await?);
        }
        let counted: Option<u64> = parts.iter().map(|part| part.rows).sum();
        match (report.rows, counted) {
            (Some(reported), Some(counted)) if reported != counted => Err(refused(&format!(
                "shard `{}` reports {reported} rows and wrote {counted}; the importer counts wrong",
                shard.name
            ))),
            _ => Ok((parts, report)),
        }
    }
}

/// Decoded by native code alone.
async fn native(sink: &Sink, shard: &Shard, inputs: Vec<Fetched>) -> Result<Vec<PartRecord>, LoadError> {
    let as_rows = matches!(shard.decoding, Decoding::Rows(_));
    let (mut parts, mut seen) = (Vec::new(), HashSet::new());
    let mut open = if as_rows { Some(Part::begin(sink, &shard.output).await?) } else { None };
    for input in inputs {
        let archive = input.name.clone();
        let mut pieces = decode(input, shard.decoding.clone());
        while let Some(piece) = pieces.recv().await {
            match piece? {
                Piece::File(..) if as_rows => {}
                Piece::File(name, inside) => {
                    if let Some(part) = open.take() {
                        parts.push(finish(sink, part, false).await?);
                    }
                    let path = match (inside, shard.output.is_empty()) {
                        (true, _) => join(&shard.output, &name),
                        (false, true) => name,
                        (false, false) => shard.output.clone(),
                    };
                    if !seen.insert(path.to_lowercase()) {
                        let message = format!("`{archive}`: `{path}` comes twice, or differs from another file only in case");
                        return Err(LoadError::new(reason::REFUSED, message));
                    }
                    open = Some(Part::begin(sink, &path).await?);
                }
                Piece::Bytes(bytes) => {
                    if let Some(part) = &mut open {
                        part.write(&bytes).await?;
                    }
                }
            }
        }
    }
    if let Some(part) = open {
        parts.push(finish(sink, part, as_rows).await?);
    }
    Ok(parts)
}

async fn finish(sink: &Sink, part: Part, joins: bool) -> Result<PartRecord, LoadError> {
    let finished = part.finish().await?;
    let path = finished.path.clone();
    record(sink, finished, path, joins).await
}

/// The record of a file; one that was not counted while it was written is looked at now.
async fn record(sink: &Sink, finished: Finished, path: String, joins: bool) -> Result<PartRecord, LoadError> {
    let rows = if finished.rows.is_some() {
        finished.rows
    } else {
        let (file, name) = (sink.read(&finished.path).await?, path.clone());
        let looked = tokio::task::spawn_blocking(move || look(&name, &file)).await;
        // A file that only looks like rows is imported all the same.
        looked.ok().flatten()
    };
    let (rows, schema) = rows.unzip();
    let schema = schema.unwrap_or_default();
    let Verified { size, sha256 } = finished.verified;
    Ok(PartRecord { name: finished.path, path, size, sha256: hex::encode(sha256), rows, schema, joins })
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{}/{name}", folder.trim_end_matches('/')) }
}

/// Somebody told the worker to end.
pub fn interrupted() -> LoadError {
    LoadError::unavailable("the import was interrupted; the next run goes on where it stopped")
}
