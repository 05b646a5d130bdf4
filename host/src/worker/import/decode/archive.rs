//! Members of tar and zip archives, one after the other: plain files with names that stay below their folder, nothing else.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use ::tar::{Archive, PaxExtensions};
use zip::ZipArchive;

use super::budget::{Budget, Metered};
use super::{BUFFER, DecodeError, Layers, Opened, Visit, failed, walk};
use crate::worker::plan::check_paths;

/// Longest extension header of a tar: it is held in memory.
const MAX_EXTENSION: u64 = 64 * 1024;

/// The members of a tar.
pub(super) fn tar(
    name: &str,
    opened: Opened<'_>,
    budget: &Budget,
    layers: Layers,
    visit: &mut Visit<'_>,
) -> Result<(), DecodeError> {
    let bad = |error: std::io::Error| failed(name, &error);
    let mut archive = Archive::new(opened.into_stream());
    // Raw: the crate would read extension headers of any length into memory.
    let entries = archive.entries().map_err(bad)?.raw(true);
    let mut long: Option<Vec<u8>> = None;
    for entry in entries {
        let mut entry = entry.map_err(bad)?;
        budget.member().map_err(|why| DecodeError::Unsafe(name.to_owned(), why))?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() || kind.is_pax_local_extensions() {
            let extension = extension(name, &mut entry)?;
            long = if kind.is_gnu_longname() { Some(until_nul(extension)) } else { pax_path(name, &extension)? };
            continue;
        }
        if kind.is_pax_global_extensions() {
            continue;
        }
        let member = long.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let member = String::from_utf8(member)
            .map_err(|_| DecodeError::Unsafe(name.to_owned(), "the name of a member is not UTF-8".to_owned()))?;
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() && !kind.is_contiguous() {
            let shown = member.escape_debug();
            return Err(DecodeError::Unsafe(
                name.to_owned(),
                format!("`{shown}` is a link, a device or sparse; only plain files are unpacked"),
            ));
        }
        let member = safe(name, &member)?;
        walk(&member, Opened::Stream(Box::new(entry)), budget, layers, visit)?;
    }
    Ok(())
}

/// The members of a zip.
pub(super) fn zip(
    name: &str,
    opened: &Opened<'_>,
    budget: &Budget,
    layers: Layers,
    visit: &mut Visit<'_>,
) -> Result<(), DecodeError> {
    let &Opened::File(file) = opened else {
        let why = "a zip inside of another file cannot be read; offer it by itself".to_owned();
        return Err(DecodeError::Unsupported(name.to_owned(), why));
    };
    let bad = |error: zip::result::ZipError| DecodeError::Bad(name.to_owned(), error.to_string());
    let seekable = Seekable { file, at: 0 };
    let mut archive = ZipArchive::new(BufReader::with_capacity(BUFFER, seekable)).map_err(bad)?;
    for index in 0..archive.len() {
        budget.member().map_err(|why| DecodeError::Unsafe(name.to_owned(), why))?;
        let member = archive.by_index(index).map_err(bad)?;
        if member.is_dir() {
            continue;
        }
        let shown = member.name().map_err(bad)?.into_owned();
        // The upper bits say what a Unix file is; nothing there means a plain one.
        let kind = member.unix_mode().map_or(0, |mode| mode & 0o170_000);
        if member.is_symlink() || !matches!(kind, 0 | 0o100_000) {
            let shown = shown.escape_debug();
            return Err(DecodeError::Unsafe(
                name.to_owned(),
                format!("`{shown}` is a link or a device; only plain files are unpacked"),
            ));
        }
        let path = safe(name, &shown)?;
        walk(&path, Opened::Stream(Box::new(Metered::new(member, budget))), budget, layers, visit)?;
    }
    Ok(())
}

/// A member's name as a path below a folder.
fn safe(archive: &str, member: &str) -> Result<String, DecodeError> {
    let path = member.strip_prefix("./").unwrap_or(member);
    check_paths([path].into_iter()).map_err(|error| DecodeError::Unsafe(archive.to_owned(), error.to_string()))?;
    Ok(path.to_owned())
}

fn extension(name: &str, entry: &mut impl Read) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = Vec::new();
    entry.take(MAX_EXTENSION + 1).read_to_end(&mut bytes).map_err(|error| failed(name, &error))?;
    if bytes.len() as u64 > MAX_EXTENSION {
        return Err(DecodeError::Unsafe(name.to_owned(), format!("an extension header of more than {MAX_EXTENSION} bytes")));
    }
    Ok(bytes)
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn pax_path(name: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut path = None;
    for record in PaxExtensions::new(bytes) {
        let record = record.map_err(|error| failed(name, &error))?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" => {
                let why = "a member of over 8 GiB by a PAX header; repack it with `tar --format=gnu`".to_owned();
                return Err(DecodeError::Unsupported(name.to_owned(), why));
            }
            _ => {}
        }
    }
    Ok(path)
}

/// A file with a position of its own.
struct Seekable<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Seekable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Seekable<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(offset) => (self.at, offset),
            SeekFrom::End(offset) => (self.file.metadata()?.len(), offset),
        };
        self.at = base.checked_add_signed(offset).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
