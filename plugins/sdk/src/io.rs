//! The streams of a transform. A transform takes the traits, so that tests read and write memory; it knows no decoding.

use serde::Serialize;

use crate::Failure;
use crate::bindings::importer::substratus::plugin::io as host;

/// Bytes asked for at once.
const READ: u32 = 256 * 1024;
/// Bytes written at once.
const WRITE: usize = 256 * 1024;

/// One input of a shard, decoded.
pub trait Input {
    /// Its path in the plan.
    fn name(&self) -> String;

    /// Up to `max` bytes; none at the end.
    fn read(&self, max: u32) -> Result<Vec<u8>, Failure>;
}

/// One file that a shard writes.
pub trait Output {
    /// Appends.
    fn write(&self, bytes: &[u8]) -> Result<(), Failure>;
}

/// The files of a shard.
pub trait Outputs {
    /// Begins a file.
    fn open(&self, path: &str) -> Result<Box<dyn Output>, Failure>;
}

impl Input for host::Reader {
    fn name(&self) -> String {
        Self::name(self)
    }

    fn read(&self, max: u32) -> Result<Vec<u8>, Failure> {
        Self::read(self, max)
    }
}

impl Output for host::Writer {
    fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        Self::write(self, bytes)
    }
}

impl Outputs for host::Outputs {
    fn open(&self, path: &str) -> Result<Box<dyn Output>, Failure> {
        Ok(Box::new(Self::open(self, path)?))
    }
}

/// What a guest was given, as transforms take it.
pub fn inputs(readers: &[host::Reader]) -> Vec<&dyn Input> {
    readers.iter().map(|reader| reader as &dyn Input).collect()
}

/// The lines of an input, without their line feeds and without blank ones: with decoding `rows`, a JSON object each.
pub struct Lines<'a> {
    input: &'a dyn Input,
    bytes: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<'a> Lines<'a> {
    /// From the beginning.
    pub fn new(input: &'a dyn Input) -> Self {
        Self { input, bytes: Vec::new(), at: 0, ended: false }
    }

    /// The next line.
    #[allow(clippy::should_implement_trait, reason = "it lends from itself")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let line = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => self.at..self.at + end,
                None if self.ended && rest.is_empty() => return Ok(None),
                None if self.ended => self.at..self.bytes.len(),
                None => {
                    self.bytes.drain(..self.at);
                    self.at = 0;
                    let more = self.input.read(READ)?;
                    self.ended = more.is_empty();
                    self.bytes.extend_from_slice(&more);
                    continue;
                }
            };
            self.at = (line.end + 1).min(self.bytes.len());
            if self.bytes.get(line.clone()).is_some_and(|line| !line.trim_ascii().is_empty()) {
                return Ok(self.bytes.get(line));
            }
        }
    }
}

/// Writes rows, each on a line, several at once.
pub struct Rows {
    output: Box<dyn Output>,
    batch: Vec<u8>,
    count: u64,
}

impl Rows {
    /// Begins a file; name it `….jsonl`, so that everybody can tell.
    pub fn open(outputs: &dyn Outputs, path: &str) -> Result<Self, Failure> {
        Ok(Self { output: outputs.open(path)?, batch: Vec::with_capacity(WRITE), count: 0 })
    }

    /// Appends a row.
    pub fn write(&mut self, row: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.batch, row).map_err(|error| Failure::Internal(format!("writing a row: {error}")))?;
        self.batch.push(b'\n');
        self.count += 1;
        if self.batch.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    /// Writes what is left; answers with the number of rows.
    pub fn finish(mut self) -> Result<u64, Failure> {
        self.flush()?;
        Ok(self.count)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.batch.is_empty() {
            self.output.write(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Pieces(RefCell<Vec<Vec<u8>>>);

    impl Input for Pieces {
        fn name(&self) -> String {
            "x".into()
        }

        fn read(&self, _: u32) -> Result<Vec<u8>, Failure> {
            Ok(self.0.borrow_mut().pop().unwrap_or_default())
        }
    }

    #[test]
    fn lines_are_whole_however_they_are_cut() {
        let text = b"one\n\n  \ntwo\nthree";
        for size in 1..=text.len() {
            let mut pieces: Vec<Vec<u8>> = text.chunks(size).map(<[u8]>::to_vec).collect();
            pieces.reverse();
            let input = Pieces(RefCell::new(pieces));
            let mut lines = Lines::new(&input);
            let mut seen = Vec::new();
            while let Some(line) = lines.next().unwrap() {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
            }
            assert_eq!(seen, ["one", "two", "three"], "{size}");
        }
    }
}
