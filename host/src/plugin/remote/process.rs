//! The process that runs guests, and connections to it: a child that is killed when it is not wanted, or a socket that somebody
//! else listens on. Knows no question.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::super::PluginError;
use super::super::cache::Cache;
use super::frame::{self, Caps, Frame, FrameError};
use super::lock;
use super::wire::{Down, Up};
use crate::limits;

/// Between two attempts to reach a socket that nobody listens on yet.
const PAUSE: Duration = Duration::from_millis(20);

/// Where guests run: in a child of this process, or behind a socket.
#[derive(Clone, Debug)]
pub(in super::super) struct Place {
    pub(super) program: PathBuf,
    pub(super) socket: Option<PathBuf>,
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// Nobody listens, or it is another program.
    #[error("{0}")]
    Unreachable(String),
    /// It ended, or said what it may not.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It says nothing any more.
    #[error("it did not answer in time")]
    Silent,
}

/// A process that runs guests. A child ends with this value.
pub(super) struct Process {
    child: Option<Mutex<Child>>,
    address: PathBuf,
    /// What keeps the address: a folder that is open, and removed in the end.
    folder: Option<(File, PathBuf)>,
    /// A child ends when this is closed, whatever becomes of us.
    _lifeline: Option<StdStream>,
    /// Not registered with any runtime, so that each may come from another one.
    idle: Mutex<Vec<StdStream>>,
    dead: AtomicBool,
    work: Mutex<HashMap<String, usize>>,
}

/// A connection that somebody has to himself.
pub(super) struct Connection(BufReader<UnixStream>);

impl Process {
    /// Starts a child, or takes a socket as it is.
    pub(super) fn start(place: &Place, cache: &Cache) -> Result<Self, PluginError> {
        if let Some(path) = &place.socket {
            return Ok(Self::at(path));
        }
        let folder = cache.folder()?;
        child(&place.program, folder)
            .map_err(|source| PluginError::Store { action: "start the sandbox of plugins".to_owned(), source })
    }

    /// Whoever listens on a socket.
    pub(super) fn at(socket: &Path) -> Self {
        Self {
            child: None,
            address: socket.to_owned(),
            folder: None,
            _lifeline: None,
            idle: Mutex::default(),
            dead: AtomicBool::new(false),
            work: Mutex::default(),
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(|child| lock(child).id())
    }

    /// Whether it may be asked.
    pub(super) fn lives(&self) -> bool {
        !self.dead.load(Ordering::Acquire) && self.child.as_ref().is_none_or(|child| matches!(lock(child).try_wait(), Ok(None)))
    }

    /// Ends it. The first who does so gets the digests that were in work.
    pub(super) fn end(&self) -> Option<Vec<String>> {
        if self.dead.swap(true, Ordering::AcqRel) {
            return None;
        }
        let work = lock(&self.work).keys().cloned().collect();
        self.kill();
        Some(work)
    }

    /// As long as the guard lives, a component is in work.
    pub(super) fn work_on(&self, digest: &str) -> Work<'_> {
        *lock(&self.work).entry(digest.to_owned()).or_default() += 1;
        Work { process: self, digest: digest.to_owned() }
    }

    /// A connection, and which process is behind it where that was asked anew.
    pub(super) async fn connect(&self, engine: &str) -> Result<(Connection, Option<u64>), Lost> {
        while let Some(mut idle) = self.pop() {
            // Nothing is under way, so that the only thing to read is the end.
            let quiet = matches!(idle.read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if let (true, Ok(stream)) = (quiet, UnixStream::from_std(idle)) {
                return Ok((Connection(BufReader::new(stream)), None));
            }
        }
        let end = Instant::now() + limits::SANDBOX_START;
        let mut connection = Connection(BufReader::new(self.reach(end).await?));
        connection.write::<()>(&Down::Hello { engine: engine.to_owned() }, &[], end).await?;
        match connection.read(Caps { head: limits::FRAME_ROOM, tail: 0 }, end).await?.head {
            Up::Welcome { engine: theirs, instance } if theirs == engine => Ok((connection, Some(instance))),
            _ => Err(Lost::Unreachable("it is of another version; run both from the same image".to_owned())),
        }
    }

    /// Gives a connection back on which nothing is under way.
    pub(super) fn keep(&self, connection: Connection) {
        let unread = !connection.0.buffer().is_empty();
        if let (false, Ok(stream)) = (unread, connection.0.into_inner().into_std()) {
            lock(&self.idle).push(stream);
        }
    }

    fn pop(&self) -> Option<StdStream> {
        lock(&self.idle).pop()
    }

    async fn reach(&self, end: Instant) -> Result<UnixStream, Lost> {
        loop {
            let error = match UnixStream::connect(&self.address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            // A container may be starting; a child listens from its beginning.
            if self.child.is_some() || Instant::now() >= end {
                return Err(Lost::Unreachable(format!("nobody answers at {}: {error}", self.address.display())));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn kill(&self) {
        if let Some(child) = &self.child {
            let mut child = lock(child);
            // One that has ended cannot be killed, and is waited for all the same.
            drop(child.kill());
            if let Ok(status) = child.wait() {
                tracing::debug!(%status, "a sandbox ended");
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some((_, folder)) = &self.folder
            && let Err(error) = std::fs::remove_dir_all(folder)
        {
            tracing::warn!(folder = %folder.display(), %error, "the folder of a sandbox's socket stays");
        }
    }
}

/// A component in work.
pub(super) struct Work<'a> {
    process: &'a Process,
    digest: String,
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        let mut work = lock(&self.process.work);
        if let Some(count) = work.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                work.remove(&self.digest);
            }
        }
    }
}

impl Connection {
    /// One that is open already.
    #[cfg(test)]
    pub(super) fn over(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    /// Sends a message, and waits no longer for the other side to take it than until `end`.
    pub(super) async fn write<Q: Serialize>(&mut self, message: &Down<Q>, tail: &[u8], end: Instant) -> Result<(), Lost> {
        Ok(timeout_at(end, frame::write(&mut self.0, message, tail)).await.map_err(|_| Lost::Silent)??)
    }

    /// Until there is something to read, be it the end.
    pub(super) async fn stirs(&mut self) {
        // What is wrong shows itself to whoever reads.
        let _ = self.0.fill_buf().await;
    }

    /// The next message, if it comes until `end`.
    pub(super) async fn read(&mut self, caps: Caps, end: Instant) -> Result<Frame<Up>, Lost> {
        Ok(timeout_at(end, frame::read(&mut self.0, caps)).await.map_err(|_| Lost::Silent)??)
    }
}

/// A child with nothing but a socket to listen on, in a folder that we alone can enter. Its address leads through the open
/// folder: the path of a socket is short, and that of a cache may be long.
fn child(program: &Path, folder: PathBuf) -> io::Result<Process> {
    let open = File::open(&folder)?;
    let address = PathBuf::from(format!("/proc/self/fd/{}/socket", open.as_raw_fd()));
    let listener = UnixListener::bind(&address)?;
    let child = Command::new(program)
        .arg0("substratus")
        .args(["sandbox", "--stdin"])
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        // What is typed at a terminal is for us: we end the child.
        .process_group(0)
        .spawn()?;
    let process = Process {
        child: Some(Mutex::new(child)),
        folder: Some((open, folder)),
        _lifeline: Some(StdStream::connect(&address)?),
        address,
        idle: Mutex::default(),
        dead: AtomicBool::new(false),
        work: Mutex::default(),
    };
    Ok(process)
}
