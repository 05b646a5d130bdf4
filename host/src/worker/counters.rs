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
    /// Files in work, the longest first.
    working: Mutex<Vec<String>>,
}

/// A file in work, until it is dropped.
#[derive(Debug)]
pub struct Working<'a> {
    counters: &'a Counters,
    path: &'a str,
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut working = self.counters.working.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = working.iter().position(|path| path == self.path) {
            working.remove(place);
        }
    }
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

    /// Bytes arrived and are on disk.
    pub fn arrived(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes arrived again that are on disk already.
    pub fn repeated(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
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

    /// A file is in work for as long as the answer lives.
    pub fn working<'a>(&'a self, path: &'a str) -> Working<'a> {
        let path = path.get(..path.floor_char_boundary(MAX_FILE)).unwrap_or_default();
        self.working.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_owned());
        Working { counters: self, path }
    }

    /// The file that has been in work for longest, and how many others are.
    pub fn current(&self) -> Option<(String, usize)> {
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        working.first().map(|path| (path.clone(), working.len() - 1))
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
