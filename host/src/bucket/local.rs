//! The sink's backend for folders: every path is opened component by component below the artifact's folder, following no
//! symbolic link. Knows nothing of where bytes come from.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};

use super::sink::{SinkError, Verified};
use super::url::{ARTIFACTS, RECORDS};

/// What a file is called until it is whole.
pub const PARTIAL: &str = ".partial";

/// So many bytes are copied at a time.
const PIECE: u64 = 64 * 1024 * 1024;
/// And so many where they go through our memory.
const BUFFER: usize = 1024 * 1024;

pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One artifact in a folder: `artifacts/` and `.substratus/` beside it.
#[derive(Debug)]
pub struct LocalSink {
    artifacts: OwnedFd,
    records: super::records::Records,
    /// Held as long as the sink lives.
    _lock: File,
}

impl LocalSink {
    /// Makes the folders and takes the lock.
    pub fn open(folder: &Path) -> Result<Self, SinkError> {
        let name = folder.display().to_string();
        std::fs::create_dir_all(folder).map_err(SinkError::io("make folder", &name))?;
        let root: OwnedFd = rustix::fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| SinkError::io("open folder", &name)(error.into()))?;
        let artifacts = enter(&root, ARTIFACTS, &name)?;
        enter(&root, RECORDS, &name)?;
        let records = Records { folder: folder.join(RECORDS) };
        let lock = File::create(records.path("lock")).map_err(SinkError::io("make lock in", &name))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| SinkError::Busy(name))?;
        Ok(Self { artifacts, records: super::records::Records::Folder(records), _lock: lock })
    }

    pub(super) fn records(&self) -> &super::records::Records {
        &self.records
    }

    pub(super) fn free(&self) -> Result<u64, SinkError> {
        let space =
            rustix::fs::fstatvfs(&self.artifacts).map_err(|error| SinkError::io("ask for space in", ARTIFACTS)(error.into()))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    pub(super) fn settle(&self) -> Result<(), SinkError> {
        rustix::fs::syncfs(&self.artifacts).map_err(|error| SinkError::io("make durable", ARTIFACTS)(error.into()))
    }

    pub(super) fn create(&self, path: &str, size: Option<u64>) -> Result<LocalFile, SinkError> {
        let (folder, name) = self.folder_of(path, true)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(&folder, format!("{name}{PARTIAL}"), flags, Mode::from_raw_mode(0o664))
            .map_err(|error| SinkError::io("open", path)(error.into()))?
            .into();
        if let Some(size) = size {
            set_aside(&file, size).map_err(SinkError::io("set aside room for", path))?;
        }
        Ok(LocalFile { folder, name, path: path.to_owned(), file })
    }

    pub(super) fn finished(&self, path: &str) -> Result<Option<u64>, SinkError> {
        let (folder, name) = match self.folder_of(path, false) {
            Err(SinkError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() => Ok(u64::try_from(stat.st_size).ok()),
            Ok(_) => Err(SinkError::Refused(path.to_owned(), "something that is no regular file has this name")),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(SinkError::io("look at", path)(error.into())),
        }
    }

    pub(super) fn read(&self, path: &str) -> Result<File, SinkError> {
        let (folder, name) = self.folder_of(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&folder, &name, flags, Mode::empty());
        file.map(Into::into).map_err(|error| SinkError::io("open", path)(error.into()))
    }

    /// Takes over the finished file `name` of another artifact as `path`, without a byte moving.
    pub(super) fn adopt(&self, from: &Self, name: &str, path: &str) -> Result<(), SinkError> {
        let (there, old) = from.folder_of(name, false)?;
        let (here, new) = self.folder_of(path, true)?;
        rustix::fs::renameat(&there, &old, &here, &new)
            .and_then(|()| rustix::fs::fsync(&here))
            .map_err(|error| SinkError::io("rename", path)(error.into()))
    }

    pub(super) fn remove(&self, path: &str) -> Result<(), SinkError> {
        let (folder, name) = match self.folder_of(path, false) {
            Err(SinkError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for name in [format!("{name}{PARTIAL}"), name] {
            match rustix::fs::unlinkat(&folder, &name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(SinkError::io("remove", path)(error.into())),
            }
        }
        Ok(())
    }

    fn folder_of(&self, path: &str, make: bool) -> Result<(OwnedFd, String), SinkError> {
        folder_of(&self.artifacts, path, make)
    }
}

/// The folder below `artifacts` that holds `path`, opened one component at a time, and the file's name in it.
pub(super) fn folder_of(artifacts: &OwnedFd, path: &str, make: bool) -> Result<(OwnedFd, String), SinkError> {
    let refuse = |why| Err(SinkError::Refused(path.to_owned(), why));
    let (parents, name) = path.rsplit_once('/').map_or((None, path), |(parents, name)| (Some(parents), name));
    let mut folder = artifacts.try_clone().map_err(SinkError::io("open", path))?;
    for component in parents.into_iter().flat_map(|parents| parents.split('/')).chain([name]) {
        if matches!(component, "" | "." | "..") || component.contains('\0') {
            return refuse("it does not stay below the target");
        }
    }
    for component in parents.into_iter().flat_map(|parents| parents.split('/')) {
        folder = if make { enter(&folder, component, path)? } else { step(&folder, component, path)? };
    }
    Ok((folder, name.to_owned()))
}

/// Makes the folder `name` where it is missing, and opens it.
fn enter(parent: &OwnedFd, name: &str, path: &str) -> Result<OwnedFd, SinkError> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o775)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => step(parent, name, path),
        Err(error) => Err(SinkError::io("make folder for", path)(error.into())),
    }
}

