//! Files that another artifact has already: taken over by digest, and fetched where that artifact lies.

use std::os::unix::fs::{MetadataExt as _, symlink};

use serde_json::json;
use substratus_tests::hub::{Fault, Kind, Rule};

use super::*;

const SIZE: u64 = 24 * MIB;

impl Bench {
    fn second(&self) -> PathBuf {
        self.folder.path().join("second")
    }

    /// Loads into the second place, with the first one at hand.
    fn load_second(&self) -> Loaded {
        let mut command = self.command_to(&self.second());
        Loaded::of(command.arg("--reuse").arg(self.target()).args(["--log-filter", "info"]).output().unwrap())
    }

    fn sha256(&self, path: &str) -> String {
        self.hub.sha256(Kind::Model, "acme/tiny", "main", path).unwrap()
    }

    /// The second place has the right bytes under this name, its manifest says so, and nothing is left beside them.
    fn assert_second(&self, path: &str) {
        let bytes = std::fs::read(self.second().join("artifacts").join(path)).unwrap();
        assert_eq!(hex::encode(Sha256::digest(&bytes)), self.sha256(path), "{path}");
        let manifest = std::fs::read(self.second().join(".substratus/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let listed: Vec<_> = manifest["files"].as_array().unwrap().iter().filter(|file| file["path"] == path).collect();
        assert!(listed.len() == 1 && listed[0]["sha256"] == self.sha256(path), "{manifest}");
        assert!(!self.second().join(format!("artifacts/{path}.partial")).exists());
    }
}

/// Weights, and a small file beside them that the loader itself does not read.
fn with_tokenizer(size: u64) -> Bench {
    let bench = Bench::with_weights(size);
    let repo = Repo::model("acme/tiny").file("model.safetensors", Content::noise(7, size)).file("tokenizer.json", "{}");
    bench.hub.put(repo).unwrap();
    bench
}

/// Bytes of a whole artifact, the small files beside the weights too.
fn all(loaded: &Loaded) -> u64 {
    let Outcome::Complete { source, .. } = &loaded.outcome else { panic!("{}", loaded.everything) };
    u64::try_from(source.bytes).unwrap()
}

fn reused(loaded: &Loaded) -> u64 {
    let Outcome::Complete { reused, .. } = &loaded.outcome else { panic!("{}", loaded.everything) };
    *reused
}

#[test]
fn a_second_load_of_the_same_revision_fetches_no_byte_of_a_file() {
    let bench = with_tokenizer(SIZE);
    assert_eq!(reused(&bench.load()), 0);
    bench.hub.reset_stats();
    let second = bench.load_second();
    second.assert_complete();
    assert_eq!(reused(&second), all(&second), "{}", second.everything);
    bench.assert_second("model.safetensors");
    assert_eq!(std::fs::read(bench.second().join("artifacts/tokenizer.json")).unwrap(), b"{}");
    let stats = bench.hub.stats();
    let asked = |path: &str| stats.hub.requests_with(path);
    assert_eq!((stats.cdn.bytes, asked("model.safetensors"), asked("tokenizer.json")), (0, 0, 0), "{stats:?}");
    let line = second.everything.lines().find(|line| line.contains("file complete") && line.contains("model.safetensors"));
    let place = bench.target().display().to_string();
    assert!(line.is_some_and(|line| line.contains("from=") && line.contains(&place)), "{}", second.everything);
    // Two files, not two names of one: what becomes of one does not concern the other.
    let inode = |folder: PathBuf| folder.join("artifacts/model.safetensors").metadata().unwrap().ino();
    assert_ne!(inode(bench.target()), inode(bench.second()));
}

#[test]
fn another_revision_and_another_name_are_no_other_bytes() {
    let bench = Bench::with_weights(SIZE);
    bench.load().assert_complete();
    let renamed = Repo::model("acme/tiny")
        .file("weights/part.safetensors", Content::noise(7, SIZE))
        .file("more.safetensors", Content::noise(8, MIB))
        .without("model.safetensors");
    bench.hub.put(renamed).unwrap();
    bench.hub.reset_stats();
    let second = bench.load_second();
    second.assert_complete();
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (all(&second) - MIB, MIB), "{}", second.everything);
    bench.assert_second("weights/part.safetensors");
    bench.assert_second("more.safetensors");
}

#[test]
fn what_a_failed_load_has_finished_is_not_fetched_again() {
    let bench = Bench::with_weights(SIZE);
    let repo = Repo::model("acme/tiny")
        .file("model.safetensors", Content::noise(7, SIZE))
        .file("broken.safetensors", Content::noise(9, MIB));
    bench.hub.put(repo).unwrap();
    bench.hub.fault(Rule::cdn("broken.safetensors", Fault::BytesPerSecond(1024)));
    let mut child = bench.command().spawn().unwrap();
    while !bench.artifact("model.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the load has ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Its record comes right after its name.
    std::thread::sleep(std::time::Duration::from_millis(500));
    child.kill().unwrap();
    child.wait_with_output().unwrap();
    assert!(bench.manifest().is_none());
    bench.hub.clear_faults();
    bench.hub.reset_stats();
    let second = bench.load_second();
    second.assert_complete();
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (all(&second) - MIB, MIB), "{}", second.everything);
    bench.assert_second("model.safetensors");
}

/// Kills a load into the second place once the CDN has sent so many bytes; what it has stays.
fn interrupt(bench: &Bench, bytes: u64) {
    bench.hub.reset_stats();
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(2 * MIB)));
    let mut child = bench.command_to(&bench.second()).spawn().unwrap();
    while bench.hub.stats().cdn.bytes < bytes {
        assert!(child.try_wait().unwrap().is_none(), "the load has ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait_with_output().unwrap();
    bench.hub.clear_faults();
    bench.hub.reset_stats();
}

#[test]
fn what_was_fetched_gives_way_to_what_is_there_and_to_no_lie() {
    let bench = Bench::with_weights(SIZE);
    bench.load().assert_complete();
    interrupt(&bench, 12 * MIB);
    let second = bench.load_second();
    second.assert_complete();
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (SIZE, 0), "{}", second.everything);
    bench.assert_second("model.safetensors");

    std::fs::remove_dir_all(bench.second()).unwrap();
    let mut spoilt = std::fs::read(bench.artifact("model.safetensors")).unwrap();
    spoilt[7] ^= 1;
    std::fs::write(bench.artifact("model.safetensors"), spoilt).unwrap();
    interrupt(&bench, 16 * MIB);
    let second = bench.load_second();
    second.assert_complete();
    let fetched = bench.hub.stats().cdn.bytes;
    assert!(reused(&second) == 0 && fetched > 0 && fetched <= 20 * MIB, "{fetched} bytes: {}", second.everything);
    bench.assert_second("model.safetensors");
}

