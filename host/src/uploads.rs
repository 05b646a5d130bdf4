//! Sources that users send for their images: the newest of each object, on the operator's own disk until something newer needs the
//! room. A body is measured and hashed, not believed. Knows nothing of HTTP, nor of how an image is built.
//!
//! ```text
//! <kind>/<namespace>/<name>/<md5>.tar.gz   whole, and what its ticket says
//! tmp/                                     on its way
//! ```

pub mod ticket;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use substratus_crds::UploadSource;
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use crate::plugin::random;
use crate::reconcile::trigger::{self, Trigger};
use ticket::{NoTicket, Signer, Subject, Ticket};

/// Uploads that are under way at a time.
const AT_A_TIME: usize = 8;
/// Refusals that are remembered.
const REMEMBERED: usize = 1024;

/// What users sent.
#[derive(Debug)]
pub struct Uploads {
    root: PathBuf,
    /// Where clients reach us.
    url: Url,
    /// Bytes for all of it together.
    room: u64,
    signer: Signer,
    /// Whoever waits for an upload.
    arrived: UnboundedSender<Trigger>,
    now: fn() -> Timestamp,
    under_way: Mutex<Vec<u64>>,
    refused: Mutex<HashMap<Subject, (String, String)>>,
}

/// An upload is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is not what was announced, and what it should be.
    #[error("{0}")]
    Differs(String),
    /// It is more than there may be.
    #[error(
        "the upload has {size} bytes, and there is room for {room}; the setting UPLOADS_MIB gives more, a .dockerignore less"
    )]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The room for all uploads together.
        room: u64,
    },
    /// Others are at it.
    #[error("others send at the same time, try again")]
    Busy,
    /// The disk does not do its work.
    #[error("the upload cannot be kept now, try again")]
    Disk(#[from] io::Error),
}

impl Uploads {
    /// Keeps uploads below `folder`, which may take `room` bytes together, for clients that reach us at `url`; whoever waits is told
    /// by `arrived`.
    pub fn open(
        folder: &Path,
        url: Url,
        room: u64,
        arrived: UnboundedSender<Trigger>,
        now: fn() -> Timestamp,
    ) -> io::Result<Self> {
        let tmp = folder.join("tmp");
        // What was on its way when we ended comes again, or never.
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(&tmp)?,
        }
        let signer = Signer::new(random()?);
        let (under_way, refused) = (Mutex::default(), Mutex::default());
        Ok(Self { root: folder.to_owned(), url, room, signer, arrived, now, under_way, refused })
    }

    /// The URL for one PUT of what a user announced.
    pub fn url(&self, subject: &Subject, upload: &UploadSource, expires: Timestamp) -> String {
        self.signer.url(&self.url, &Ticket::of(subject.clone(), upload, expires.as_second())).into()
    }

    /// The ticket that a URL is.
    pub fn ticket(&self, subject: Subject, query: &str) -> Result<Ticket, NoTicket> {
        self.signer.check(subject, query, (self.now)().as_second())
    }

    /// Whether it is here; what the object has had before goes.
    pub fn has(&self, subject: &Subject, md5: &str) -> bool {
        let wanted = self.file(subject, md5);
        for other in files(&self.folder(subject)).into_iter().filter(|(path, ..)| *path != wanted) {
            remove(&other.0);
        }
        wanted.is_file()
    }

    /// Why the last one was not taken that was sent for this request.
    pub fn refusal(&self, subject: &Subject, request: &str) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(subject).filter(|(of, _)| of == request).map(|(_, why)| why.clone())
    }

    /// The file of an upload that is here.
    pub fn open_file(&self, subject: &Subject, md5: &str) -> io::Result<File> {
        File::open(self.file(subject, md5))
    }

    /// Begins to take one of `size` bytes.
    pub fn begin(self: &Arc<Self>, ticket: Ticket, size: u64) -> Result<Incoming, Refusal> {
        if let Some(said) = ticket.asked.size.filter(|said| *said != size) {
            return Err(self.refuse(&ticket, format!("the body has {size} bytes, and spec.build.upload.sizeBytes says {said}")));
        }
        if size > self.room {
            let refusal = Refusal::TooLarge { size, room: self.room };
            self.refuse(&ticket, refusal.to_string());
            return Err(refusal);
        }
        let place = self.reserve(size)?;
        let path = self.root.join("tmp").join(crate::plugin::unique());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let sums = (Md5::new(), Sha256::new());
        Ok(Incoming { ticket, size, written: 0, file, path, sums, place })
    }

    /// Remembers why, and has the object say it.
    fn refuse(&self, ticket: &Ticket, why: String) -> Refusal {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REMEMBERED {
            refused.clear();
        }
        refused.insert(ticket.subject.clone(), (ticket.asked.request.clone(), why.clone()));
        drop(refused);
        self.tell(&ticket.subject);
        Refusal::Differs(why)
    }

    fn tell(&self, subject: &Subject) {
        if let Some(trigger) = trigger::of(&subject.kind, &subject.namespace, &subject.name) {
            // Nobody listens to an operator that ends.
            drop(self.arrived.send(trigger));
        }
    }

    /// Room for one more, where there is such: the oldest that are here go for it.
    fn reserve(self: &Arc<Self>, size: u64) -> Result<Place, Refusal> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let others = under_way.iter().fold(size, |all, size| all.saturating_add(*size));
        if under_way.len() >= AT_A_TIME || others > self.room {
            return Err(Refusal::Busy);
        }
        self.make_room(self.room.saturating_sub(others));
        under_way.push(size);
        Ok(Place { uploads: Arc::clone(self), size })
    }

    fn make_room(&self, left: u64) {
        let mut all: Vec<_> = ["dataset", "model", "notebook", "server"]
            .iter()
            .flat_map(|kind| folders(&self.root.join(kind)))
            .flat_map(|namespace| folders(&namespace))
            .flat_map(|name| files(&name))
            .collect();
        all.sort_by_key(|(_, _, came)| *came);
        let mut taken = all.iter().fold(0_u64, |taken, (_, bytes, _)| taken.saturating_add(*bytes));
        for (path, bytes, _) in all {
            if taken <= left {
                return;
            }
            remove(&path);
            taken = taken.saturating_sub(bytes);
        }
    }

    fn folder(&self, subject: &Subject) -> PathBuf {
        self.root.join(&subject.kind).join(&subject.namespace).join(&subject.name)
    }

    fn file(&self, subject: &Subject, md5: &str) -> PathBuf {
        self.folder(subject).join(format!("{}.tar.gz", md5.to_ascii_lowercase()))
    }
}

