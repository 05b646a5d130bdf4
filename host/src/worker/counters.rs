//! Numbers of a running load, shared by everything that moves bytes. Knows nothing of who reads them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes of a file's name that are told.
const MAX_FILE: usize = 200;

/// Counters; all of them only ever tell the user something, none decides anything.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes of all files, as far as known.
    total: AtomicU64,
    /// Bytes on disk.
    done: AtomicU64,
    /// Bytes that came over the network in this run.
    fetched: AtomicU64,
    /// Bytes that were taken over from other artifacts.
    reused: AtomicU64,
    files: AtomicU64,
    files_done: AtomicU64,
    more: AtomicBool,
    /// The file that was begun last.
    file: Mutex<String>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes of all files, as far as known.
    pub total: u64,
    /// Bytes on disk.
    pub done: u64,
    /// Bytes that came over the network in this run.
    pub fetched: u64,
    /// Bytes that were taken over from other artifacts in this run.
    pub reused: u64,
    /// Files of the load.
    pub files: u64,
    /// Files that are whole and verified.
    pub files_done: u64,
    /// Something is left to do once every file is there.
    pub more: bool,
}

impl Counters {
    /// A load of so many files and bytes.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.files.fetch_add(files, Ordering::Relaxed);
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The files are not what it ends with.
    pub fn more_follows(&self) {
        self.more.store(true, Ordering::Relaxed);
    }

    /// A file is begun.
    pub fn begin(&self, path: &str) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.clear();
        file.push_str(path.get(..path.floor_char_boundary(MAX_FILE)).unwrap_or_default());
    }

    /// The file that was begun last, or the beginning of its name.
    pub fn current(&self) -> Option<String> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        (!file.is_empty()).then(|| file.clone())
    }

    /// Bytes arrived and are on disk.
    pub fn arrived(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes were there already.
    pub fn found(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes were taken over from another artifact.
    pub fn reused(&self, bytes: u64) {
        self.reused.fetch_add(bytes, Ordering::Relaxed);
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were taken over turned out to be no good.
    pub fn given_back(&self, bytes: u64) {
        self.reused.fetch_sub(bytes, Ordering::Relaxed);
        self.lost(bytes);
    }

    /// Bytes turned out to be no good.
    pub fn lost(&self, bytes: u64) {
        self.done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A file is whole.
    pub fn file(&self) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            total: self.total.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            fetched: self.fetched.load(Ordering::Relaxed),
            reused: self.reused.load(Ordering::Relaxed),
            files: self.files.load(Ordering::Relaxed),
            files_done: self.files_done.load(Ordering::Relaxed),
            more: self.more.load(Ordering::Relaxed),
        }
    }
}
