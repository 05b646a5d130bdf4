//! Attacks on the plugin store's disk: compiled code that is not ours is never loaded, and nothing stops a plugin from working.
//! Knows nothing of registries.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod disk;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use substratus::plugin::{CallEvent, Observer, PluginError, PluginOptions, Plugins, Tampered};

use crate::hostile::module::{FIT, Guest};
use crate::hostile::serve_request;

fn open(root: &Path) -> Plugins {
    Plugins::open(PluginOptions { cache: root.to_owned(), bundled: Vec::new() }).unwrap()
}

/// A component that gives this score.
fn scoring(score: u8) -> Vec<u8> {
    Guest { data: vec![(FIT, vec![score])], ..Guest::default() }.component()
}

async fn score(plugins: &Plugins, digest: &str) -> u8 {
    plugins.fit(digest, &serve_request()).await.unwrap().score
}

/// The compiled code of a component.
fn code(root: &Path, digest: &str) -> PathBuf {
    let engines: Vec<_> = fs::read_dir(root.join("aot")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(engines.len(), 1);
    engines[0].join(format!("{}.cwasm", digest.strip_prefix("sha256:").unwrap()))
}

#[tokio::test]
async fn compiled_code_serves_the_next_process() {
    let root = tempfile::tempdir().unwrap();
    let digest = open(root.path()).add(&scoring(7)).unwrap().digest;
    assert_eq!(score(&open(root.path()), &digest).await, 7);
    let file = code(root.path(), &digest);
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(score(&open(root.path()), &digest).await, 7);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
    assert_eq!(fs::metadata(root.path().join("key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_flipped_bit_in_compiled_code_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let digest = open(root.path()).add(&scoring(7)).unwrap().digest;
    score(&open(root.path()), &digest).await;
    let file = code(root.path(), &digest);
    let good = fs::read(&file).unwrap();
    for at in [0, 31, 32, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert_eq!(score(&open(root.path()), &digest).await, 7);
        assert_ne!(fs::read(&file).unwrap(), bad, "byte {at}");
    }
    for short in [&good[..0], &good[..31], &good[..good.len() - 1]] {
        fs::write(&file, short).unwrap();
        assert_eq!(score(&open(root.path()), &digest).await, 7);
        assert_ne!(fs::read(&file).unwrap(), short);
    }
}

#[tokio::test]
async fn signed_code_of_one_component_does_not_serve_another() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let (one, two) = (plugins.add(&scoring(1)).unwrap().digest, plugins.add(&scoring(2)).unwrap().digest);
    score(&plugins, &one).await;
    fs::copy(code(root.path(), &one), code(root.path(), &two)).unwrap();
    assert_eq!(score(&open(root.path()), &two).await, 2);
}

#[tokio::test]
async fn code_signed_with_another_key_is_compiled_again() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let digest = open(root.path()).add(&scoring(7)).unwrap().digest;
    open(other.path()).add(&scoring(7)).unwrap();
    score(&open(root.path()), &digest).await;
    score(&open(other.path()), &digest).await;
    let foreign = fs::read(code(other.path(), &digest)).unwrap();
    fs::write(code(root.path(), &digest), &foreign).unwrap();
    assert_eq!(score(&open(root.path()), &digest).await, 7);
    assert_ne!(fs::read(code(root.path(), &digest)).unwrap(), foreign);
}

#[tokio::test]
async fn a_key_that_others_can_read_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let digest = open(root.path()).add(&scoring(7)).unwrap().digest;
    let (key, old) = (root.path().join("key"), fs::read(root.path().join("key")).unwrap());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(score(&open(root.path()), &digest).await, 7);
    assert_ne!(fs::read(&key).unwrap(), old);
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_component_that_changed_on_disk_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    let blob = root.path().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    fs::write(&blob, scoring(8)).unwrap();
    assert!(matches!(plugins.bytes(&digest), Err(PluginError::Unknown { .. })));
    assert!(!blob.exists());
    assert!(matches!(plugins.prepare(&digest).await, Err(PluginError::Unknown { .. })));
    // Added again, it works: the mistake was not remembered.
    plugins.add(&scoring(7)).unwrap();
    assert_eq!(score(&plugins, &digest).await, 7);
}

/// A plugin that came with the operator is there for as long as the operator is.
#[tokio::test]
async fn a_bundled_component_that_somebody_changed_is_taken_from_the_bundle_again() {
    let (root, bundle) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(bundle.path().join("a.wasm"), scoring(7)).unwrap();
    let open = || {
        let options = PluginOptions { cache: root.path().to_owned(), bundled: vec![bundle.path().to_owned()] };
        Plugins::open(options).unwrap()
    };
    let plugins = open();
    let digest = plugins.bundled()[0].digest.clone();
    let blob = root.path().join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
    fs::write(&blob, scoring(8)).unwrap();
    assert_eq!(score(&plugins, &digest).await, 7);
    assert_eq!(fs::read(&blob).unwrap(), scoring(7), "it is replaced");
    fs::remove_file(&blob).unwrap();
    assert_eq!(plugins.bytes(&digest).unwrap(), scoring(7));
    // Also where it was changed while nobody looked; whoever asks is told.
    fs::write(&blob, scoring(8)).unwrap();
    let again = open();
    let counted = Arc::new(Counted::default());
    again.observe(Arc::clone(&counted) as Arc<dyn Observer>);
    assert_eq!((score(&again, &digest).await, counted.tampered.load(Ordering::Relaxed)), (7, 1));
}

#[tokio::test]
async fn what_answers_is_never_swept_away_and_what_went_is_had_again() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let (kept, gone) = (plugins.add(&scoring(1)).unwrap().digest, plugins.add(&scoring(2)).unwrap().digest);
    assert_eq!((score(&plugins, &kept).await, score(&plugins, &gone).await), (1, 2));
    // A store without any room, a year later.
    let later = std::time::SystemTime::now() + std::time::Duration::from_hours(365 * 24);
    let swept = plugins.sweep([kept.clone()].into(), 0, later).unwrap();
    assert_eq!(swept.files, 2, "a component and its code: {swept:?}");
    assert!(code(root.path(), &kept).exists() && !code(root.path(), &gone).exists());
    assert_eq!(score(&plugins, &gone).await, 2, "what is loaded answers on");
    let again = open(root.path());
    assert_eq!(score(&again, &kept).await, 1);
    assert!(matches!(again.bytes(&gone), Err(PluginError::Unknown { .. })));
    assert_eq!(again.add(&scoring(2)).unwrap().digest, gone);
    assert_eq!(score(&again, &gone).await, 2);
}