pub(super) fn step(parent: &OwnedFd, name: &str, path: &str) -> Result<OwnedFd, SinkError> {
    rustix::fs::openat(parent, name, FOLDER, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
            SinkError::Refused(path.to_owned(), "a symbolic link or a file stands where a folder must be")
        }
        error => SinkError::io("open folder of", path)(error.into()),
    })
}

/// Gives the file its size and, where the file system can, its blocks: a full disk shows before the first byte. In memory a block
/// is a page that is filled with zeros at once, all by one core before the first byte comes, so that there it is left to the writes.
fn set_aside(file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)?;
    if size == 0 || is_memory(file) {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_memory(file: &File) -> bool {
    /// `TMPFS_MAGIC` of statfs(2).
    const TMPFS: i64 = 0x0102_1994;
    #[expect(clippy::useless_conversion, reason = "the type is another one on some platforms")]
    rustix::fs::fstatfs(file).is_ok_and(|found| i64::from(found.f_type) == TMPFS)
}

/// Copies up to `length` bytes at `offset`, within the kernel where both file systems let it.
fn copy(from: &File, to: &File, offset: u64, length: u64) -> io::Result<u64> {
    let (mut read, mut write) = (offset, offset);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), wanted) {
        Ok(copied) => Ok(copied as u64),
        Err(rustix::io::Errno::XDEV | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            let mut buffer = vec![0; wanted.min(BUFFER)];
            let read = from.read_at(&mut buffer, offset)?;
            to.write_all_at(buffer.get(..read).unwrap_or_default(), offset)?;
            Ok(read as u64)
        }
        Err(error) => Err(error.into()),
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct LocalFile {
    folder: OwnedFd,
    name: String,
    path: String,
    file: File,
}

impl LocalFile {
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.file.write_all_at(bytes, offset).map_err(SinkError::io("write", &self.path))
    }

    /// Fills an empty file with the first `size` bytes of `from`: in one step where the file system shares blocks, else piece by
    /// piece. `told` hears how far it is, and ends it by answering no. Answers whether blocks are shared.
    pub(super) fn fill(&self, from: &File, size: u64, mut told: impl FnMut(u64) -> bool) -> Result<bool, SinkError> {
        self.file.set_len(0).map_err(SinkError::io("begin", &self.path))?;
        if size > 0 && rustix::fs::ioctl_ficlone(&self.file, from).is_ok() {
            // Whoever owns the other file may have made it longer.
            self.file.set_len(size).map_err(SinkError::io("set the size of", &self.path))?;
            told(size);
            return Ok(true);
        }
        let mut done = 0;
        while done < size && told(done) {
            let copied = copy(from, &self.file, done, (size - done).min(PIECE)).map_err(SinkError::io("copy to", &self.path))?;
            if copied == 0 {
                return Err(SinkError::io("copy to", &self.path)(io::ErrorKind::UnexpectedEof.into()));
            }
            done += copied;
        }
        told(done);
        Ok(false)
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, SinkError> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(SinkError::io("read back", &self.path)),
            }
        }
    }

    pub(super) fn settle(&self, range: Range<u64>) {
        // Linux begins to write dirty pages when it is told that nobody needs them, and only forgets those that are clean: none
        // of these. Advice that is not taken costs time at the end, nothing else.
        let _ = rustix::fs::fadvise(&self.file, range.start, NonZeroU64::new(range.end - range.start), Advice::DontNeed);
    }

    pub(super) fn finish(&self, verified: Verified) -> Result<(), SinkError> {
        self.file.set_len(verified.size).map_err(SinkError::io("set the size of", &self.path))?;
        let alone = verified.is_durable_alone();
        if alone {
            self.file.sync_all().map_err(SinkError::io("make durable", &self.path))?;
        }
        let partial = format!("{}{PARTIAL}", self.name);
        rustix::fs::renameat(&self.folder, partial, &self.folder, &self.name)
            .and_then(|()| if alone { rustix::fs::fsync(&self.folder) } else { Ok(()) })
            .map_err(|error| SinkError::io("rename", &self.path)(error.into()))
    }
}

/// Our own records beside the artifact: small files, written whole or not at all.
#[derive(Clone, Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// The records of the artifact at `url`, without its lock: for reading what others leave there. Nothing where it is no folder.
    pub fn of(url: &super::BucketUrl) -> Option<Self> {
        Some(Self { folder: url.local_path()?.join(RECORDS) })
    }

    /// Where the record `name` lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Reads a record; `None` where there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SinkError> {
        match std::fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SinkError::io("read record", name)(error)),
        }
    }

    /// Writes a record through `fill`, makes it durable and puts it in place of the old one at once.
    pub fn replace(
        &self,
        name: &str,
        durable: bool,
        fill: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<(), SinkError> {
        let partial = self.path(&format!("{name}{PARTIAL}"));
        let write = || -> io::Result<()> {
            let mut out = io::BufWriter::new(File::create(&partial)?);
            fill(&mut out)?;
            let record = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            if durable {
                record.sync_all()?;
            }
            std::fs::rename(&partial, self.path(name))?;
            if durable { File::open(&self.folder)?.sync_all() } else { Ok(()) }
        };
        write().map_err(SinkError::io("write record", name))
    }

    /// Removes a record where there is one.
    pub fn remove(&self, name: &str) -> Result<(), SinkError> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SinkError::io("remove record", name)(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
