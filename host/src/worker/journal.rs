//! What a load has done so far, kept beside the files so that the next run goes on where this one ended. Knows no HTTP.
//!
//! `journal.json` holds the files in work and which of their bytes are there; it is replaced at once, some times a second.
//! `finished.jsonl` gets one line per whole file. Bytes are written before they are recorded. After a crash of the whole
//! machine (another boot, or another node) bytes may be missing that a record speaks of: files in work that have a digest find
//! out by their hash; those without one, and finished ones too small to be made durable one by one, begin again.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::plan::{Plan, PlanFile};
use super::ranges::Ranges;
use crate::bucket::SinkError;
use crate::bucket::local::Records;
use crate::bucket::sink::Verified;

const JOURNAL: &str = "journal.json";
const FINISHED: &str = "finished.jsonl";

/// The record of one load.
#[derive(Debug)]
pub struct Journal {
    records: Records,
    state: Mutex<State>,
    /// Held while `journal.json` is replaced or removed: one at a time.
    replacing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    document: Document,
    finished: Finished,
    log: File,
    dirty: bool,
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
struct InWork {
    size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    done: Ranges,
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
    /// Reads what an earlier run left; what does not fit `plan` is forgotten. Answers with the paths that this plan no longer has.
    pub fn open(records: &Records, inputs: &str, plan: &Plan) -> Result<(Self, Vec<String>), SinkError> {
        let load = format!("{inputs}@{}", plan.revision);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let before: Document = records.read(JOURNAL)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let same_boot = !boot.is_empty() && before.boot == boot;
        let same_load = before.load == load;
        let mut files = before.files;
        let finished = read_finished(records, &boot)?;
        let planned: HashMap<&str, &PlanFile> = plan.files.iter().map(|file| (file.path.as_str(), file)).collect();
        let unplanned =
            files.keys().chain(finished.keys()).filter(|path| !planned.contains_key(path.as_str())).cloned().collect();
        files.retain(|path, work| {
            planned.get(path.as_str()).is_some_and(|file| {
                let sha256 = file.sha256.map(hex::encode);
                let bound = if sha256.is_some() { work.sha256 == sha256 } else { same_load && same_boot };
                bound && file.size == Some(work.size) && work.done.is_sound(work.size)
            })
        });
        let document = Document { load, boot, files };
        let log = File::options()
            .create(true)
            .append(true)
            .open(records.path(FINISHED))
            .map_err(SinkError::io("open record", FINISHED))?;
        let state = State { document, finished, log, dirty: false };
        Ok((Self { records: records.clone(), state: Mutex::new(state), replacing: Mutex::default() }, unplanned))
    }

    /// Takes over the files of a complete load whose target now gets another one.
    pub fn adopt(records: &Records, manifest: &Manifest) -> Result<(), SinkError> {
        let load = format!("{}@{}", manifest.inputs, manifest.revision);
        let log = File::options()
            .create(true)
            .append(true)
            .open(records.path(FINISHED))
            .map_err(SinkError::io("open record", FINISHED))?;
        let mut log = BufWriter::new(log);
        for file in &manifest.files {
            let line =
                Line { load: load.clone(), path: file.path.clone(), size: file.size, sha256: file.sha256.clone(), boot: None };
            serde_json::to_writer(&mut log, &line)
                .map_err(Into::into)
                .and_then(|()| log.write_all(b"\n"))
                .map_err(SinkError::io("write record", FINISHED))?;
        }
        log.into_inner()
            .map_err(|error| SinkError::io("write record", FINISHED)(error.into_error()))?
            .sync_all()
            .map_err(SinkError::io("write record", FINISHED))
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

    /// Begins or continues a file of known size; answers with the bytes that are there.
    pub fn begin(&self, path: &str, size: u64, sha256: Option<[u8; 32]>) -> Ranges {
        let mut state = self.state();
        state.dirty = true;
        let fresh = || InWork { size, sha256: sha256.map(hex::encode), done: Ranges::default() };
        state.document.files.entry(path.to_owned()).or_insert_with(fresh).done.clone()
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
    }

    /// A file is whole, verified and has its name.
    pub fn finish(&self, path: &str, verified: Verified) -> Result<(), SinkError> {
        let mut state = self.state();
        state.document.files.remove(path);
        state.dirty = true;
        let Document { load, boot, .. } = &state.document;
        let line = Line {
            load: load.clone(),
            path: path.to_owned(),
            size: verified.size,
            sha256: hex::encode(verified.sha256),
            boot: (!verified.is_durable_alone()).then(|| boot.clone()),
        };
        let mut text = serde_json::to_vec(&line).map_err(|error| SinkError::io("write record", FINISHED)(error.into()))?;
        text.push(b'\n');
        state.log.write_all(&text).map_err(SinkError::io("write record", FINISHED))
    }

    /// Writes what changed since the last time. Blocking; small: it holds the files in work only.
    pub fn flush(&self) -> Result<(), SinkError> {
        let _one = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = {
            let mut state = self.state();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            serde_json::to_vec(&state.document).map_err(|error| SinkError::io("write record", JOURNAL)(error.into()))?
        };
        // Not made durable: what a crash of the machine may lose is handled by the boot's name and by digests.
        self.records.replace(JOURNAL, false, |out| out.write_all(&bytes))
    }

    /// The load is complete and its manifest written: nothing to resume.
    pub fn close(&self) -> Result<(), SinkError> {
        let _one = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        self.records.remove(JOURNAL)?;
        self.records.remove(FINISHED)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves at worst a range unrecorded: bytes fetched twice, never wrong ones.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines that can be read and believed in this boot; the last one may be torn.
fn read_finished(records: &Records, boot: &str) -> Result<Finished, SinkError> {
    let file = match File::open(records.path(FINISHED)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Finished::new()),
        Err(error) => return Err(SinkError::io("read record", FINISHED)(error)),
    };
    let mut finished = Finished::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(SinkError::io("read record", FINISHED))?;
        if let Ok(line) = serde_json::from_str::<Line>(&line)
            && line.boot.as_deref().is_none_or(|written| written == boot && !boot.is_empty())
        {
            finished.insert(line.path.clone(), line);
        }
    }
    Ok(finished)
}

/// The 32 bytes of 64 hexadecimal characters.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::super::plan::Origin;
    use super::*;
    use crate::bucket::{BucketUrl, Sink};

