//! Rows of JSON: a line each, or the elements of a list, found without reading the list into memory. Knows nothing of files.

use std::io::{BufRead, BufReader, Read};

use serde::de::IgnoredAny;

use super::{BUFFER, DecodeError, MAX_ROW, Row, failed};

const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// Calls `row` for every line that is not blank, as it is.
pub(super) fn lines(name: &str, stream: impl Read, row: &mut Row<'_>) -> Result<(), DecodeError> {
    each_line(name, BufReader::with_capacity(BUFFER, stream), |number, line| {
        check(line).map_err(|why| DecodeError::Bad(name.to_owned(), format!("line {number}: {why}")))?;
        row(line)
    })
}

/// How many lines are not blank.
pub(super) fn count(name: &str, stream: impl BufRead) -> Result<u64, DecodeError> {
    let mut rows = 0;
    each_line(name, stream, |_, _| {
        rows += 1;
        Ok(())
    })?;
    Ok(rows)
}

fn each_line(
    name: &str,
    mut stream: impl BufRead,
    mut take: impl FnMut(u64, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        number += 1;
        (&mut stream).take(MAX_ROW as u64 + 2).read_until(b'\n', &mut line).map_err(|error| failed(name, &error))?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > MAX_ROW {
            return Err(too_long(name, number));
        }
        let text = if number == 1 { line.strip_prefix(&BOM).unwrap_or(&line) } else { &line };
        let text = text.trim_ascii();
        if !text.is_empty() {
            take(number, text)?;
        }
    }
}

fn too_long(name: &str, number: u64) -> DecodeError {
    DecodeError::TooLarge(name.to_owned(), format!("row {number} is over {} MiB", MAX_ROW >> 20))
}

/// Whether this is one object.
fn check(text: &[u8]) -> Result<(), String> {
    if text.first() != Some(&b'{') {
        return Err("a row is a JSON object, such as {\"prompt\": \"…\"}".to_owned());
    }
    serde_json::from_slice::<IgnoredAny>(text).map(drop).map_err(|error| error.to_string())
}

/// Calls `row` for every element of a list, of the list that is `member` of an object, or for every object by itself.
pub(super) fn documents(name: &str, stream: impl Read, member: Option<&str>, row: &mut Row<'_>) -> Result<(), DecodeError> {
    let mut scan = Scan { name, stream: BufReader::with_capacity(BUFFER, stream), peeked: None, row: Vec::new(), rows: 0 };
    let mut documents = 0;
    while let Some(sign) = scan.sign()? {
        if documents == 0 && sign == BOM[0] {
            for expected in BOM {
                if scan.next()? != Some(expected) {
                    return Err(scan.bad("it is neither JSON nor UTF-8"));
                }
            }
            documents = 1;
            continue;
        }
        documents = 1;
        match (sign, member) {
            (b'[', None) => scan.list(row)?,
            (b'{', Some(member)) => scan.member(member, row)?,
            _ => scan.element(row)?,
        }
    }
    Ok(())
}

struct Scan<'a, R> {
    name: &'a str,
    stream: R,
    peeked: Option<u8>,
    row: Vec<u8>,
    rows: u64,
}

impl<R: BufRead> Scan<'_, R> {
    fn bad(&self, why: impl Into<String>) -> DecodeError {
        DecodeError::Bad(self.name.to_owned(), why.into())
    }

    fn next(&mut self) -> Result<Option<u8>, DecodeError> {
        if let Some(byte) = self.peeked.take() {
            return Ok(Some(byte));
        }
        let byte = self.stream.fill_buf().map_err(|error| failed(self.name, &error))?.first().copied();
        if byte.is_some() {
            self.stream.consume(1);
        }
        Ok(byte)
    }

    /// The next byte that is no white space; it stays.
    fn sign(&mut self) -> Result<Option<u8>, DecodeError> {
        loop {
            match self.next()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                byte => {
                    self.peeked = byte;
                    return Ok(byte);
                }
            }
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), DecodeError> {
        match self.sign()? {
            Some(byte) if byte == wanted => {
                self.peeked = None;
                Ok(())
            }
            Some(byte) => Err(self.bad(format!(
                "`{}` where `{}` is needed, after row {}",
                byte.escape_ascii(),
                char::from(wanted),
                self.rows
            ))),
            None => Err(self.bad(format!("it ends in the middle, after row {}", self.rows))),
        }
    }

    /// A list whose elements are rows.
    fn list(&mut self, row: &mut Row<'_>) -> Result<(), DecodeError> {
        self.expect(b'[')?;
        if self.sign()? == Some(b']') {
            return self.expect(b']');
        }
        loop {
            self.element(row)?;
            if self.sign()? == Some(b']') {
                return self.expect(b']');
            }
            self.expect(b',')?;
        }
    }

    /// An object of which one member is a list of rows.
    fn member(&mut self, member: &str, row: &mut Row<'_>) -> Result<(), DecodeError> {
        self.expect(b'{')?;
        let mut found = false;
        while self.sign()? != Some(b'}') {
            self.value()?;
            let key: String = serde_json::from_slice(&self.row).map_err(|error| self.bad(error.to_string()))?;
            self.expect(b':')?;
            if key == member && self.sign()? == Some(b'[') {
                found = true;
                self.list(row)?;
            } else {
                self.value()?;
            }
            if self.sign()? != Some(b'}') {
                self.expect(b',')?;
            }
        }
        self.expect(b'}')?;
        if found { Ok(()) } else { Err(self.bad(format!("it has no member `{member}` with a list of rows"))) }
    }

    fn element(&mut self, row: &mut Row<'_>) -> Result<(), DecodeError> {
        self.value()?;
        self.rows += 1;
        check(&self.row).map_err(|why| self.bad(format!("row {}: {why}", self.rows)))?;
        row(&self.row)
    }

    /// Reads one value without its white space into `self.row`. Whether it is JSON is for the parser to say.
    fn value(&mut self) -> Result<(), DecodeError> {
        self.row.clear();
        let (mut depth, mut text, mut escaped, mut gap) = (0_usize, false, false, false);
        self.sign()?;
        loop {
            let Some(byte) = self.next()? else {
                return if depth == 0 && !text && !self.row.is_empty() { Ok(()) } else { Err(self.bad("it ends in the middle")) };
            };
            if self.row.len() >= MAX_ROW {
                return Err(too_long(self.name, self.rows + 1));
            }
            if text {
                self.row.push(byte);
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => text = false,
                    _ => {}
                }
                if !text && depth == 0 {
                    return Ok(());
                }
                continue;
            }
            match byte {
                b'"' => text = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' | b':' if depth == 0 => {
                    self.peeked = Some(byte);
                    return Ok(());
                }
                b'}' | b']' => depth -= 1,
                _ if byte.is_ascii_whitespace() && depth == 0 => return Ok(()),
                _ if byte.is_ascii_whitespace() => {
                    gap = true;
                    continue;
                }
                // Two words that were apart stay apart: they are a mistake.
                b',' | b':' => {}
                _ if gap => self.row.push(b' '),
                _ => {}
            }
            gap = false;
            self.row.push(byte);
            if depth == 0 && matches!(byte, b'}' | b']') {
                return Ok(());
            }
        }
    }
}