/// Starts a load into the first place, and comes back when its record says that it is at work.
fn begin_first(bench: &Bench) -> std::process::Child {
    let mut first = bench.command().spawn().unwrap();
    let record = bench.target().join(".substratus/journal.json");
    while !std::fs::read_to_string(&record).is_ok_and(|record| record.contains(&bench.sha256("model.safetensors"))) {
        assert!(first.try_wait().unwrap().is_none(), "the load has ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    first
}

#[test]
fn two_loads_at_the_same_time_fetch_the_bytes_once() {
    let bench = Bench::with_weights(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(4 * MIB)));
    let first = begin_first(&bench);
    let second = bench.load_second();
    second.assert_complete();
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (all(&second), SIZE), "{}", second.everything);
    assert!(second.everything.contains("another load is getting the same bytes"), "{}", second.everything);
    bench.assert_second("model.safetensors");
}

#[test]
fn a_load_that_dies_is_not_waited_for_any_longer() {
    let bench = Bench::with_weights(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(MIB)));
    let mut first = begin_first(&bench);
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| bench.load_second());
        while bench.hub.stats().cdn.bytes < 4 * MIB {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        first.kill().unwrap();
        first.wait().unwrap();
        bench.hub.clear_faults();
        second.join().unwrap()
    });
    second.assert_complete();
    assert!(second.everything.contains("another load is getting the same bytes"), "{}", second.everything);
    assert_eq!(reused(&second), all(&second) - SIZE, "{}", second.everything);
    bench.assert_second("model.safetensors");
}

