//! Tests of uploads against a store in memory; know what a record holds.

use object_store::memory::InMemory;

use super::super::object::ObjectSink;
use super::super::raw::Raw;
use super::*;

const MIB: u64 = 1024 * 1024;

fn noise(size: u64) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at * 7 + at / 65_521) % 256).unwrap()).collect()
}

/// Sinks of one memory see the same objects.
async fn sink(memory: &InMemory) -> ObjectSink {
    ObjectSink::of(Store::of(memory.clone(), "memory".to_owned(), Raw::None), "model").await.unwrap()
}

/// Writes `range` of `bytes` and hashes after it as far as it is whole from the beginning.
async fn write(file: &ObjectFile, bytes: &[u8], range: Range<u64>) {
    file.reserve(&range).await.unwrap();
    for start in range.clone().step_by(300_000) {
        let end = (start + 300_000).min(range.end);
        let (from, to) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
        file.write_at(start, &bytes[from..to]).await.unwrap();
    }
}

fn hash_to(file: &ObjectFile, hash: &mut Sha256, mut from: u64, to: u64) {
    let mut block = vec![0; 256 * 1024];
    while from < to {
        let wanted = usize::try_from((to - from).min(block.len() as u64)).unwrap();
        let read = file.read_at(from, &mut block[..wanted]).unwrap();
        assert!(read > 0, "nothing at {from}");
        hash.update(&block[..read]);
        from += read as u64;
        file.passed(from, || format!("state at {from}"));
    }
}

async fn stored(memory: &InMemory, path: &str) -> Option<Vec<u8>> {
    let found = memory.get(&Path::parse(format!("model/artifacts/{path}")).unwrap()).await.ok()?;
    Some(found.bytes().await.unwrap().into())
}

#[tokio::test]
async fn parts_in_any_order_make_the_object_once_it_is_verified() {
    let (memory, size) = (InMemory::new(), 3 * PIECE + MIB);
    let (sink, bytes) = (sink(&memory).await, noise(size));
    let file = sink.create("d/f", Some(size), None).await.unwrap();
    write(&file, &bytes, 2 * PIECE..3 * PIECE).await;
    write(&file, &bytes, 0..PIECE).await;
    write(&file, &bytes, 3 * PIECE..size).await;
    write(&file, &bytes, PIECE..2 * PIECE).await;
    let mut hash = Sha256::new();
    hash_to(&file, &mut hash, 0, size);
    let verified = Verified { size, sha256: hash.finalize().into() };
    assert_eq!(verified.sha256[..], Sha256::digest(&bytes)[..]);
    assert!(stored(&memory, "d/f").await.is_none() && sink.finished("d/f").is_none());
    file.finish(verified).await.unwrap();
    assert!(stored(&memory, "d/f").await.unwrap() == bytes);
    assert_eq!(sink.finished("d/f"), Some(size));
}

#[tokio::test]
async fn the_record_holds_what_is_sent_and_hashed_and_another_run_goes_on_there() {
    let (memory, size) = (InMemory::new(), 3 * PIECE + 5);
    let (sink, bytes) = (sink(&memory).await, noise(size));
    let file = sink.create("f", Some(size), None).await.unwrap();
    let record = file.record();
    let mut hash = Sha256::new();
    write(&file, &bytes, 0..PIECE).await;
    write(&file, &bytes, PIECE..2 * PIECE).await;
    write(&file, &bytes, 3 * PIECE..size).await;
    hash_to(&file, &mut hash, 0, PIECE);
    while record.lock().unwrap().0.etags.is_empty() {
        tokio::task::yield_now().await;
    }
    let held = record.lock().unwrap().0.clone();
    assert_eq!((held.etags.len(), held.state.as_str(), held.front(size)), (1, "state at 8388608", PIECE));
    drop(file);
    let again = sink.create("f", Some(size), Some(held)).await.unwrap();
    assert_eq!(again.resumed(), Some(("state at 8388608".to_owned(), PIECE)));
    write(&again, &bytes, PIECE..2 * PIECE).await;
    write(&again, &bytes, 2 * PIECE..3 * PIECE).await;
    write(&again, &bytes, 3 * PIECE..size).await;
    hash_to(&again, &mut hash, PIECE, size);
    again.finish(Verified { size, sha256: hash.finalize().into() }).await.unwrap();
    assert!(stored(&memory, "f").await.unwrap() == bytes);
}

