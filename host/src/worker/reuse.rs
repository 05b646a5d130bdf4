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
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::failure::LoadError;
use super::journal::{FINISHED, said_finished, unhex};
use super::manifest::{Entry, MANIFEST, Manifest};
use super::plan::{Plan, PlanFile};
use super::transfer::Transfer;
use super::verify::{BLOCK, Verifier};
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

/// Where files are said to be, by digest: a place, and the path in it.
type Shelf<'a> = HashMap<[u8; 32], Vec<(Arc<Place<'a>>, String)>>;

/// Takes over what `places` have of the plan and nobody has finished yet. Answers with those files.
pub(super) async fn take_over(
    transfer: &Transfer,
    plan: &Plan,
    places: &[BucketUrl],
    target: &BucketUrl,
    env: &Environment,
    stop: &CancellationToken,
) -> Result<HashMap<String, Verified>, LoadError> {
    let mut taken = HashMap::new();
    let wanted = if places.is_empty() { Vec::new() } else { wanted(transfer, plan).await? };
    if wanted.is_empty() {
        return Ok(taken);
    }
    let shelf = shelf(&wanted, places, target, env).await;
    let there: Vec<_> = wanted.into_iter().filter_map(|(file, sha256)| Some((file, sha256, shelf.get(&sha256)?))).collect();
    if there.is_empty() {
        return Ok(taken);
    }
    if let Sink::Object(sink) = &transfer.sink {
        sink.drop_all_aside().await?;
    }
    let each = there
        .into_iter()
        .map(|(file, sha256, offers)| async move { (file, take_one(transfer, file, sha256, offers, stop).await) });
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

/// Files whose size and digest are known, and that no earlier run finished.
async fn wanted<'a>(transfer: &Transfer, plan: &'a Plan) -> Result<Vec<(&'a PlanFile, [u8; 32])>, SinkError> {
    let mut wanted = Vec::new();
    for file in &plan.files {
        let (Some(sha256), Some(size)) = (file.sha256, file.size) else { continue };
        if transfer.journal.finished(file).is_none() || transfer.sink.finished(&file.path).await? != Some(size) {
            wanted.push((file, sha256));
        }
    }
    Ok(wanted)
}

/// Asks every place what it has. One that cannot be read has nothing.
async fn shelf<'a>(
    wanted: &[(&PlanFile, [u8; 32])],
    places: &'a [BucketUrl],
    target: &BucketUrl,
    env: &Environment,
) -> Shelf<'a> {
    let sizes: HashMap<[u8; 32], Option<u64>> = wanted.iter().map(|(file, sha256)| (*sha256, file.size)).collect();
    let mut shelf = Shelf::new();
    for url in places.iter().filter(|url| *url != target).take(MAX_PLACES) {
        let (source, entries) = match look(url, env).await {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(place = %url, %error, "nothing is taken over from there");
                continue;
            }
        };
        let place = Arc::new(Place { url, source });
        for entry in entries {
            let Some(sha256) = unhex(&entry.sha256).filter(|sha256| sizes.get(sha256) == Some(&Some(entry.size))) else {
                continue;
            };
            let offers = shelf.entry(sha256).or_default();
            // One of each place: a hundred names for the same bytes are no better than one.
            if offers.last().is_none_or(|(last, _)| !Arc::ptr_eq(last, &place)) {
                offers.push((Arc::clone(&place), entry.path));
            }
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
    sha256: [u8; 32],
    offers: &[(Arc<Place<'_>>, String)],
    stop: &CancellationToken,
) -> Option<Verified> {
    let wanted = Verified { size: file.size?, sha256 };
    for (place, name) in offers {
        let taken = match &transfer.sink {
            Sink::Local(_) => copied(transfer, file, place, name, wanted, stop).await,
            Sink::Object(sink) => copied_aside(transfer, sink, &file.path, place, name, wanted).await,
        };
        match taken {
            Ok(Some(how)) => {
                transfer.counters.file();
                let sha256 = hex::encode(sha256);
                tracing::info!(path = %file.path, bytes = wanted.size, sha256, from = %place.url, how, "file complete");
                return Some(wanted);
            }
            _ if stop.is_cancelled() => return None,
            Ok(None) => tracing::warn!(path = %file.path, place = %place.url, "the file there is not what its record says"),
            Err(error) => tracing::warn!(path = %file.path, place = %place.url, %error, "the file cannot be taken over"),
        }
    }
    None
}

/// From folder to folder: one file shares the blocks of the other where the file system can, else they are copied.
async fn copied(
    transfer: &Transfer,
    file: &PlanFile,
    place: &Place<'_>,
    name: &str,
    wanted: Verified,
    stop: &CancellationToken,
) -> Result<Option<&'static str>, SinkError> {
    let Some(from) = place.source.file(name, wanted.size).await? else { return Ok(None) };
    // What an earlier run fetched is given up for the right bytes only.
    if transfer.journal.done(&file.path) > 0 && !is_right(&from, wanted).await? {
        return Ok(None);
    }
    transfer.journal.forget(&file.path);
    transfer.journal.begin(&file.path, wanted.size, file.sha256, None);
    transfer.journal.flush().await?;
    let counted = Arc::new(AtomicU64::new(0));
    let taken = copy(transfer, &file.path, from, wanted, &counted, stop).await;
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
    path: &str,
    from: File,
    wanted: Verified,
    counted: &Arc<AtomicU64>,
    stop: &CancellationToken,
) -> Result<Option<&'static str>, SinkError> {
    let file = transfer.sink.create(path, None, None).await?;
    let hash = Verifier::start(file.clone());
    let (front, stop) = (hash.front(), stop.clone());
    let (counters, count) = (Arc::clone(&transfer.counters), Arc::clone(counted));
    let told = move |done: u64| {
        counters.reused(done - count.swap(done, Ordering::Relaxed));
        front.is_at(done);
        !stop.is_cancelled()
    };
    let shared = file.fill(from, wanted.size, told).await?;
    let verified = hash.finish(counted.load(Ordering::Relaxed)).await?;
    if verified != wanted {
        return Ok(None);
    }
    file.finish(verified).await?;
    Ok(Some(if shared { "reflinked" } else { "copied" }))
}