    fn plan(revision: &str, digest: Option<u8>) -> Plan {
        let url = Url::parse("https://hub.example/f").unwrap();
        let origin = Origin { url, headers: http::HeaderMap::new(), auth: None, expires: None };
        let file = PlanFile { path: "f".into(), size: Some(10), sha256: digest.map(|byte| [byte; 32]), origin };
        Plan { revision: revision.into(), files: vec![file], ..Plan::default() }
    }

    async fn sink(folder: &tempfile::TempDir) -> Sink {
        Sink::open(&BucketUrl::of_folder(folder.path()).unwrap()).await.unwrap()
    }

    fn reopened(sink: &Sink, plan: &Plan) -> (u64, Vec<String>) {
        let (journal, stale) = Journal::open(sink.records(), "inputs", plan).unwrap();
        (journal.done("f"), stale)
    }

    #[tokio::test]
    async fn work_goes_on_only_for_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let sink = sink(&folder).await;
        for digest in [Some(1), None] {
            let (journal, _) = Journal::open(sink.records(), "inputs", &plan("a", digest)).unwrap();
            journal.forget("f");
            journal.begin("f", 10, digest.map(|byte| [byte; 32]));
            assert_eq!((journal.wrote("f", 4..6), journal.wrote("f", 0..4)), (0, 6));
            journal.flush().unwrap();
            assert_eq!(reopened(&sink, &plan("a", digest)).0, 6);
            assert_eq!(
                reopened(&sink, &plan("b", digest)).0,
                if digest.is_some() { 6 } else { 0 },
                "a digest outlives its revision"
            );
            assert_eq!(reopened(&sink, &plan("a", Some(2))).0, 0);
            assert_eq!(reopened(&sink, &Plan::default()), (0, vec!["f".to_owned()]));
        }
    }

    #[tokio::test]
    async fn another_boot_is_not_trusted_without_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let sink = sink(&folder).await;
        let (journal, _) = Journal::open(sink.records(), "inputs", &plan("a", None)).unwrap();
        journal.begin("f", 10, None);
        journal.wrote("f", 0..5);
        journal.flush().unwrap();
        let path = sink.records().path(JOURNAL);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut document: Document = serde_json::from_str(&text).unwrap();
        document.boot = "another".into();
        std::fs::write(&path, serde_json::to_string(&document).unwrap()).unwrap();
        assert_eq!(reopened(&sink, &plan("a", None)).0, 0);
    }

    #[tokio::test]
    async fn finished_files_are_known_again_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let sink = sink(&folder).await;
        let verified = Verified { size: 10, sha256: [1; 32] };
        let (journal, _) = Journal::open(sink.records(), "inputs", &plan("a", None)).unwrap();
        journal.finish("f", verified).unwrap();
        let path = sink.records().path(FINISHED);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{}", text.get(..20).unwrap())).unwrap();
        let finished = |plan: &Plan| Journal::open(sink.records(), "inputs", plan).unwrap().0.finished(&plan.files[0]);
        assert_eq!(finished(&plan("a", None)), Some(verified));
        assert_eq!(finished(&plan("b", None)), None);
        assert_eq!(finished(&plan("b", Some(1))), Some(verified));
        assert_eq!(finished(&plan("a", Some(2))), None);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(&path, text.replace(boot.trim(), "another")).unwrap();
        assert_eq!(finished(&plan("a", None)), None, "small, and perhaps not on the disk when the machine went down");
    }

    #[test]
    fn digests_are_read_strictly() {
        assert_eq!(unhex(&hex::encode([0xab; 32])), Some([0xab; 32]));
        assert_eq!(unhex("ab"), None);
        assert_eq!(unhex(&"+1".repeat(32)), None);
    }
}
