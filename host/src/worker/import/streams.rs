//! Decoded inputs on their way to a guest or to files: a thread decodes, a bounded channel carries, somebody takes. Knows no plan.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::decode::{Budget, DecodeError, Layers, Opened, rows, walk};
use super::part::{Finished, Part};
use crate::bucket::Sink;
use crate::plugin::io::{Input, Output, Outputs, StreamError};
use crate::plugin::types::Decoding;
use crate::worker::failure::LoadError;

/// Bytes of one piece on its way.
const PIECE: usize = 256 * 1024;
/// Pieces on their way.
const PIECES: usize = 4;

/// What comes out of an input.
#[derive(Debug)]
pub enum Piece {
    /// A file begins: its name, and whether it is a member of an archive.
    File(String, bool),
    /// Bytes of it; of rows, whole lines.
    Bytes(Vec<u8>),
}

/// A fetched input.
#[derive(Debug)]
pub struct Fetched {
    /// Its path in the plan.
    pub name: String,
    /// Its bytes on disk.
    pub file: File,
}

/// Decodes on a thread of its own. The receiver gets an error at most once, and last.
pub fn decode(input: Fetched, decoding: Decoding) -> Receiver<Result<Piece, DecodeError>> {
    let (sender, receiver) = channel(PIECES);
    let name = input.name.clone();
    let guard = sender.clone();
    let thread = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces { sender: &sender, bytes: Vec::new() };
        match run(&input, &decoding, &mut pieces).and_then(|()| pieces.flush()) {
            Ok(()) | Err(DecodeError::Stopped) => {}
            // Nobody who is gone can be told.
            Err(error) => drop(sender.blocking_send(Err(error))),
        }
    });
    tokio::spawn(async move {
        // A parser that met something nobody thought of: bad data, not the end of the worker.
        if thread.await.is_err() {
            let _ = guard.send(Err(DecodeError::Bad(name, "the file is broken: its parser gave up".to_owned()))).await;
        }
    });
    receiver
}

fn run(input: &Fetched, decoding: &Decoding, pieces: &mut Pieces<'_>) -> Result<(), DecodeError> {
    let (name, file) = (input.name.as_str(), Opened::File(&input.file));
    let size = input.file.metadata().map_err(|error| DecodeError::Bad(name.to_owned(), error.to_string()))?.len();
    let budget = Budget::of(size);
    match decoding {
        Decoding::Copy => pieces.whole(name, false, file),
        Decoding::Unpack => {
            walk(name, file, &budget, Layers::UNPACK, &mut |name, inside, opened| pieces.whole(name, inside, opened))
        }
        Decoding::Rows(parsing) => {
            let mut found = false;
            walk(name, file, &budget, Layers::ROWS, &mut |member, inside, opened| {
                let known = rows(member, opened, parsing, &budget, &mut |row| pieces.line(row))?;
                found |= known;
                if known || inside {
                    return Ok(());
                }
                let why =
                    "its rows cannot be told; name the format (jsonl, json, csv, tsv or parquet), or import the file as it is";
                Err(DecodeError::Unsupported(member.to_owned(), why.to_owned()))
            })?;
            if found {
                return Ok(());
            }
            let why = "the archive holds no file with rows: jsonl, json, csv or tsv";
            Err(DecodeError::Unsupported(name.to_owned(), why.to_owned()))
        }
    }
}

struct Pieces<'a> {
    sender: &'a Sender<Result<Piece, DecodeError>>,
    bytes: Vec<u8>,
}

impl Pieces<'_> {
    fn send(&self, piece: Piece) -> Result<(), DecodeError> {
        self.sender.blocking_send(Ok(piece)).map_err(|_| DecodeError::Stopped)
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::replace(&mut self.bytes, Vec::with_capacity(PIECE));
        self.send(Piece::Bytes(bytes))
    }

    fn line(&mut self, row: &[u8]) -> Result<(), DecodeError> {
        if self.bytes.len() + row.len() + 1 > PIECE {
            self.flush()?;
        }
        self.bytes.extend_from_slice(row);
        self.bytes.push(b'\n');
        Ok(())
    }

    fn whole(&mut self, name: &str, inside: bool, opened: Opened<'_>) -> Result<(), DecodeError> {
        self.send(Piece::File(name.to_owned(), inside))?;
        let mut stream = opened.into_stream();
        loop {
            let mut bytes = Vec::with_capacity(PIECE);
            let read = (&mut stream).take(PIECE as u64).read_to_end(&mut bytes);
            if read.map_err(|error| super::decode::failed(name, &error))? == 0 {
                return Ok(());
            }
            self.send(Piece::Bytes(bytes))?;
        }
    }
}

/// Why a shard's streams ended, kept for whoever asks after the guest is gone.
#[derive(Clone, Debug, Default)]
pub struct Cause(Arc<Mutex<Option<LoadError>>>);

