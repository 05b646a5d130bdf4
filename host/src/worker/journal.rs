//! What a load has done so far, kept beside the files so that the next run goes on where this one ended. Knows no HTTP.
//!
//! `journal.json` holds the files in work and which of their bytes are there; it is replaced at once, some times a second.
//! `finished.jsonl` gets one line per whole file. Bytes are written before they are recorded. After a crash of the whole
//! machine (another boot, or another node) bytes may be missing that a record speaks of: files in work that have a digest find
//! out by their hash; those without one, and finished ones too small to be made durable one by one, begin again.
//!
//! In an object store bytes cannot be read back: there a file in work goes on where its parts are sent and hashed ([`Held`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::manifest::{Entry, Manifest};
use super::plan::{Plan, PlanFile};
use super::ranges::Ranges;
use super::verify;
use crate::bucket::records::Log;
use crate::bucket::sink::Verified;
use crate::bucket::upload::{Held, Record};
use crate::bucket::{Records, SinkError};

/// The record of files in work.
pub const JOURNAL: &str = "journal.json";
/// One line per whole file.
pub const FINISHED: &str = "finished.jsonl";

/// The record of one load.
#[derive(Debug)]
pub struct Journal {
    records: Records,
    state: Mutex<State>,
    /// Held while `journal.json` is replaced or removed: one at a time.
    replacing: tokio::sync::Mutex<()>,
}

/// What an earlier run left that this one does not go on with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Paths that the plan no longer has.
    pub paths: Vec<String>,
    /// Uploads, and the paths they were for.
    pub uploads: Vec<(String, String)>,
}

#[derive(Debug)]
struct State {
    document: Document,
    finished: Finished,
    log: Log,
    dirty: bool,
    /// Uploads in work, which know themselves how far they are.
    uploads: HashMap<String, Record>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    /// Load and revision that files without a digest are bound to.
    load: String,
    boot: String,
    files: BTreeMap<String, InWork>,
}

/// A file in work: bound to size and digest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InWork {
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    done: Ranges,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<Held>,
}

impl InWork {
    /// Whether what is said of the bytes can be gone on with.
    fn is_sound(&self, objects: bool) -> bool {
        match &self.held {
            Some(held) => held.is_sound(self.size) && (held.etags.is_empty() || verify::restore(&held.state).is_some()),
            None => !objects && self.done.is_sound(self.size),
        }
    }
}

/// A line of `finished.jsonl`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    load: String,
    path: String,
    size: u64,
    sha256: String,
    /// Only this boot of the machine can be sure of the bytes; absent where they are durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

type Finished = HashMap<String, Line>;

impl Journal {
    /// Reads what an earlier run left; what does not fit `plan` is forgotten, and answered with.
    pub async fn open(records: &Records, inputs: &str, plan: &Plan) -> Result<(Self, Leftovers), SinkError> {
        let load = format!("{inputs}@{}", plan.revision);
        let objects = records.outlive_the_machine();
        let boot = if objects { "any".to_owned() } else { this_boot() };
        let before = records.read(JOURNAL).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let before: Document = before.unwrap_or_default();
        let (mut finished, mut files) = (Finished::new(), before.files);
        let log = records.open_log(FINISHED, |line| remember(&mut finished, line, &boot)).await?;
        let same = before.load == load && before.boot == boot && !boot.is_empty();
        let planned: HashMap<&str, &PlanFile> = plan.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let unplanned =
            files.keys().chain(finished.keys()).filter(|path| !planned.contains_key(path.as_str())).cloned().collect();
        let mut left = Leftovers { paths: unplanned, uploads: Vec::new() };
        files.retain(|path, work| {
            let goes_on = planned.get(path.as_str()).is_some_and(|file| {
                let sha256 = file.sha256.map(hex::encode);
                let bound = if sha256.is_some() { work.sha256 == sha256 } else { same };
                bound && file.size == Some(work.size) && work.is_sound(objects)
            });
            if let Some(held) = work.held.as_ref().filter(|held| !goes_on && !held.upload.is_empty()) {
                left.uploads.push((path.clone(), held.upload.clone()));
            }
            goes_on
        });
        let document = Document { load, boot, files };
        let state = State { document, finished, log, dirty: false, uploads: HashMap::new() };
        Ok((Self { records: records.clone(), state: Mutex::new(state), replacing: tokio::sync::Mutex::default() }, left))
    }

