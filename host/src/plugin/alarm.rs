//! What is told of files in the plugin store that are not what we put there. Knows nothing of who hears it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::call::Watcher;

/// What is remembered while nobody listens.
const EARLY: usize = 64;

/// What a file of the store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stored {
    /// A component, or the manifest of its image.
    Component,
    /// Native code of one.
    Code,
    /// What was found out about one.
    Note,
}

impl Stored {
    /// One word, for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Code => "code",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Component => "component",
            Self::Code => "native code",
            Self::Note => "note",
        })
    }
}

/// A file that was changed behind our back, or that somebody else put there. It was not used, and is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tampered {
    /// What it should have held.
    pub what: Stored,
    /// `sha256:…` of the component or manifest, where it is of one.
    pub digest: Option<String>,
    /// Where it was.
    pub path: PathBuf,
}

/// Tells whoever listens; what happens before anybody does is told when somebody does.
#[derive(Default)]
pub(super) struct Alarms {
    watcher: Watcher,
    early: Mutex<Vec<Tampered>>,
}

impl Alarms {
    pub(super) fn new(watcher: Watcher) -> Self {
        Self { watcher, early: Mutex::default() }
    }

    pub(super) fn raise(&self, tampered: Tampered) {
        tracing::error!(
            path = %tampered.path.display(),
            digest = tampered.digest,
            "a {} of the plugin store is not what was put there; it is deleted and made anew",
            tampered.what
        );
        if let Some(observer) = self.watcher.get() {
            observer.tampered(&tampered);
            return;
        }
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.len() < EARLY {
            early.push(tampered);
        }
    }

    /// Somebody listens now.
    pub(super) fn tell_early(&self) {
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(observer) = self.watcher.get() {
            for tampered in &early {
                observer.tampered(tampered);
            }
        }
    }
}