impl Cause {
    fn keep(&self, error: LoadError) -> StreamError {
        let told = StreamError(error.to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        told
    }

    /// The first thing that went wrong.
    pub fn take(&self) -> Option<LoadError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A decoded input, as a guest reads it. Decoding begins with the first read.
pub struct GuestInput {
    name: String,
    waiting: Option<(Fetched, Decoding)>,
    pieces: Option<Receiver<Result<Piece, DecodeError>>>,
    left: Vec<u8>,
    at: usize,
    cause: Cause,
}

impl GuestInput {
    /// An input that nobody has read from.
    pub fn new(input: Fetched, decoding: Decoding, cause: Cause) -> Self {
        let name = input.name.clone();
        Self { name, waiting: Some((input, decoding)), pieces: None, left: Vec::new(), at: 0, cause }
    }

    async fn next(&mut self, max: usize) -> Result<Vec<u8>, StreamError> {
        if let Some((input, decoding)) = self.waiting.take() {
            self.pieces = Some(decode(input, decoding));
        }
        while self.at == self.left.len() {
            let Some(pieces) = &mut self.pieces else { return Ok(Vec::new()) };
            match pieces.recv().await {
                Some(Ok(Piece::Bytes(bytes))) => (self.left, self.at) = (bytes, 0),
                Some(Ok(Piece::File(..))) => {}
                Some(Err(error)) => return Err(self.cause.keep(error.into())),
                None => {
                    self.pieces = None;
                    return Ok(Vec::new());
                }
            }
        }
        let left = self.left.get(self.at..).unwrap_or_default();
        let taken = if left.len() <= max {
            left
        } else {
            let window = left.get(..max).unwrap_or_default();
            let lines = window.iter().rposition(|byte| *byte == b'\n').map_or(max, |end| end + 1);
            left.get(..lines).unwrap_or_default()
        };
        self.at += taken.len();
        Ok(taken.to_vec())
    }
}

impl Input for GuestInput {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<u8>, StreamError>> {
        self.next(max).boxed()
    }
}

/// A file of a shard: at first it is written, then it is whole.
enum Slot {
    Open(Part),
    Whole(Finished),
    /// It could not be made whole.
    Lost,
}

type Slots = Arc<tokio::sync::Mutex<Vec<Slot>>>;

/// The files of a shard that a guest writes.
#[derive(Clone)]
pub struct GuestOutputs {
    sink: Sink,
    cause: Cause,
    slots: Slots,
    /// Places of files that the guest has let go of.
    dropped: Arc<Mutex<Vec<usize>>>,
}

impl GuestOutputs {
    /// Files below the folder of a shard.
    pub fn new(sink: Sink, cause: Cause) -> Self {
        Self { sink, cause, slots: Arc::default(), dropped: Arc::default() }
    }

    /// Makes the files whole that the guest has let go of: thousands of open ones would be too many for the system.
    async fn sweep(&self) -> Result<(), LoadError> {
        let dropped = std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner));
        let mut slots = self.slots.lock().await;
        for index in dropped {
            let Some(slot) = slots.get_mut(index) else { continue };
            if let Slot::Open(part) = std::mem::replace(slot, Slot::Lost) {
                *slot = Slot::Whole(part.finish().await?);
            }
        }
        Ok(())
    }

    /// Makes all of them whole; only after a guest that returned well.
    pub async fn finish(self) -> Result<Vec<Finished>, LoadError> {
        let slots = std::mem::take(&mut *self.slots.lock().await);
        let mut finished = Vec::with_capacity(slots.len());
        for slot in slots {
            match slot {
                Slot::Open(part) => finished.push(part.finish().await?),
                Slot::Whole(file) => finished.push(file),
                Slot::Lost => return Err(LoadError::unavailable("a file of the shard could not be finished")),
            }
        }
        Ok(finished)
    }
}

impl Outputs for GuestOutputs {
    fn open<'a>(&'a mut self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn Output>, StreamError>> {
        async move {
            self.sweep().await.map_err(|error| self.cause.keep(error))?;
            let part = Part::begin(&self.sink, path).await.map_err(|error| self.cause.keep(error.into()))?;
            let mut slots = self.slots.lock().await;
            slots.push(Slot::Open(part));
            let index = slots.len() - 1;
            let (slots, dropped) = (Arc::clone(&self.slots), Arc::clone(&self.dropped));
            Ok(Box::new(GuestOutput { slots, dropped, index, cause: self.cause.clone() }) as Box<dyn Output>)
        }
        .boxed()
    }
}

struct GuestOutput {
    slots: Slots,
    dropped: Arc<Mutex<Vec<usize>>>,
    index: usize,
    cause: Cause,
}

impl Output for GuestOutput {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StreamError>> {
        async move {
            match self.slots.lock().await.get_mut(self.index) {
                Some(Slot::Open(part)) => part.write(&bytes).await.map_err(|error| self.cause.keep(error.into())),
                _ => Err(StreamError("the file is closed already".to_owned())),
            }
        }
        .boxed()
    }
}

impl Drop for GuestOutput {
    fn drop(&mut self) {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}
