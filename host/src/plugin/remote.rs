//! Guests in a process of their own: one that holds no credential, no environment, no file and no way to the network, so that
//! whoever breaks out of an instance has gained nothing. This side asks, does what a guest may want of the host, judges what comes
//! back and starts the process again when it ends. Knows no Kubernetes.
//!
//! ```text
//! Plugins ─► Sandbox ──────────── Unix socket ───────────► serve ─► call::run ─► guest
//!              │  └─ exchange: http, streams, log ◄─────── link        (no files, no sockets: confine)
//!              └─ compiler ─► `substratus compile` ─► signed in the cache; its bytes and their hash go down the socket
//! ```

pub mod cli;
mod client;
mod compiler;
mod confine;
mod exchange;
mod frame;
mod link;
mod process;
mod serve;
mod strikes;
mod wire;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(super) use self::client::Sandbox;
pub(super) use self::process::Place;

/// Where guests run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// In a child of this process.
    Child {
        /// The program `substratus`.
        program: PathBuf,
    },
    /// In another container, which listens on a socket.
    Socket {
        /// Where.
        path: PathBuf,
        /// The program `substratus`, for compiling.
        program: PathBuf,
    },
    /// In this process, with all that it holds.
    Here,
}

/// How the process that runs guests fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxState {
    /// Its number, where it is a child of this process and was started.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Components that are not asked for a while, because they ended it too often.
    pub quarantined: usize,
}

impl Isolation {
    /// This very program as a child.
    pub fn child() -> Self {
        Self::Child { program: own_program() }
    }

    pub(super) fn place(self) -> Option<Place> {
        match self {
            Self::Child { program } => Some(Place { program, socket: None }),
            Self::Socket { path, program } => Some(Place { program, socket: Some(path) }),
            Self::Here => None,
        }
    }
}

/// What a mutex holds, also after somebody who had it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Also where the file was replaced since.
fn own_program() -> PathBuf {
    Path::new("/proc/self/exe").to_owned()
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "process" => Ok(Self::child()),
            "none" => Ok(Self::Here),
            path if path.starts_with('/') => Ok(Self::Socket { path: path.into(), program: own_program() }),
            _ => Err("write `process`, the absolute path of a sandbox's socket, or `none`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_or_a_path_says_where_guests_run() {
        assert_eq!("process".parse(), Ok(Isolation::child()));
        assert_eq!("".parse(), Ok(Isolation::child()), "an empty variable is an absent one");
        assert_eq!("none".parse(), Ok(Isolation::Here));
        let socket = Isolation::Socket { path: "/run/a".into(), program: "/proc/self/exe".into() };
        assert_eq!("/run/a".parse(), Ok(socket));
        assert!("run/a".parse::<Isolation>().unwrap_err().contains("absolute path"));
    }
}