#[tokio::test]
async fn a_file_of_unknown_size_may_be_of_any() {
    for size in [0, 5, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 2 * PIECE + 9] {
        let memory = InMemory::new();
        let (sink, bytes) = (sink(&memory).await, noise(size));
        let file = sink.create("f", None, None).await.unwrap();
        let mut hash = Sha256::new();
        let mut at = 0;
        for piece in bytes.chunks(1_000_000) {
            file.write_at(at, piece).await.unwrap();
            hash_to(&file, &mut hash, at, at + piece.len() as u64);
            at += piece.len() as u64;
        }
        file.finish(Verified { size, sha256: hash.finalize().into() }).await.unwrap();
        assert!(stored(&memory, "f").await.unwrap() == bytes, "{size}");
    }
}

#[tokio::test]
async fn memory_is_given_out_within_a_bound_and_comes_back() {
    let (memory, size) = (InMemory::new(), 20 * PIECE);
    let (sink, bytes) = (sink(&memory).await, noise(size));
    let file = sink.create("f", Some(size), None).await.unwrap();
    for part in 0..6 {
        file.reserve(&(part * PIECE..(part + 1) * PIECE)).await.unwrap();
    }
    let seventh = 6 * PIECE..7 * PIECE;
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), file.reserve(&seventh)).await;
    assert!(early.is_err(), "more than the window was given out");
    let mut hash = Sha256::new();
    write(&file, &bytes, 0..PIECE).await;
    hash_to(&file, &mut hash, 0, PIECE);
    file.reserve(&seventh).await.unwrap();
}

#[tokio::test]
async fn what_is_given_up_leaves_nothing_and_takes_no_more() {
    let (memory, size) = (InMemory::new(), 2 * PIECE);
    let (sink, bytes) = (sink(&memory).await, noise(size));
    let file = sink.create("f", Some(size), None).await.unwrap();
    write(&file, &bytes, 0..PIECE).await;
    file.abandon().await;
    assert!(file.record().lock().unwrap().0.upload.is_empty());
    assert!(matches!(file.reserve(&(PIECE..size)).await, Err(SinkError::Store(Trouble::Passing, _))));
    assert!(stored(&memory, "f").await.is_none());
}

#[test]
fn parts_grow_with_the_file_and_stay_few() {
    const GIB: u64 = 1024 * MIB;
    for (size, part) in [(0, PIECE), (PIECE, PIECE), (78 * GIB, PIECE), (79 * GIB, 2 * PIECE), (500 * GIB, 7 * PIECE)] {
        assert_eq!(part_of(size), part, "{size}");
        assert!(size.div_ceil(part_of(size)) <= MAX_PARTS);
    }
}

#[test]
fn only_what_this_code_wrote_is_gone_on_with() {
    let held = Held { upload: "u".into(), part: PIECE, etags: vec!["e".into(); 2], state: String::new() };
    assert!(held.is_sound(2 * PIECE) && held.is_sound(PIECE + 1) && !held.is_sound(PIECE));
    assert!(!Held { part: 2 * PIECE, ..held.clone() }.is_sound(9 * PIECE));
    assert!(!Held { upload: String::new(), ..held }.is_sound(2 * PIECE));
}

#[test]
fn the_tag_of_a_whole_is_known_from_its_parts() {
    // As S3 documents it: the MD5 sum of the parts' sums, and how many there are.
    let sum = |text: &str| format!("\"{}\"", hex::encode(Md5::digest(text)));
    let both: Vec<u8> = [Md5::digest("a"), Md5::digest("b")].concat();
    assert_eq!(whole_etag(&[sum("a"), sum("b")]), Some(format!("{}-2", hex::encode(Md5::digest(both)))));
    assert_eq!(whole_etag(&["opaque".to_owned()]), None);
}