/// Whether a file holds these bytes now.
async fn is_right(file: &File, wanted: Verified) -> Result<bool, SinkError> {
    let trouble = || SinkError::io("read", "a file that is there already");
    let file = file.try_clone().map_err(trouble())?;
    let read = tokio::task::spawn_blocking(move || {
        let (mut hash, mut block, mut position) = (Sha256::new(), vec![0; BLOCK], 0);
        while position < wanted.size {
            let read = file.read_at(&mut block, position)?;
            hash.update(block.get(..read).filter(|read| !read.is_empty()).ok_or(io::ErrorKind::UnexpectedEof)?);
            position += read as u64;
        }
        Ok(Verified { size: position, sha256: hash.finalize().into() })
    });
    Ok(read.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(trouble())? == wanted)
}

/// Within one object store, which copies by itself; only the digest costs reading it once.
async fn copied_aside(
    transfer: &Transfer,
    sink: &ObjectSink,
    path: &str,
    place: &Place<'_>,
    name: &str,
    wanted: Verified,
) -> Result<Option<&'static str>, SinkError> {
    let Some(aside) = sink.copy_aside(&place.source, name, path).await? else { return Ok(None) };
    let (mut hash, mut counted) = (Sha256::new(), 0);
    let read = sink.read_aside(&aside, wanted.size, |bytes| {
        hash.update(bytes);
        counted += bytes.len() as u64;
        transfer.counters.reused(bytes.len() as u64);
    });
    let read = read.await;
    let same = matches!(read, Ok(true)) && hash.finalize()[..] == wanted.sha256;
    let shown = if same { sink.show(&aside, wanted).await } else { read.map(drop) };
    if !same || shown.is_err() {
        transfer.counters.given_back(counted);
    } else if let Some(held) = transfer.journal.held(path).filter(|held| !held.upload.is_empty()) {
        // What an earlier run has sent of it is not needed any more.
        tidied(path, sink.abort(path, &held.upload).await);
    }
    tidied(path, sink.drop_aside(&aside).await);
    shown.map(|()| same.then_some("copied by the store"))
}

/// What cannot be removed costs room and nothing else.
fn tidied(path: &str, result: Result<(), SinkError>) {
    if let Err(error) = result {
        tracing::warn!(path, %error, "something is left behind");
    }
}
