//! Archives as they come, and as nobody should send them.

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use super::*;

/// Kind, path, where a link leads, content.
type Entry<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (kind, path, link, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o6777);
        header.set_size(content.len() as u64);
        // As bytes: the library would refuse to write what is tried here.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        tar.append(&header, *content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<(), Failure>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload.tar.gz");
    fs::write(&file, bytes).unwrap();
    let result = unpack(&file, &folder.path().join("source"));
    (folder, result)
}

#[test]
fn files_folders_and_links_are_unpacked_and_nothing_may_more_than_it_should() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, result) = unpacked(&archive(&[
        (EntryType::Directory, "./", "", b""),
        (EntryType::Regular, "./Dockerfile", "", b"FROM scratch\n"),
        (EntryType::Regular, "deep/er/file", "", b"x"),
        (EntryType::Symlink, "link", "deep/er/file", b""),
        (EntryType::Symlink, "away", "/etc/passwd", b""),
    ]));
    assert_eq!(result, Ok(()));
    let at = |path: &str| folder.path().join("source").join(path);
    assert_eq!(fs::read(at("link")).unwrap(), b"x");
    assert_eq!(fs::metadata(at("Dockerfile")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(at("away").is_symlink(), "a context may have it: the builder does not follow it");
}

#[test]
fn archives_that_lead_elsewhere_are_refused_and_write_nothing_there() {
    let hostile: [&[Entry<'_>]; 8] = [
        &[(EntryType::Regular, "../out", "", b"x")],
        &[(EntryType::Regular, "a/../../out", "", b"x")],
        &[(EntryType::Regular, "/tmp/substratus-out", "", b"x")],
        &[(EntryType::Link, "hard", "/etc/passwd", b"")],
        &[(EntryType::Fifo, "pipe", "", b"")],
        &[(EntryType::Char, "device", "", b"")],
        &[(EntryType::Symlink, "a", "..", b""), (EntryType::Symlink, "a/out", "x", b"")],
        &[(EntryType::Regular, "a", "", b"x"), (EntryType::Regular, "a/b", "", b"x")],
    ];
    for entries in hostile {
        let (folder, result) = unpacked(&archive(entries));
        let failure = result.unwrap_err();
        assert_eq!(failure.reason, reason::INVALID, "{entries:?}");
        assert!(!folder.path().join("out").exists() && !Path::new("/tmp/substratus-out").exists(), "{entries:?}");
        assert!(!folder.path().join("out").is_symlink(), "{entries:?}");
    }
    // A link that comes first is there only after the files.
    let (folder, result) = unpacked(&archive(&[(EntryType::Symlink, "a", "..", b""), (EntryType::Regular, "a/out", "", b"x")]));
    assert_eq!(result.unwrap_err().reason, reason::INVALID);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn what_is_no_archive_is_told_apart() {
    let whole = archive(&[(EntryType::Regular, "Dockerfile", "", &[7; 4096])]);
    for bytes in [b"".as_slice(), b"hello", whole.get(..whole.len() / 2).unwrap()] {
        let (_folder, result) = unpacked(bytes);
        // An empty stream is an archive without a file to some, and no gzip to us.
        assert_eq!(result.unwrap_err().reason, reason::INVALID, "{} bytes", bytes.len());
    }
}

#[test]
fn another_sum_is_refused() {
    let arguments = |sha256: Option<String>| FetchArgs {
        inputs: "i".to_owned(),
        url: "http://store.test/uploads/model/team/m/x".parse().unwrap(),
        token_file: None,
        md5: "A".repeat(32),
        sha256,
        to: PathBuf::new(),
        termination_log: None,
    };
    let came = ("a".repeat(32), "b".repeat(64));
    assert_eq!(arguments(None).check(&came), Ok(()));
    assert_eq!(arguments(Some("B".repeat(64))).check(&came), Ok(()));
    assert_eq!(arguments(Some("c".repeat(64))).check(&came).unwrap_err().reason, reason::UPLOAD_REFUSED);
    assert_eq!(arguments(None).check(&("c".repeat(32), came.1)).unwrap_err().reason, reason::UPLOAD_REFUSED);
}