    /// Takes over the files of a complete load whose target now gets another one.
    pub async fn adopt(records: &Records, manifest: &Manifest) -> Result<(), SinkError> {
        let load = format!("{}@{}", manifest.inputs, manifest.revision);
        let mut log = records.open_log(FINISHED, |_| {}).await?;
        for file in &manifest.files {
            let line =
                Line { load: load.clone(), path: file.path.clone(), size: file.size, sha256: file.sha256.clone(), boot: None };
            line.add_to(&mut log)?;
            // In an object store, piece by piece.
            if log.is_long() {
                records.flush_log(FINISHED, &mut log).await?;
            }
        }
        records.flush_log(FINISHED, &mut log).await
    }

    /// Size and digest of `file` where an earlier run finished it. Whether it still lies there is for the caller to see.
    pub fn finished(&self, file: &PlanFile) -> Option<Verified> {
        let state = self.state();
        let line = state.finished.get(&file.path)?;
        let sha256 = unhex(&line.sha256)?;
        let same = file.sha256.map_or(line.load == state.document.load, |planned| planned == sha256);
        (same && file.size.is_none_or(|size| size == line.size)).then_some(Verified { size: line.size, sha256 })
    }

    /// Whether an earlier run began `path` and its room is set aside already.
    pub fn begun(&self, path: &str) -> bool {
        self.state().document.files.contains_key(path)
    }

    /// What an earlier run holds of an upload of `path`.
    pub fn held(&self, path: &str) -> Option<Held> {
        self.state().document.files.get(path)?.held.clone()
    }

    /// Every upload that an earlier run holds and this one goes on with: path, and the store's name of the upload.
    pub fn uploads(&self) -> HashSet<(String, String)> {
        let state = self.state();
        let held =
            state.document.files.iter().filter_map(|(path, work)| Some((path.clone(), work.held.as_ref()?.upload.clone())));
        held.collect()
    }

    /// Begins or continues a file of known size; answers with the bytes that are there. An upload says itself which.
    pub fn begin(&self, path: &str, size: u64, sha256: Option<[u8; 32]>, upload: Option<Record>) -> Ranges {
        let mut state = self.state();
        state.dirty = true;
        let fresh = || InWork { size, sha256: sha256.map(hex::encode), ..InWork::default() };
        let work = state.document.files.entry(path.to_owned()).or_insert_with(fresh);
        if let Some(record) = upload {
            work.done = Ranges::default();
            work.done.insert(0..record.lock().unwrap_or_else(PoisonError::into_inner).0.front(size));
            let done = work.done.clone();
            state.uploads.insert(path.to_owned(), record);
            return done;
        }
        work.done.clone()
    }

    /// Bytes of a file were written. Answers how far the file is whole from its beginning.
    pub fn wrote(&self, path: &str, range: Range<u64>) -> u64 {
        let mut state = self.state();
        state.dirty = true;
        let Some(work) = state.document.files.get_mut(path) else { return 0 };
        work.done.insert(range);
        work.done.front()
    }

    /// Bytes of a file that are recorded.
    pub fn done(&self, path: &str) -> u64 {
        self.state().document.files.get(path).map_or(0, |work| work.done.len())
    }

    /// Forgets a file: it begins again.
    pub fn forget(&self, path: &str) {
        let mut state = self.state();
        state.dirty = true;
        state.document.files.remove(path);
        state.uploads.remove(path);
    }