#[tokio::test]
async fn a_digest_is_no_path() {
    let root = tempfile::tempdir().unwrap();
    for digest in ["sha256:../../key", "../key", "", "sha256:", "sha512:00", &format!("sha256:{}", "A".repeat(64))] {
        assert!(matches!(open(root.path()).bytes(digest), Err(PluginError::Unknown { .. })), "{digest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_ask_at_once_get_one_compilation() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let counted = Arc::new(Counted::default());
    plugins.observe(Arc::clone(&counted) as Arc<dyn Observer>);
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    let asked = futures::future::join_all((0..32).map(|_| plugins.prepare(&digest))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    let file = code(root.path(), &digest);
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    plugins.prepare(&digest).await.unwrap();
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), written);
    assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
    assert_eq!((counted.compiled.load(Ordering::Relaxed), counted.found.load(Ordering::Relaxed)), (1, 0));
    let again = open(root.path());
    again.observe(Arc::clone(&counted) as Arc<dyn Observer>);
    again.prepare(&digest).await.unwrap();
    assert_eq!((counted.compiled.load(Ordering::Relaxed), counted.found.load(Ordering::Relaxed)), (1, 1));
}

/// How often native code was made, and found.
#[derive(Default)]
struct Counted {
    compiled: AtomicUsize,
    found: AtomicUsize,
    tampered: AtomicUsize,
}

impl Observer for Counted {
    fn call(&self, _: &CallEvent<'_>) {}

    fn code(&self, found: bool) {
        if found { &self.found } else { &self.compiled }.fetch_add(1, Ordering::Relaxed);
    }

    fn tampered(&self, _: &Tampered) {
        self.tampered.fetch_add(1, Ordering::Relaxed);
    }
}
