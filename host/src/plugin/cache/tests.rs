//! Attacks on the files of a store, as they come from whoever can write to its disk.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::super::call::{CallEvent, Observer, Watcher};
use super::*;

/// Remembers what it is told.
#[derive(Default)]
struct Heard(Mutex<Vec<(Stored, Option<String>)>>);

impl Observer for Heard {
    fn call(&self, _: &CallEvent<'_>) {}

    fn code(&self, _: bool) {}

    fn tampered(&self, tampered: &Tampered) {
        // What was found before anybody listened may be made anew by now, and nothing else.
        let now = fs::read(&tampered.path).ok();
        assert!(now.is_none_or(|bytes| tampered.digest == Some(digest_of(&bytes))), "it is gone before somebody hears of it");
        self.0.lock().unwrap().push((tampered.what, tampered.digest.clone()));
    }
}

struct Store {
    folder: tempfile::TempDir,
    cache: Cache,
    heard: Arc<Heard>,
}

fn open(root: &Path, engine: &str) -> (Cache, Arc<Heard>) {
    let (watcher, heard) = (Watcher::default(), Arc::new(Heard::default()));
    assert!(watcher.set(Arc::clone(&heard) as Arc<dyn Observer>).is_ok());
    (Cache::open(root, engine.to_owned(), Alarms::new(watcher)).unwrap(), heard)
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (cache, heard) = open(folder.path(), "engine");
        Self { folder, cache, heard }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn heard(&self) -> Vec<(Stored, Option<String>)> {
        std::mem::take(&mut self.heard.0.lock().unwrap())
    }
}

fn digest(of: u8) -> String {
    digest_of(&[of])
}

#[test]
fn two_seals_that_changed_places_open_nothing() {
    let store = Store::new();
    let (one, two) = (digest(1), digest(2));
    store.cache.keep_code(&one, b"first code");
    store.cache.keep_code(&two, b"other code");
    let (path_one, path_two) = (store.cache.code_path(&one), store.cache.code_path(&two));
    let (mut file_one, mut file_two) = (fs::read(&path_one).unwrap(), fs::read(&path_two).unwrap());
    file_one[..TAG].swap_with_slice(&mut file_two[..TAG]);
    fs::write(&path_one, &file_one).unwrap();
    fs::write(&path_two, &file_two).unwrap();
    assert_eq!((store.cache.code(&one), store.cache.code(&two)), (None, None));
    assert_eq!(store.heard(), [(Stored::Code, Some(one)), (Stored::Code, Some(two))]);
}

#[test]
fn code_of_an_older_engine_is_not_taken_for_this_ones() {
    let store = Store::new();
    let digest = digest(1);
    store.cache.keep_code(&digest, b"old code");
    let (newer, heard) = open(store.folder.path(), "newer");
    assert_eq!(newer.code(&digest), None);
    assert!(heard.0.lock().unwrap().is_empty(), "there is none, which is nobody's fault");
    fs::copy(store.cache.code_path(&digest), newer.code_path(&digest)).unwrap();
    assert_eq!(newer.code(&digest), None);
    assert_eq!(*heard.0.lock().unwrap(), [(Stored::Code, Some(digest.clone()))]);
    assert_eq!(store.cache.code(&digest).as_deref(), Some(b"old code".as_slice()), "the old one has its own still");
}

#[test]
fn a_note_is_not_taken_for_code_nor_code_for_a_note() {
    let store = Store::new();
    let digest = digest(1);
    let name = digest.strip_prefix("sha256:").unwrap();
    store.cache.keep_note(name, b"note").unwrap();
    fs::copy(store.path("notes").join(name), store.cache.code_path(&digest)).unwrap();
    assert_eq!(store.cache.code(&digest), None);
    store.cache.keep_code(&digest, b"code");
    fs::copy(store.cache.code_path(&digest), store.path("notes").join(name)).unwrap();
    assert_eq!(store.cache.note(name), None);
    assert_eq!(store.heard(), [(Stored::Code, Some(digest)), (Stored::Note, None)]);
}

/// What is put there in place of a file, and how.
type Odd<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn links_pipes_and_folders_in_the_place_of_files_are_removed_and_nothing_behind_them_is() {
    let store = Store::new();
    let (digest, outside) = (digest(7), store.path("outside"));
    fs::write(&outside, [7]).unwrap();
    let (blob, code) = (store.cache.blob_path(&digest).unwrap(), store.cache.code_path(&digest));
    let odd: [Odd<'_>; 5] = [
        ("a link to the right bytes", &|path| symlink(&outside, path).unwrap()),
        ("a link to nowhere", &|path| symlink("/nowhere", path).unwrap()),
        ("a link to endless bytes", &|path| symlink("/dev/zero", path).unwrap()),
        ("a pipe that nobody writes to", &|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a folder", &|path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), [7]).unwrap();
        }),
    ];
    for (what, put) in odd {
        put(&blob);
        put(&code);
        assert!(matches!(store.cache.blob(&digest), Err(PluginError::Unknown { .. })), "{what}");
        assert_eq!(store.cache.code(&digest), None, "{what}");
        let heard = store.heard();
        assert_eq!(heard, [(Stored::Component, Some(digest.clone())), (Stored::Code, Some(digest.clone()))], "{what}");
        put(&blob);
        put(&code);
        // What is written takes its place.
        assert_eq!(store.cache.keep(&[7]).unwrap(), digest, "{what}");
        assert_eq!(store.cache.blob(&digest).unwrap(), [7], "{what}");
        assert_eq!(store.heard().len(), 1, "{what}");
        assert_eq!(store.cache.code(&digest), None, "{what}");
        store.cache.keep_code(&digest, b"code");
        assert_eq!(store.cache.code(&digest).as_deref(), Some(b"code".as_slice()), "{what}");
        store.heard();
        file::remove(&blob);
        file::remove(&code);
    }
    assert_eq!(fs::read(&outside).unwrap(), [7], "what a link leads to is left alone");
}