    /// A file is whole, verified and has its name.
    pub fn finish(&self, path: &str, verified: Verified) -> Result<(), SinkError> {
        let mut state = self.state();
        state.document.files.remove(path);
        state.uploads.remove(path);
        state.dirty = true;
        let Document { load, boot, .. } = &state.document;
        let line = Line {
            load: load.clone(),
            path: path.to_owned(),
            size: verified.size,
            sha256: hex::encode(verified.sha256),
            boot: (!verified.is_durable_alone()).then(|| boot.clone()),
        };
        line.add_to(&mut state.log)
    }

    /// How long to wait between two times of writing it: in an object store that is a request.
    pub const fn pace(&self) -> Duration {
        if self.records.outlive_the_machine() { Duration::from_secs(1) } else { Duration::from_millis(100) }
    }

    /// Writes what changed since the last time. Small: it holds the files in work only.
    pub async fn flush(&self) -> Result<(), SinkError> {
        let _one = self.replacing.lock().await;
        let (document, piece) = {
            let mut state = self.state();
            let state = &mut *state;
            state.dirty |= state.document.follow(&state.uploads);
            let document = std::mem::take(&mut state.dirty).then(|| serde_json::to_vec(&state.document)).transpose();
            (document.map_err(|error| SinkError::io("write record", JOURNAL)(error.into()))?, state.log.unwritten())
        };
        // A file is finished before it is no longer in work.
        if let Some(piece) = piece {
            self.records.write_piece(FINISHED, piece).await?;
        }
        // Not made durable: what a crash of the machine may lose is handled by the boot's name and by digests.
        match document {
            Some(document) => self.records.write(JOURNAL, document).await,
            None => Ok(()),
        }
    }

    /// The load is complete and its manifest written: nothing to resume.
    pub async fn close(&self) -> Result<(), SinkError> {
        let _one = self.replacing.lock().await;
        self.records.remove(JOURNAL).await?;
        self.records.remove_log(FINISHED).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves at worst a range unrecorded: bytes fetched twice, never wrong ones.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Document {
    /// Lets the files in work follow their uploads. What was gathered and not sent is not there for a later run.
    fn follow(&mut self, uploads: &HashMap<String, Record>) -> bool {
        let mut moved = false;
        for (path, record) in uploads {
            let Some(work) = self.files.get_mut(path) else { continue };
            let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut record.1) {
                work.held = Some(record.0.clone()).filter(|held| !held.upload.is_empty());
                moved = true;
            }
        }
        moved
    }
}

impl Line {
    fn add_to(&self, log: &mut Log) -> Result<(), SinkError> {
        let mut text = serde_json::to_vec(self).map_err(|error| SinkError::io("write record", FINISHED)(error.into()))?;
        text.push(b'\n');
        log.push(&text).map_err(SinkError::io("write record", FINISHED))
    }
}

fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Takes a line that can be read and believed in this boot; the last one may be torn.
fn remember(finished: &mut Finished, line: &str, boot: &str) {
    if let Ok(line) = serde_json::from_str::<Line>(line)
        && line.boot.as_deref().is_none_or(|written| written == boot && !boot.is_empty())
    {
        finished.insert(line.path.clone(), line);
    }
}

/// The files that a load which did not end says it has finished, as far as its words can be read.
pub fn said_finished(text: &[u8]) -> impl Iterator<Item = Entry> {
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Line>(line).ok());
    lines.map(|line| Entry { path: line.path, size: line.size, sha256: line.sha256 })
}

/// What a load which did not end says of files in work, by their digests, as far as its words can be read.
pub fn said_in_work(text: &[u8]) -> HashMap<[u8; 32], InWork> {
    let document: Document = serde_json::from_slice(text).unwrap_or_default();
    document.files.into_values().filter_map(|work| Some((unhex(work.sha256.as_ref()?)?, work))).collect()
}

/// The bytes of twice as many hexadecimal characters: 32 of a SHA-256.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
