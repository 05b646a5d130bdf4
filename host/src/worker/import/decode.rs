//! From a fetched file to what a shard wants: compressions undone, archives taken apart, rows as lines of JSON. Blocking, streaming,
//! and suspicious: every file here was made by somebody else. Knows no shard and no bucket.
//!
//! [`walk`] finds the files inside a file; [`rows`] reads one of them.

mod archive;
mod budget;
mod csv;
mod json;
mod parquet;

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;

use flate2::bufread::MultiGzDecoder;
use substratus_crds::conditions::reason;

pub use self::budget::Budget;
use self::budget::Metered;
use crate::plugin::types::Parsing;
use crate::worker::failure::LoadError;

/// Longest row in bytes: a row is held in memory.
pub const MAX_ROW: usize = 16 * 1024 * 1024;
/// Bytes that tell a format.
const MAGIC: usize = 512;
/// Memory that a zstd stream may ask for, as a power of two.
const ZSTD_WINDOW: u32 = 27;
const BUFFER: usize = 256 * 1024;

/// Why a file cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is not what it says it is.
    #[error("`{0}`: {1}")]
    Bad(String, String),
    /// It holds something that nobody should unpack.
    #[error("archive `{0}` is refused: {1}")]
    Unsafe(String, String),
    /// More than anybody should get out of so few bytes, or a row that is too long.
    #[error("`{0}`: {1}")]
    TooLarge(String, String),
    /// Nobody here can read it.
    #[error("`{0}`: {1}")]
    Unsupported(String, String),
    /// Whoever wanted the bytes is gone.
    #[error("nobody reads any more")]
    Stopped,
    /// Where the bytes go to failed.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<DecodeError> for LoadError {
    fn from(error: DecodeError) -> Self {
        let reason = match &error {
            DecodeError::Load(error) => return error.clone(),
            DecodeError::Bad(..) => reason::INVALID,
            DecodeError::Unsafe(..) => reason::REFUSED,
            DecodeError::TooLarge(..) => reason::TOO_LARGE,
            DecodeError::Unsupported(..) => reason::UNSUPPORTED,
            DecodeError::Stopped => reason::JOB_FAILED,
        };
        Self::new(reason, error.to_string())
    }
}

/// What a reading error means: a budget that is used up comes this way too.
pub(super) fn failed(name: &str, error: &std::io::Error) -> DecodeError {
    match budget::exhausted(error) {
        Some(why) => DecodeError::TooLarge(name.to_owned(), why),
        None => DecodeError::Bad(name.to_owned(), error.to_string()),
    }
}

/// A file that is about to be read.
pub enum Opened<'a> {
    /// On disk, so that it can be read from its end.
    File(&'a File),
    /// From its beginning on.
    Stream(Box<dyn Read + 'a>),
}

impl<'a> Opened<'a> {
    /// Its bytes, whole.
    pub fn into_stream(self) -> Box<dyn Read + 'a> {
        match self {
            Self::File(file) => Box::new(BufReader::with_capacity(BUFFER, FromStart { file, at: 0 })),
            Self::Stream(stream) => stream,
        }
    }

    /// Its first bytes, and itself again.
    fn sniff(self, name: &str) -> Result<(Vec<u8>, Self), DecodeError> {
        let mut magic = Vec::with_capacity(MAGIC);
        match self {
            Self::File(file) => {
                let start = FromStart { file, at: 0 };
                start.take(MAGIC as u64).read_to_end(&mut magic).map_err(|error| failed(name, &error))?;
                Ok((magic, Self::File(file)))
            }
            Self::Stream(mut stream) => {
                (&mut stream).take(MAGIC as u64).read_to_end(&mut magic).map_err(|error| failed(name, &error))?;
                let whole = std::io::Cursor::new(magic.clone()).chain(stream);
                Ok((magic, Self::Stream(Box::new(whole))))
            }
        }
    }
}

/// A file read by position, so that several readers share one handle.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What is called for every file found: its name, whether it is a member of an archive, its bytes.
pub type Visit<'v> = dyn FnMut(&str, bool, Opened<'_>) -> Result<(), DecodeError> + 'v;

/// Which layers may still be undone.
#[derive(Clone, Copy)]
pub struct Layers {
    compression: bool,
    archive: bool,
    /// Whether members of an archive may be compressed once more.
    deep: bool,
}

impl Layers {
    /// A compression and the archive inside; members as they are.
    pub const UNPACK: Self = Self { compression: true, archive: true, deep: false };
    /// The same, and compressed members.
    pub const ROWS: Self = Self { compression: true, archive: true, deep: true };

    const fn inside_compression(self) -> Self {
        Self { compression: false, ..self }
    }

    const fn inside_archive(self) -> Self {
        Self { compression: self.deep, archive: false, deep: false }
    }
}

