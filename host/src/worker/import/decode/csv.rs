//! Rows of CSV and TSV: the first record names the columns, every value is a text. Knows nothing of files.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;

use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use super::{DecodeError, MAX_ROW, Row, failed};

/// Calls `row` for every record after the first.
pub(super) fn records(name: &str, stream: impl Read, delimiter: u8, row: &mut Row<'_>) -> Result<(), DecodeError> {
    let mut table = Table::open(stream, delimiter);
    let mut record = ByteRecord::new();
    if !table.next(name, &mut record)? {
        return Ok(());
    }
    let mut columns: Vec<String> = Vec::new();
    for field in &record {
        let column =
            serde_json::to_string(text(name, 1, field)?).map_err(|error| DecodeError::Bad(name.to_owned(), error.to_string()))?;
        if columns.contains(&column) {
            return Err(DecodeError::Bad(name.to_owned(), format!("column {column} is there twice")));
        }
        columns.push(column);
    }
    let mut json = Vec::new();
    while table.next(name, &mut record)? {
        json.clear();
        json.push(b'{');
        let line = record.position().map_or(0, csv::Position::line);
        for (column, field) in columns.iter().zip(&record) {
            if json.len() > 1 {
                json.push(b',');
            }
            json.extend_from_slice(column.as_bytes());
            json.push(b':');
            serde_json::to_writer(&mut json, text(name, line, field)?)
                .map_err(|error| DecodeError::Bad(name.to_owned(), error.to_string()))?;
        }
        json.push(b'}');
        row(&json)?;
    }
    Ok(())
}

/// How many records follow the first.
pub(super) fn count(name: &str, stream: impl Read, delimiter: u8) -> Result<u64, DecodeError> {
    let mut table = Table::open(stream, delimiter);
    let (mut record, mut records) = (ByteRecord::new(), 0_u64);
    while table.next(name, &mut record)? {
        records += 1;
    }
    Ok(records.saturating_sub(1))
}

fn text<'a>(name: &str, line: u64, field: &'a [u8]) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(field)
        .map_err(|_| DecodeError::Bad(name.to_owned(), format!("line {line} is not UTF-8 text; convert the file to UTF-8")))
}

/// The parser, with an end to how long a record may be: an open quote would take in the rest of the file.
struct Table<R> {
    reader: Reader<Guarded<R>>,
    since: Rc<Cell<usize>>,
}

struct Guarded<R> {
    inner: R,
    since: Rc<Cell<usize>>,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.since.get() > MAX_ROW {
            return Err(std::io::Error::other(format!("a record is over {MAX_ROW} bytes: is a quote left open?")));
        }
        let read = self.inner.read(buffer)?;
        self.since.set(self.since.get() + read);
        Ok(read)
    }
}

impl<R: Read> Table<R> {
    fn open(inner: R, delimiter: u8) -> Self {
        let since = Rc::new(Cell::new(0));
        let guarded = Guarded { inner, since: Rc::clone(&since) };
        Self { reader: ReaderBuilder::new().has_headers(false).delimiter(delimiter).from_reader(guarded), since }
    }

    fn next(&mut self, name: &str, record: &mut ByteRecord) -> Result<bool, DecodeError> {
        self.since.set(0);
        self.reader.read_byte_record(record).map_err(|error| match error.kind() {
            ErrorKind::Io(error) => failed(name, error),
            _ => DecodeError::Bad(name.to_owned(), error.to_string()),
        })
    }
}
