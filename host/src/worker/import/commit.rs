//! Puts the parts of all shards together in the plan's order and writes the manifest last. The result does not depend on who did
//! which shard, nor when. Fetches and decodes nothing.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;

use super::plan::{ImportPlan, SHARDS, shard_url};
use super::schema::Schema;
use super::shard::{PartRecord, ShardRecord, Work};
use crate::bucket::sink::Verified;
use crate::bucket::url::RECORDS;
use crate::bucket::{Sink, SinkError};
use crate::plugin::types::Shard;
use crate::worker::asking::refused;
use crate::worker::failure::LoadError;
use crate::worker::journal::unhex;
use crate::worker::manifest::{self, Entry, MANIFEST, Manifest};
use crate::worker::plan::check_paths;

/// Bytes copied at once.
const BLOCK: usize = 1024 * 1024;
/// Most warnings that are kept.
const MAX_WARNINGS: usize = 20;
/// Tenths of a second that somebody who did a shard has to let go of it.
const LET_GO: usize = 100;

/// Removes the files of another import, and the record that speaks of them.
pub async fn withdraw(sink: &Sink, manifest: &Manifest) -> Result<(), SinkError> {
    for file in &manifest.files {
        sink.remove(&file.path).await?;
    }
    sink.records().remove(MANIFEST).await
}

/// A part, and the shard it belongs to.
type Placed<'a> = (usize, &'a PartRecord);

/// Every shard is done: makes the artifact of them.
pub async fn commit(work: &Work, sink: &Sink, plan: &ImportPlan) -> Result<SourceStatus, LoadError> {
    let mut done: Vec<ShardRecord> = Vec::with_capacity(plan.shards.len());
    for (index, shard) in plan.shards.iter().enumerate() {
        let gone = || LoadError::unavailable(format!("what shard `{}` became is gone; run the import again", shard.name));
        done.push(work.done(index, shard).await?.ok_or_else(gone)?);
    }
    let files = arrange(&done)?;
    let mut entries = Vec::with_capacity(files.len());
    for (path, parts) in &files {
        entries.push(place(work, sink, path, parts).await?);
    }
    let source = describe(plan, &plan.shards, &done, entries.iter().map(|entry| entry.size));
    sink.settle().await?;
    manifest::write_entries(sink, &plan.inputs, &plan.revision, &source, &entries).await?;
    Sink::discard(&work.target.join(RECORDS).join(SHARDS)).await?;
    ImportPlan::remove(sink.records()).await?;
    Ok(source)
}

/// The files of the artifact, in the order in which they first appear, and the parts of each.
fn arrange(done: &[ShardRecord]) -> Result<Vec<(&str, Vec<Placed<'_>>)>, LoadError> {
    let mut files: Vec<(&str, Vec<Placed<'_>>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (index, record) in done.iter().enumerate() {
        for part in &record.parts {
            let place = *places.entry(part.path.as_str()).or_insert_with(|| {
                files.push((part.path.as_str(), Vec::new()));
                files.len() - 1
            });
            if let Some((_, parts)) = files.get_mut(place) {
                parts.push((index, part));
            }
        }
    }
    check_paths(files.iter().map(|(path, _)| *path)).map_err(|error| refused(&error.to_string()))?;
    match files.iter().find(|(_, parts)| parts.len() > 1 && parts.iter().any(|(_, part)| !part.joins)) {
        Some((path, parts)) => {
            let message = format!("{} shards write `{path}`, which cannot be joined; give each a name of its own", parts.len());
            Err(LoadError::new(reason::REFUSED, message))
        }
        None => Ok(files),
    }
}

/// Opens what a shard became. Whoever did it lets go of it a moment after its record is there.
async fn open(work: &Work, shard: usize) -> Result<Sink, SinkError> {
    let url = shard_url(&work.target, shard);
    for _ in 0..LET_GO {
        match Sink::open(&url).await {
            Err(SinkError::Busy(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            other => return other,
        }
    }
    Sink::open(&url).await
}

/// Puts one file into its place, wherever an earlier run stopped.
async fn place(work: &Work, sink: &Sink, path: &str, parts: &[Placed<'_>]) -> Result<Entry, LoadError> {
    let size = parts.iter().map(|(_, part)| part.size).sum();
    let [(shard, part)] = parts else { return joined(work, sink, path, parts).await };
    let from = open(work, *shard).await?;
    if from.finished(&part.name).await? == Some(part.size) {
        sink.adopt(&from, &part.name, path).await?;
    } else if sink.finished(path).await? != Some(size) {
        return Err(LoadError::unavailable(format!("`{path}` is gone from its shard; run the import again")));
    }
    Ok(Entry { path: path.to_owned(), size, sha256: part.sha256.clone() })
}

/// One file of several parts. They stay where they are until the manifest is written, so that this can be done again.
async fn joined(work: &Work, sink: &Sink, path: &str, parts: &[Placed<'_>]) -> Result<Entry, LoadError> {
    let file = sink.create(path, None, None).await?;
    let (mut whole, mut at, mut block) = (Sha256::new(), 0_u64, vec![0; BLOCK]);
    for (shard, part) in parts {
        let from = open(work, *shard).await?;
        let source = from.read(&part.name).await?;
        let mut own = Sha256::new();
        let mut read = 0_u64;
        while read < part.size {
            let count = source.read_at(&mut block, read).map_err(SinkError::io("read back", path))?;
            if count == 0 {
                break;
            }
            let read_now = block.get(..count).unwrap_or_default();
            own.update(read_now);
            whole.update(read_now);
            file.write_at(at, read_now).await?;
            read += count as u64;
            at += count as u64;
        }
        if Some(<[u8; 32]>::from(own.finalize())) != unhex(&part.sha256) {
            let message = format!("a part of `{path}` is not what its shard wrote; run the import again into an empty folder");
            return Err(LoadError::new(reason::DIGEST_MISMATCH, message));
        }
    }
    let verified = Verified { size: at, sha256: whole.finalize().into() };
    file.finish(verified).await?;
    Ok(Entry { path: path.to_owned(), size: at, sha256: hex::encode(verified.sha256) })
}

/// What a status will say of shards and what they became: files of these sizes. Files that hold no rows, such as a README, take
/// nothing from those that do.
pub fn describe<'a>(
    plan: &ImportPlan,
    shards: impl IntoIterator<Item = &'a Shard>,
    done: &[ShardRecord],
    sizes: impl Iterator<Item = u64> + Clone,
) -> SourceStatus {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let (mut schema, mut splits, mut warnings) = (Schema::default(), Vec::new(), plan.warnings.clone());
    for record in done {
        record.parts.iter().for_each(|part| schema.merge(&part.schema));
        warnings.extend(record.warnings.iter().cloned());
    }
    for split in shards.into_iter().filter_map(|shard| shard.split.as_ref()) {
        if !splits.contains(split) {
            splits.push(split.clone());
        }
    }
    warnings.dedup();
    warnings.truncate(MAX_WARNINGS);
    let rows = done.iter().flat_map(|record| &record.parts).filter_map(|part| part.rows).reduce(u64::saturating_add);
    SourceStatus {
        revision: Some(plan.revision.clone()),
        license: plan.license.clone(),
        partial: plan.partial.clone(),
        bytes: signed(sizes.clone().sum()),
        files: signed(sizes.count() as u64),
        rows: rows.map(signed),
        splits,
        schema: schema.columns().iter().map(|column| format!("{}: {}", column.name, column.kind)).collect(),
        warnings,
        ..SourceStatus::default()
    }
}