/// Calls `visit` for the file itself, or for what is inside of it. Names of members are checked; links and devices are refused.
pub fn walk(name: &str, opened: Opened<'_>, budget: &Budget, layers: Layers, visit: &mut Visit<'_>) -> Result<(), DecodeError> {
    let (magic, opened) = opened.sniff(name)?;
    if layers.compression && magic.starts_with(&[0x1f, 0x8b]) {
        let stream = MultiGzDecoder::new(BufReader::with_capacity(BUFFER, opened.into_stream()));
        let stream = Opened::Stream(Box::new(Metered::new(stream, budget)));
        return walk(stem(name), stream, budget, layers.inside_compression(), visit);
    }
    if layers.compression && magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let bad = |error: std::io::Error| failed(name, &error);
        let mut stream = zstd::stream::read::Decoder::new(opened.into_stream()).map_err(bad)?;
        stream.window_log_max(ZSTD_WINDOW).map_err(bad)?;
        let stream = Opened::Stream(Box::new(Metered::new(stream, budget)));
        return walk(stem(name), stream, budget, layers.inside_compression(), visit);
    }
    if layers.archive && (magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06")) {
        return archive::zip(name, &opened, budget, layers.inside_archive(), visit);
    }
    if layers.archive && magic.get(257..262) == Some(b"ustar".as_slice()) {
        return archive::tar(name, opened, budget, layers.inside_archive(), visit);
    }
    visit(name, !layers.archive, opened)
}

/// A name without the ending of its compression.
pub fn stem(name: &str) -> &str {
    let endings = [".gz", ".zst", ".zstd"];
    endings.iter().find_map(|ending| name.strip_suffix(ending)).filter(|stem| !stem.is_empty()).unwrap_or(name)
}

/// What rows can be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    Json,
    Csv(u8),
    Parquet,
}

/// Takes one row: an object in JSON, without a line feed.
pub type Row<'r> = dyn FnMut(&[u8]) -> Result<(), DecodeError> + 'r;

/// Reads the rows of one file. `false` where it holds none: a format that nobody knows.
pub fn rows(name: &str, opened: Opened<'_>, parsing: &Parsing, budget: &Budget, row: &mut Row<'_>) -> Result<bool, DecodeError> {
    let (magic, opened) = opened.sniff(name)?;
    let Some(format) = format(name, parsing.format.as_deref(), &magic) else { return Ok(false) };
    match (format, opened) {
        (Format::Lines, opened) => json::lines(name, opened.into_stream(), row)?,
        (Format::Json, opened) => json::documents(name, opened.into_stream(), parsing.member.as_deref(), row)?,
        (Format::Csv(delimiter), opened) => csv::records(name, opened.into_stream(), delimiter, row)?,
        (Format::Parquet, Opened::File(file)) => parquet::records(name, file, budget, row)?,
        (Format::Parquet, Opened::Stream(_)) => {
            let why = "a parquet file inside of another file cannot be read; offer it by itself".to_owned();
            return Err(DecodeError::Unsupported(name.to_owned(), why));
        }
    }
    Ok(true)
}

/// By the bytes where they tell, else as asked for, else by the ending, else by the first sign.
fn format(name: &str, asked: Option<&str>, magic: &[u8]) -> Option<Format> {
    if magic.starts_with(b"PAR1") {
        return Some(Format::Parquet);
    }
    let lower = name.to_ascii_lowercase();
    let ending = asked.or_else(|| lower.rsplit_once('.').map(|(_, ending)| ending)).unwrap_or_default();
    match ending {
        "jsonl" | "ndjson" => Some(Format::Lines),
        "json" => Some(Format::Json),
        "csv" => Some(Format::Csv(b',')),
        "tsv" => Some(Format::Csv(b'\t')),
        "parquet" => Some(Format::Parquet),
        _ if lower.contains('.')
            && !ending.is_empty()
            && ending.len() <= 4
            && ending.bytes().all(|b| b.is_ascii_alphabetic()) =>
        {
            None
        }
        // A name without an ending, as URLs have them.
        _ => match magic.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{' | b'[') => Some(Format::Json),
            _ => None,
        },
    }
}

/// Rows in a file of the artifact that was not decoded, where its kind is known to hold rows.
pub fn count(name: &str, file: &File) -> Result<Option<u64>, DecodeError> {
    let stream = || BufReader::with_capacity(BUFFER, FromStart { file, at: 0 });
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("jsonl" | "ndjson") => json::count(name, stream()).map(Some),
        Some("csv") => csv::count(name, stream(), b',').map(Some),
        Some("tsv") => csv::count(name, stream(), b'\t').map(Some),
        Some("parquet") => parquet::count(name, file).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
