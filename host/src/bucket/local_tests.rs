//! Tests of the folder backend; knows its file layout.

use std::os::unix::fs::symlink;

use super::*;

fn verified(size: u64) -> Verified {
    Verified { size, sha256: [0; 32] }
}

#[test]
fn a_file_has_its_name_only_when_it_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let sink = LocalSink::open(folder.path()).unwrap();
    let file = sink.create("a/b.bin", Some(6)).unwrap();
    file.write_at(3, b"def").unwrap();
    file.write_at(0, b"abc").unwrap();
    assert!(!folder.path().join("artifacts/a/b.bin").exists());
    assert_eq!(sink.finished("a/b.bin").unwrap(), None);
    file.finish(verified(6)).unwrap();
    assert_eq!(std::fs::read(folder.path().join("artifacts/a/b.bin")).unwrap(), b"abcdef");
    assert!(!folder.path().join("artifacts/a/b.bin.partial").exists());
    assert_eq!(sink.finished("a/b.bin").unwrap(), Some(6));
}

#[test]
fn a_partial_file_keeps_its_bytes_and_loses_what_is_too_much() {
    let folder = tempfile::tempdir().unwrap();
    let sink = LocalSink::open(folder.path()).unwrap();
    sink.create("x", Some(8)).unwrap().write_at(0, b"12345678").unwrap();
    let again = sink.create("x", Some(4)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(again.read_at(0, &mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"1234");
}

#[test]
fn no_path_leaves_the_target() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sink = LocalSink::open(folder.path()).unwrap();
    symlink(outside.path(), folder.path().join("artifacts/link")).unwrap();
    symlink(outside.path().join("f"), folder.path().join("artifacts/file.partial")).unwrap();
    for path in ["../x", "a/../../x", "/etc/x", "a//b", "", ".", "link/x", "a/."] {
        assert!(matches!(sink.create(path, Some(1)), Err(SinkError::Refused(..))), "{path}");
    }
    assert!(sink.create("file", None).is_err(), "a link in the partial file's place is not followed");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn two_workers_do_not_share_a_target() {
    let folder = tempfile::tempdir().unwrap();
    let first = LocalSink::open(folder.path()).unwrap();
    assert!(matches!(LocalSink::open(folder.path()), Err(SinkError::Busy(_))));
    drop(first);
    LocalSink::open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_record_is_replaced_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let sink = LocalSink::open(folder.path()).unwrap();
    let records = sink.records();
    records.replace("r.json", true, |out| out.write_all(b"1")).await.unwrap();
    assert!(records.replace("r.json", true, |_| Err(io::Error::other("stop"))).await.is_err());
    assert_eq!(records.read("r.json").await.unwrap().unwrap(), b"1");
    records.remove("r.json").await.unwrap();
    assert_eq!(records.read("r.json").await.unwrap(), None);
}
