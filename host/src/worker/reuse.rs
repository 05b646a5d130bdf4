//! Files that need not come over the network: another artifact of the same owner has them, by digest. What it says of itself is
//! a hint and nothing more; a file counts once it has been copied here and the copy's own digest is the planned one. Whatever
//! goes wrong, the file is fetched.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use futures::stream;
use tokio_util::sync::CancellationToken;

use super::failure::LoadError;
use super::journal::{FINISHED, said_finished, unhex};
use super::manifest::{Entry, MANIFEST, Manifest};
use super::plan::{Plan, PlanFile};
use super::transfer::Transfer;
use super::verify::{BLOCK, Hashing, Verifier};
use crate::bucket::object::ObjectSink;
use crate::bucket::sink::Verified;
use crate::bucket::{BucketUrl, Environment, Sink, SinkError, Source};

/// Places that are looked at, of those that are given.
pub const MAX_PLACES: usize = 32;

/// An artifact that files can be taken from.
struct Place<'a> {
    url: &'a BucketUrl,
    source: Source,
}

/// Where bytes are said to be: places, and the path in each.
type Offers<'a> = Vec<(Arc<Place<'a>>, String)>;

/// What others say they have of the files that are wanted.
#[derive(Default)]
struct Shelf<'a> {
    /// Under any name, by SHA-256.
    by_digest: HashMap<[u8; 32], (u64, Offers<'a>)>,
    /// Under the same name and with the same size, where the source knows another digest: a record has none but SHA-256.
    by_name: HashMap<&'a str, (u64, Offers<'a>)>,
}

impl<'a> Shelf<'a> {
    /// A shelf for these files.
    fn for_files(wanted: &[&'a PlanFile]) -> Self {
        let mut shelf = Self::default();
        for file in wanted {
            match (file.sha256, file.size) {
                (Some(sha256), Some(size)) => _ = shelf.by_digest.insert(sha256, (size, Offers::new())),
                (None, Some(size)) => _ = shelf.by_name.insert(&file.path, (size, Offers::new())),
                (_, None) => {}
            }
        }
        shelf
    }

    /// A place says that it has this.
    fn add(&mut self, place: &Arc<Place<'a>>, entry: &Entry) {
        let of_digest = unhex(&entry.sha256).and_then(|sha256| self.by_digest.get_mut(&sha256));
        let of_name = self.by_name.get_mut(entry.path.as_str());
        for (_, offers) in of_digest.into_iter().chain(of_name).filter(|(size, _)| *size == entry.size) {
            // One of each place: a hundred names for the same bytes are no better than one.
            if offers.last().is_none_or(|(last, _)| !Arc::ptr_eq(last, place)) {
                offers.push((Arc::clone(place), entry.path.clone()));
            }
        }
    }

    /// Who may have the bytes of `file`.
    fn offers(&self, file: &'a PlanFile) -> &[(Arc<Place<'a>>, String)] {
        let of_name = || self.by_name.get(file.path.as_str());
        let found = file.sha256.map_or_else(of_name, |sha256| self.by_digest.get(&sha256));
        found.map_or(&[], |(_, offers)| offers.as_slice())
    }
}

/// Takes over what `places` have of the plan and nobody has finished yet. Answers with those files.
pub(super) async fn take_over(
    transfer: &Transfer,
    plan: &Plan,
    places: &[BucketUrl],
    env: &Environment,
    stop: &CancellationToken,
) -> Result<HashMap<String, Verified>, LoadError> {
    let mut taken = HashMap::new();
    let wanted = if places.is_empty() { Vec::new() } else { wanted(transfer, plan).await? };
    if wanted.is_empty() {
        return Ok(taken);
    }
    let shelf = shelf(&wanted, places, env).await;
    let there: Vec<_> =
        wanted.into_iter().map(|file| (file, shelf.offers(file))).filter(|(_, offers)| !offers.is_empty()).collect();
    if there.is_empty() {
        return Ok(taken);
    }
    if let Sink::Object(sink) = &transfer.sink {
        sink.drop_all_aside().await?;
    }
    let each = there.into_iter().map(|(file, offers)| async move { (file, take_one(transfer, file, offers, stop).await) });
    let mut running = stream::iter(each).buffer_unordered(transfer.tuning.files);
    while let Some((file, verified)) = running.next().await {
        if let Some(verified) = verified {
            transfer.journal.finish(&file.path, verified)?;
            taken.insert(file.path.clone(), verified);
        }
    }
    transfer.journal.flush().await?;
    Ok(taken)
}