#[test]
fn a_file_of_more_bytes_than_any_of_ours_is_not_read() {
    let store = Store::new();
    let digest = digest(1);
    let path = store.cache.blob_path(&digest).unwrap();
    // It takes no room on the disk, and would take as much memory.
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(store.cache.blob(&digest), Err(PluginError::Unknown { .. })));
    assert!(!path.exists() && store.heard() == [(Stored::Component, Some(digest))]);
}

#[test]
fn a_component_that_is_gone_is_taken_from_where_it_came() {
    let store = Store::new();
    let digest = digest(7);
    store.cache.lend(Box::new(|wanted| Some(if wanted == digest_of(&[7]) { vec![7] } else { vec![0] })));
    assert_eq!(store.cache.blob(&digest).unwrap(), [7]);
    let path = store.cache.blob_path(&digest).unwrap();
    fs::write(&path, [8]).unwrap();
    assert_eq!(store.cache.blob(&digest).unwrap(), [7]);
    assert_eq!(fs::read(&path).unwrap(), [7], "it is replaced");
    assert_eq!(store.heard(), [(Stored::Component, Some(digest))]);
    let other = self::digest(1);
    assert!(matches!(store.cache.blob(&other), Err(PluginError::Unknown { .. })), "what it gives is hashed, too");
}

#[test]
fn what_happens_before_anybody_listens_is_told_when_somebody_does() {
    let folder = tempfile::tempdir().unwrap();
    let (watcher, heard) = (Watcher::default(), Arc::new(Heard::default()));
    let cache = Cache::open(folder.path(), "engine".to_owned(), Alarms::new(Arc::clone(&watcher))).unwrap();
    let digest = cache.keep(&[7]).unwrap();
    fs::write(cache.blob_path(&digest).unwrap(), [8]).unwrap();
    cache.keep(&[7]).unwrap();
    assert!(watcher.set(Arc::clone(&heard) as Arc<dyn Observer>).is_ok());
    cache.alarms().tell_early();
    cache.alarms().tell_early();
    assert_eq!(*heard.0.lock().unwrap(), [(Stored::Component, Some(digest))], "once");
}

#[test]
fn a_write_that_was_cut_short_is_seen_by_nobody() {
    let store = Store::new();
    let digest = digest(7);
    // As a process leaves it that is killed between write and rename.
    fs::write(store.path("tmp/1-2-3"), b"half").unwrap();
    let (again, heard) = open(store.folder.path(), "engine");
    assert!(matches!(again.blob(&digest), Err(PluginError::Unknown { .. })));
    assert_eq!(again.code(&digest), None);
    assert_eq!(again.keep(&[7]).unwrap(), digest);
    again.keep_code(&digest, b"code");
    assert_eq!(again.code(&digest).as_deref(), Some(b"code".as_slice()));
    assert!(heard.0.lock().unwrap().is_empty());
}

#[test]
fn what_cannot_be_written_is_said_with_its_path_and_harms_nothing_that_is_there() {
    let store = Store::new();
    let digest = store.cache.keep(&[7]).unwrap();
    store.cache.keep_code(&digest, b"code");
    // A disk on which nothing can be made, for root either.
    fs::remove_dir(store.path("tmp")).unwrap();
    fs::write(store.path("tmp"), b"").unwrap();
    let error = store.cache.keep(&[8]).unwrap_err();
    let told = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(told.contains("write") && told.contains("blobs/sha256/"), "{told}");
    store.cache.keep_code(&self::digest(8), b"other");
    assert_eq!(store.cache.code(&self::digest(8)), None);
    assert_eq!(store.cache.blob(&digest).unwrap(), [7]);
    assert_eq!(store.cache.code(&digest).as_deref(), Some(b"code".as_slice()));
    assert!(store.heard().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// The frame around native code: of everything that a disk could give back, only what was put there is taken.
    #[test]
    fn code_is_what_was_kept_or_nothing(
        code in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let store = Store::new();
        let (digest, other) = (digest(1), digest(2));
        store.cache.keep_code(&digest, &code);
        prop_assert_eq!(store.cache.code(&digest), Some(code));
        let path = store.cache.code_path(&digest);
        let good = fs::read(&path).unwrap();
        let mut changed = good.clone();
        changed[at.index(good.len())] = byte;
        let shorter = good[..cut.index(good.len())].to_vec();
        let longer = [good.clone(), more.clone()].concat();
        let before = [more, good.clone()].concat();
        for bad in [changed, shorter, longer, before].into_iter().filter(|bad| *bad != good) {
            fs::write(&path, &bad).unwrap();
            prop_assert_eq!(store.cache.code(&digest), None);
            prop_assert!(!path.exists());
        }
        fs::write(store.cache.code_path(&other), &good).unwrap();
        prop_assert_eq!(store.cache.code(&other), None, "under another name");
    }
}
