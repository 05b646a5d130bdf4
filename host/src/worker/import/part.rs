//! One file that a shard writes: hashed and counted on the way, under its name only when it is whole. Knows nothing of who writes.

use sha2::{Digest, Sha256};

use super::decode::{self, Budget, DecodeError, Opened};
use super::schema::Schema;
use crate::bucket::sink::Verified;
use crate::bucket::{Sink, SinkError, SinkFile};
use crate::plugin::types::Parsing;

/// Bytes written at once.
const BATCH: usize = 1024 * 1024;

/// A file in work.
pub struct Part {
    path: String,
    file: SinkFile,
    hash: Sha256,
    batch: Vec<u8>,
    at: u64,
    rows: Option<Lines>,
}

/// A file that is whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Relative to the shard's files.
    pub path: String,
    /// Size and digest.
    pub verified: Verified,
    /// Rows and columns, where it holds rows.
    pub rows: Option<(u64, Schema)>,
}

/// Counts lines while they pass, and looks at the first ones.
#[derive(Default)]
struct Lines {
    rows: u64,
    /// The line that is not over yet, as long as lines are looked at.
    open: Vec<u8>,
    /// Something came after the last line feed.
    begun: bool,
    schema: Schema,
}

/// Rows that are looked at for their columns.
const LOOKED_AT: u64 = 100;
/// Bytes of a row that is looked at.
const LOOKED_INTO: usize = 1024 * 1024;

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let looking = self.rows < LOOKED_AT && self.open.len() + line.len() <= LOOKED_INTO;
            if looking {
                self.open.extend_from_slice(line);
            }
            self.begun |= !line.trim_ascii().is_empty();
            if line.ends_with(b"\n") {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        if self.begun {
            if self.rows < LOOKED_AT {
                self.schema.see(&self.open);
            }
            self.rows += 1;
        }
        self.begun = false;
        self.open.clear();
    }
}

impl Part {
    /// Begins `path` of a shard.
    pub async fn begin(sink: &Sink, path: &str) -> Result<Self, SinkError> {
        let file = sink.create(path, None, None).await?;
        let rows = is_lines(path).then(Lines::default);
        Ok(Self { path: path.to_owned(), file, hash: Sha256::new(), batch: Vec::new(), at: 0, rows })
    }

    /// Appends.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        self.batch.extend_from_slice(bytes);
        if self.batch.len() >= BATCH { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.hash.update(&self.batch);
        if let Some(rows) = &mut self.rows {
            rows.take(&self.batch);
        }
        self.file.write_at(self.at, &self.batch).await?;
        self.at += self.batch.len() as u64;
        self.batch.clear();
        Ok(())
    }

    /// Gives it its name.
    pub async fn finish(mut self) -> Result<Finished, SinkError> {
        self.flush().await?;
        let verified = Verified { size: self.at, sha256: self.hash.finalize().into() };
        self.file.finish(verified).await?;
        let rows = self.rows.map(|mut lines| {
            lines.end();
            (lines.rows, lines.schema)
        });
        Ok(Finished { path: self.path, verified, rows })
    }
}

/// Whether a file holds a row on every line.
pub fn is_lines(path: &str) -> bool {
    [".jsonl", ".ndjson"].iter().any(|ending| path.to_ascii_lowercase().ends_with(ending))
}

/// Rows and columns of a file that was not counted while it was written; nothing where it holds none, or not what its name says.
pub fn look(path: &str, file: &std::fs::File) -> Option<(u64, Schema)> {
    let count = decode::count(path, file).ok().flatten()?;
    let (mut schema, mut seen) = (Schema::default(), 0);
    let parsing = Parsing { format: None, member: None };
    let size = file.metadata().ok()?.len();
    let looked = decode::rows(path, Opened::File(file), &parsing, &Budget::of(size), &mut |row| {
        schema.see(row);
        seen += 1;
        if seen < LOOKED_AT { Ok(()) } else { Err(DecodeError::Stopped) }
    });
    matches!(looked, Ok(_) | Err(DecodeError::Stopped)).then_some((count, schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_however_they_are_cut() {
        let text = b"{\"a\":1}\n\n  \n{\"b\":\"x\"}\r\n{\"a\":2.5}";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            text.chunks(size).for_each(|piece| lines.take(piece));
            lines.end();
            assert_eq!(lines.rows, 3, "{size}");
            let columns: Vec<_> = lines.schema.columns().iter().map(|c| (c.name.as_str(), c.kind.as_str())).collect();
            assert_eq!(columns, [("a", "float"), ("b", "string")], "{size}");
        }
    }
}