/// Bytes that nobody else may take.
#[derive(Debug)]
struct Place {
    uploads: Arc<Uploads>,
    size: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = self.uploads.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = under_way.iter().position(|size| *size == self.size) {
            under_way.swap_remove(at);
        }
    }
}

/// An upload on its way. One that is dropped was none.
#[derive(Debug)]
pub struct Incoming {
    ticket: Ticket,
    size: u64,
    written: u64,
    file: File,
    path: PathBuf,
    sums: (Md5, Sha256),
    place: Place,
}

impl Incoming {
    /// Takes a part.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.size {
            return Err(self.refuse(format!("the body has more bytes than its Content-Length of {}", self.size)));
        }
        self.sums.0.update(bytes);
        self.sums.1.update(bytes);
        Ok(self.file.write_all(bytes)?)
    }

    /// Checks what came, and keeps it where that is what was announced.
    pub fn finish(self) -> Result<(), Refusal> {
        if self.written != self.size {
            return Err(self.refuse(format!("the body ended after {} of {} bytes", self.written, self.size)));
        }
        let (md5, sha256) = self.sums.clone();
        let (md5, sha256) = (hex::encode(md5.finalize()), hex::encode(sha256.finalize()));
        let asked = &self.ticket.asked;
        if md5 != asked.md5 {
            return Err(
                self.refuse(format!("the MD5 of the body is {md5}, and spec.build.upload.md5Checksum says {}", asked.md5))
            );
        }
        if let Some(said) = asked.sha256.as_ref().filter(|said| **said != sha256) {
            return Err(
                self.refuse(format!("the SHA-256 of the body is {sha256}, and spec.build.upload.sha256Checksum says {said}"))
            );
        }
        self.file.sync_all()?;
        let uploads = &self.place.uploads;
        let kept = uploads.file(&self.ticket.subject, &md5);
        fs::create_dir_all(uploads.folder(&self.ticket.subject))?;
        fs::rename(&self.path, &kept)?;
        uploads.tell(&self.ticket.subject);
        Ok(())
    }

    fn refuse(&self, why: String) -> Refusal {
        self.place.uploads.refuse(&self.ticket, why)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // One that was kept is not there any more.
        drop(fs::remove_file(&self.path));
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Files of a folder, their bytes, and when they came.
fn files(folder: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let facts = entry.metadata().ok()?;
            Some((entry.path(), facts.len(), facts.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
        })
        .collect()
}

fn remove(path: &Path) {
    if let Err(error) =
        fs::remove_file(path).or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
    {
        tracing::warn!(path = %path.display(), %error, "cannot delete an upload");
    }
}

#[cfg(test)]
#[path = "uploads/tests.rs"]
mod tests;
