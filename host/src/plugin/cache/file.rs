//! Files of the plugin store: read as if somebody else had put them there, written whole or not at all. Knows nothing of what is in
//! them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// When a file was read last is written down as often as this.
const TOUCHED: Duration = Duration::from_hours(1);

/// What lies at a path.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A file.
    Bytes(Vec<u8>),
    /// A link, a pipe, a folder, more bytes than any file of ours has.
    Odd,
}

/// Reads a file of at most `max` bytes. A link is not followed, and a pipe not waited for.
pub(super) fn read(path: &Path, max: u64) -> io::Result<Found> {
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        // Where a link ends is nobody's business.
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Found::Odd),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > max {
        return Ok(Found::Odd);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    (&mut file).take(max).read_to_end(&mut bytes)?;
    let now = SystemTime::now();
    if metadata.modified().is_ok_and(|read| now.duration_since(read).is_ok_and(|since| since > TOUCHED)) {
        // Only a guess at what may go first: on a disk that cannot be written to it stays as it is.
        drop(file.set_modified(now));
    }
    Ok(Found::Bytes(bytes))
}

/// Writes a file that nobody else may read, to the disk.
pub(super) fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()
}

/// Removes whatever is there, a link and not where it leads.
pub(super) fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "cannot delete");
        }
        _ => {}
    }
}

/// Random bytes of the kernel's.
pub(crate) fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes))?;
    Ok(bytes)
}

/// A name that no other writer of this folder uses.
pub(crate) fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{}-{}", std::process::id(), since.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}