/// Takes over `file` from one place, if it is there.
pub(super) async fn take_from(
    transfer: &Transfer,
    file: &PlanFile,
    place: &BucketUrl,
    env: &Environment,
    stop: &CancellationToken,
) -> Result<Option<Verified>, LoadError> {
    let shelf = shelf(&[file], std::slice::from_ref(place), env).await;
    let Some(verified) = take_one(transfer, file, shelf.offers(file), stop).await else { return Ok(None) };
    transfer.journal.finish(&file.path, verified)?;
    Ok(Some(verified))
}

/// Files whose size and digest are known, and that no earlier run finished.
async fn wanted<'a>(transfer: &Transfer, plan: &'a Plan) -> Result<Vec<&'a PlanFile>, SinkError> {
    let mut wanted = Vec::new();
    for file in &plan.files {
        let known = file.size.filter(|_| file.sha256.is_some() || file.gitoid.is_some());
        let Some(size) = known else { continue };
        if transfer.journal.finished(file).is_none() || transfer.sink.finished(&file.path).await? != Some(size) {
            wanted.push(file);
        }
    }
    Ok(wanted)
}

/// Asks every place what it has. One that cannot be read has nothing.
async fn shelf<'a>(wanted: &[&'a PlanFile], places: &'a [BucketUrl], env: &Environment) -> Shelf<'a> {
    let mut shelf = Shelf::for_files(wanted);
    for url in places {
        match look(url, env).await {
            Ok(Some((source, entries))) => {
                let place = Arc::new(Place { url, source });
                for entry in &entries {
                    shelf.add(&place, entry);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(place = %url, %error, "nothing is taken over from there"),
        }
    }
    shelf
}

/// What a place says it has: by its manifest, or what a load that did not end has finished.
async fn look(url: &BucketUrl, env: &Environment) -> Result<Option<(Source, Vec<Entry>)>, SinkError> {
    let Some(source) = Source::open(url, env).await? else { return Ok(None) };
    let whole = source.record(MANIFEST).await?.as_deref().and_then(Manifest::parse);
    let entries = match whole {
        Some(manifest) => manifest.files,
        None => source.record(&source.first_piece(FINISHED)).await?.map_or(Vec::new(), |text| said_finished(&text).collect()),
    };
    Ok(Some((source, entries)))
}

/// The first offer that is what it says it is.
async fn take_one(
    transfer: &Transfer,
    file: &PlanFile,
    offers: &[(Arc<Place<'_>>, String)],
    stop: &CancellationToken,
) -> Option<Verified> {
    let size = file.size?;
    for (place, name) in offers {
        let taken = match &transfer.sink {
            Sink::Local(_) => copied(transfer, file, size, (place, name), stop).await,
            Sink::Object(sink) => copied_aside(transfer, sink, file, size, (place, name)).await,
        };
        match taken {
            Ok(Some((verified, how))) => {
                transfer.counters.file();
                let sha256 = hex::encode(verified.sha256);
                tracing::info!(path = %file.path, bytes = size, sha256, from = %place.url, how, "file complete");
                return Some(verified);
            }
            _ if stop.is_cancelled() => return None,
            Ok(None) => tracing::warn!(path = %file.path, place = %place.url, "the file there is not what its record says"),
            Err(error) => tracing::warn!(path = %file.path, place = %place.url, %error, "the file cannot be taken over"),
        }
    }
    None
}

/// A file that was taken over, and how.
type Taken = Option<(Verified, &'static str)>;

/// From folder to folder: one file shares the blocks of the other where the file system can, else they are copied.
async fn copied(
    transfer: &Transfer,
    file: &PlanFile,
    size: u64,
    (place, name): (&Place<'_>, &str),
    stop: &CancellationToken,
) -> Result<Taken, SinkError> {
    let Some(from) = place.source.file(name, size).await? else { return Ok(None) };
    // What an earlier run fetched is given up for the right bytes only.
    if transfer.journal.done(&file.path) > 0 && !is_right(&from, file, size).await? {
        return Ok(None);
    }
    transfer.journal.forget(&file.path);
    transfer.journal.begin(&file.path, size, file.sha256, None);
    transfer.journal.flush().await?;
    let counted = Arc::new(AtomicU64::new(0));
    let taken = copy(transfer, file, from, size, &counted, stop).await;
    if !matches!(taken, Ok(Some(_))) {
        transfer.counters.given_back(counted.load(Ordering::Relaxed));
        transfer.journal.forget(&file.path);
        // Nothing is left of it, above all on a disk that it has filled.
        transfer.sink.remove(&file.path).await?;
    }
    taken
}

/// Copies and hashes what is copied; only the right bytes get the name.
async fn copy(
    transfer: &Transfer,
    file: &PlanFile,
    from: File,
    size: u64,
    counted: &Arc<AtomicU64>,
    stop: &CancellationToken,
) -> Result<Taken, SinkError> {
    let into = transfer.sink.create(&file.path, None, None).await?;
    let hash = Verifier::start(into.clone(), Hashing::of(file));
    let (front, stop) = (hash.front(), stop.clone());
    let (counters, count) = (Arc::clone(&transfer.counters), Arc::clone(counted));
    let told = move |done: u64| {
        counters.reused(done - count.swap(done, Ordering::Relaxed));
        front.is_at(done);
        !stop.is_cancelled()
    };
    let shared = into.fill(from, size, told).await?;
    let hashed = hash.finish(counted.load(Ordering::Relaxed)).await?;
    if hashed.verified.size != size || !file.is(&hashed) {
        return Ok(None);
    }
    into.finish(hashed.verified).await?;
    Ok(Some((hashed.verified, if shared { "reflinked" } else { "copied" })))
}

/// Whether `there` holds the bytes of `file` now.
async fn is_right(there: &File, file: &PlanFile, size: u64) -> Result<bool, SinkError> {
    let trouble = || SinkError::io("read", "a file that is there already");
    let (there, mut hash) = (there.try_clone().map_err(trouble())?, Hashing::of(file));
    let read = tokio::task::spawn_blocking(move || {
        let (mut block, mut position) = (vec![0; BLOCK], 0);
        while position < size {
            let read = there.read_at(&mut block, position)?;
            hash.update(block.get(..read).filter(|read| !read.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?);
            position += read as u64;
        }
        Ok((hash.finish(), position))
    });
    let (hashed, read) = read.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(trouble())?;
    Ok(read == size && file.is(&hashed))
}

/// Within one object store, which copies by itself; only the digest costs reading it once.
async fn copied_aside(
    transfer: &Transfer,
    sink: &ObjectSink,
    file: &PlanFile,
    size: u64,
    (place, name): (&Place<'_>, &str),
) -> Result<Taken, SinkError> {
    let path = &file.path;
    let Some(aside) = sink.copy_aside(&place.source, name, path).await? else { return Ok(None) };
    let (mut hash, mut counted) = (Hashing::of(file), 0);
    let read = sink.read_aside(&aside, size, |bytes| {
        hash.update(bytes);
        counted += bytes.len() as u64;
        transfer.counters.reused(bytes.len() as u64);
    });
    let read = read.await;
    let hashed = hash.finish();
    let same = matches!(read, Ok(true)) && file.is(&hashed);
    let shown = if same { sink.show(&aside, hashed.verified).await } else { read.map(drop) };
    if !same || shown.is_err() {
        transfer.counters.given_back(counted);
    } else if let Some(held) = transfer.journal.held(path).filter(|held| !held.upload.is_empty()) {
        // What an earlier run has sent of it is not needed any more.
        tidied(path, sink.abort(path, &held.upload).await);
    }
    tidied(path, sink.drop_aside(&aside).await);
    shown.map(|()| same.then_some((hashed.verified, "copied by the store")))
}

/// What cannot be removed costs room and nothing else.
fn tidied(path: &str, result: Result<(), SinkError>) {
    if let Err(error) = result {
        tracing::warn!(path, %error, "something is left behind");
    }
}