#[test]
fn a_place_that_lies_harms_nobody() {
    let bench = Bench::with_weights(SIZE);
    bench.load().assert_complete();
    let honest = std::fs::read(bench.artifact("model.safetensors")).unwrap();
    let mut spoilt = honest.clone();
    spoilt[12_345_678] ^= 1;
    let artifact = |path: &str| bench.artifact(path);
    let secret = bench.folder.path().join("secret");
    std::fs::write(&secret, &honest).unwrap();
    let claims = |path: &str, size: u64| json!({"path": path, "size": size, "sha256": bench.sha256("model.safetensors")});
    let absolute = secret.display().to_string();
    let lies: [(&str, serde_json::Value); 9] = [
        ("a byte is another", claims("spoilt", SIZE)),
        ("it is shorter", claims("short", SIZE)),
        ("its size is another", claims("model.safetensors", SIZE + 1)),
        ("it is not there", claims("gone", SIZE)),
        ("it lies above", claims("../../secret", SIZE)),
        ("it lies elsewhere", claims(&absolute, SIZE)),
        ("it is a link", claims("link", SIZE)),
        ("it lies behind a link", claims("folder/secret", SIZE)),
        ("it is a pipe that nobody writes to", claims("pipe", SIZE)),
    ];
    std::fs::write(artifact("spoilt"), &spoilt).unwrap();
    std::fs::write(artifact("short"), &honest[1..]).unwrap();
    symlink(&secret, artifact("link")).unwrap();
    symlink(bench.folder.path(), artifact("folder")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, artifact("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let record = bench.target().join(".substratus/manifest.json");
    let mut manifest = bench.manifest().unwrap();
    for (lie, entry) in lies {
        manifest["files"] = json!([entry]);
        std::fs::write(&record, manifest.to_string()).unwrap();
        assert_fetched(&bench, lie);
    }
    std::fs::write(&record, "{").unwrap();
    assert_fetched(&bench, "the record is none");
    std::fs::File::create(&record).unwrap().set_len(1 << 40).unwrap();
    assert_fetched(&bench, "the record has no end");
    std::fs::remove_file(&record).unwrap();
    symlink("/dev/zero", &record).unwrap();
    assert_fetched(&bench, "the record is a device");
}

/// The weights come from the hub, and nothing of the lie is left.
fn assert_fetched(bench: &Bench, lie: &str) {
    bench.hub.reset_stats();
    let second = bench.load_second();
    assert!(second.code == Some(0), "{lie}: {}", second.everything);
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (0, SIZE), "{lie}: {}", second.everything);
    bench.assert_second("model.safetensors");
    let mut there: Vec<_> =
        std::fs::read_dir(bench.second().join("artifacts")).unwrap().map(|file| file.unwrap().file_name()).collect();
    there.sort();
    assert_eq!(there, ["config.json", "model.safetensors"], "{lie}");
    std::fs::remove_dir_all(bench.second()).unwrap();
}

#[test]
fn a_small_file_that_lies_is_fetched_from_the_hub() {
    let bench = with_tokenizer(SIZE);
    bench.load().assert_complete();
    std::fs::write(bench.artifact("tokenizer.json"), "[]").unwrap();
    bench.hub.reset_stats();
    let second = bench.load_second();
    second.assert_complete();
    let asked = bench.hub.stats().hub.requests_with("tokenizer.json");
    assert_eq!((reused(&second), asked), (all(&second) - 2, 1), "{}", second.everything);
    assert_eq!(std::fs::read(bench.second().join("artifacts/tokenizer.json")).unwrap(), b"{}");
}

#[test]
fn a_small_file_with_wrong_bytes_is_fetched_again_and_then_refused() {
    let bench = with_tokenizer(MIB);
    bench.hub.fault(Rule::resolve("tokenizer.json", Fault::WrongByte).once());
    let loaded = bench.load();
    loaded.assert_complete();
    assert!(loaded.everything.contains("the bytes do not match the digest"), "{}", loaded.everything);
    assert_eq!(std::fs::read(bench.artifact("tokenizer.json")).unwrap(), b"{}");
    std::fs::remove_dir_all(bench.target()).unwrap();
    bench.hub.fault(Rule::resolve("tokenizer.json", Fault::WrongByte));
    bench.load().assert_failed("DigestMismatch", true, &["tokenizer.json", "Git object id"]);
    assert!(!bench.artifact("tokenizer.json").exists());
}

#[test]
fn a_place_that_is_none_is_said_at_once_and_an_empty_one_is_nothing() {
    let bench = Bench::with_weights(MIB);
    let run = |place: &str| Loaded::of(bench.command().args(["--reuse", place]).output().unwrap());
    run("ftp://host/x").assert_failed("Invalid", true, &["--reuse", "ftp://host/x"]);
    assert!(bench.hub.stats().hub.requests.is_empty());
    run(&bench.second().display().to_string()).assert_complete();
    assert!(!bench.second().exists(), "nothing is made there");
}
