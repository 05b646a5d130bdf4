//! Artifacts out of a bucket into a folder, and folders into a bucket, by the real program.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use substratus::worker::report::Outcome;
use substratus_tests::s3::{Fault, Rule};
use substratus_tests::seeds;

use super::*;

const PREFIX: &str = "some/model";
const SIZE: usize = 40 << 20;
/// Seeds of a normal run.
const FEW: u64 = 10;

/// A bucket, and folders.
struct Place {
    s3: S3,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        let runtime = runtime();
        let s3 = S3::start(runtime.handle()).unwrap();
        Self { s3, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder as a training leaves it: one large file, some small ones.
    fn written(&self) -> PathBuf {
        let folder = self.path("written");
        std::fs::create_dir_all(folder.join("checkpoint 1/deep")).unwrap();
        let noise: Vec<u8> = (0..SIZE).map(|at| u8::try_from((at * 31 + at / 65_537) % 256).unwrap()).collect();
        std::fs::write(folder.join("model.safetensors"), noise).unwrap();
        std::fs::write(folder.join("empty"), "").unwrap();
        for number in 0..20 {
            std::fs::write(folder.join(format!("checkpoint 1/deep/{number}.json")), format!("{{\"n\":{number}}}")).unwrap();
        }
        folder
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).args(["-o", "json", "--attempts", "4", "--stall", "2", "--log-filter", "info"]);
        command.arg("--termination-log").arg(self.path("outcome")).env_clear().envs(self.s3.env());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn publish(&self) -> Command {
        self.command(&["publish", self.written().to_str().unwrap(), "--to", "s3://artifacts/some/model"])
    }

    fn stage(&self) -> Command {
        self.command(&["stage", "s3://artifacts/some/model", "--to", self.path("staged").to_str().unwrap()])
    }

    fn has_manifest(&self) -> bool {
        self.s3.object("some/model/.substratus/manifest.json").exists()
    }

    fn assert_published(&self) {
        assert_eq!(sums(&self.s3.object(&format!("{PREFIX}/artifacts"))), sums(&self.path("written")));
        assert!(self.has_manifest());
    }

    fn assert_staged(&self) {
        assert_eq!(sums(&self.path("staged/artifacts")), sums(&self.path("written")));
    }
}

fn ended(mut command: Command) -> Loaded {
    Loaded::of(command.output().unwrap())
}

fn kill(child: &Child, signal: rustix::process::Signal) {
    // It may have ended by itself.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
}

#[test]
fn what_is_published_is_staged_again_byte_by_byte() {
    let place = Place::new();
    ended(place.publish()).assert_complete();
    place.assert_published();
    ended(place.stage()).assert_complete();
    place.assert_staged();
    let before = place.s3.requests().len();
    ended(place.stage()).assert_complete();
    let again = place.s3.requests().split_off(before);
    assert!(again.iter().all(|request| !request.contains("X-Amz-Signature")), "a file came again: {again:?}");
}

#[test]
fn a_second_publication_replaces_the_first_and_removes_what_is_gone() {
    let place = Place::new();
    ended(place.publish()).assert_complete();
    let folder = place.written();
    std::fs::remove_file(folder.join("checkpoint 1/deep/7.json")).unwrap();
    std::fs::write(folder.join("empty"), "not any more").unwrap();
    ended(place.command(&["publish", folder.to_str().unwrap(), "--to", "s3://artifacts/some/model"])).assert_complete();
    place.assert_published();
}

#[test]
fn links_are_followed_inside_and_never_out() {
    use std::os::unix::fs::symlink;
    let place = Place::new();
    let folder = place.written();
    std::fs::write(place.path("secret"), "of somebody else").unwrap();
    symlink(place.path("secret"), folder.join("out")).unwrap();
    symlink("empty", folder.join("in")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    let done = ended(place.command(&["publish", folder.to_str().unwrap(), "--to", "s3://artifacts/some/model"]));
    done.assert_complete();
    assert!(done.everything.contains("leads out of the folder") && done.everything.contains("leads nowhere"));
    assert!(place.s3.object("some/model/artifacts/in").exists());
    assert!(!place.s3.object("some/model/artifacts/out").exists() && !place.s3.object("some/model/artifacts/dangling").exists());
}

#[test]
fn a_sidecar_publishes_what_is_there_when_it_is_told_to() {
    let place = Place::new();
    let folder = place.path("written");
    std::fs::create_dir(&folder).unwrap();
    let mut command =
        place.command(&["publish", folder.to_str().unwrap(), "--to", "s3://artifacts/some/model", "--after-signal"]);
    let mut child = command.args(["--inputs", "i7"]).spawn().unwrap();
    // It listens for the signal before it says that it waits.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.contains("waiting until")).unwrap();
    place.written();
    assert!(place.s3.requests().is_empty());
    kill(&child, rustix::process::Signal::TERM);
    said.for_each(drop);
    let done = Loaded::of(child.wait_with_output().unwrap());
    done.assert_complete();
    place.assert_published();
    let said: Outcome = serde_json::from_str(&std::fs::read_to_string(place.path("outcome")).unwrap()).unwrap();
    assert!(
        matches!(said, Outcome::Complete { inputs, source, .. } if inputs == "i7" && source.files == 22),
        "{}",
        done.everything
    );
}

#[test]
fn trouble_of_the_server_is_waited_out_both_ways() {
    for fault in [Fault::Answer(503, "SlowDown"), Fault::Answer(500, "InternalError"), Fault::Reset] {
        let place = Place::new();
        for (method, part) in [("PUT", "partNumber=2"), ("PUT", "3.json"), ("PUT", "manifest.json"), ("DELETE", "manifest.json")]
        {
            place.s3.fault(Rule { method, part, fault, times: 1 });
        }
        ended(place.publish()).assert_complete();
        place.assert_published();
        place.s3.fault(Rule { method: "GET", part: "model.safetensors", fault, times: 2 });
        place.s3.fault(Rule { method: "GET", part: "5.json", fault, times: 1 });
        ended(place.stage()).assert_complete();
        place.assert_staged();
    }
}

#[test]
fn bytes_that_are_not_what_the_manifest_says_are_not_staged() {
    let place = Place::new();
    ended(place.publish()).assert_complete();
    std::fs::write(place.s3.object("some/model/artifacts/checkpoint 1/deep/3.json"), "{\"n\":4}").unwrap();
    ended(place.stage()).assert_failed("DigestMismatch", true, &["3.json"]);
}

#[test]
fn an_artifact_without_a_manifest_is_staged_as_it_lies_there_and_none_is_said() {
    let place = Place::new();
    ended(place.stage()).assert_failed("NotFound", true, &["s3://artifacts/some/model"]);
    ended(place.publish()).assert_complete();
    std::fs::remove_file(place.s3.object("some/model/.substratus/manifest.json")).unwrap();
    ended(place.stage()).assert_complete();
    place.assert_staged();
}

#[test]
fn what_changes_is_published_while_the_container_still_runs() {
    let place = Place::new();
    let written = place.written();
    let large = |place: &Place| {
        let of = |request: &&String| request.starts_with("PUT ") && request.contains("model.safetensors");
        place.s3.requests().iter().filter(of).count()
    };
    let mut child = place.publish();
    let child = child.args(["--after-signal", "--every", "1"]).spawn().unwrap();
    let until = |what: &str, now: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !now() {
            assert!(began.elapsed() < Duration::from_mins(1), "{what} never came");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until("the first turn", &|| place.has_manifest());
    let sent = large(&place);
    std::fs::write(written.join("note"), "the work of a day").unwrap();
    std::fs::remove_file(written.join("empty")).unwrap();
    let object = |name: &str| place.s3.object(&format!("{PREFIX}/artifacts/{name}"));
    until("the note", &|| object("note").exists() && !object("empty").exists() && place.has_manifest());
    assert_eq!((sent > 0, large(&place)), (true, sent), "what is the same was sent again");
    kill(&child, rustix::process::Signal::KILL);
    child.wait_with_output().unwrap();
    place.assert_published();
}

#[test]
fn chaos_a_publisher_killed_at_any_moment_leaves_nothing_that_counts() {
    for seed in seeds::all(FEW).unwrap() {
        let (mut chance, place) = (seed.begin(), Place::new());
        for _ in 0..chance.number(1..5) {
            let child = place.publish().spawn().unwrap();
            std::thread::sleep(chance.pause(0..900));
            kill(&child, rustix::process::Signal::KILL);
            child.wait_with_output().unwrap();
            if place.has_manifest() {
                place.assert_published();
            }
        }
        ended(place.publish()).assert_complete();
        place.assert_published();
    }
}

#[test]
fn chaos_a_stage_killed_at_any_moment_goes_on_and_is_whole() {
    for seed in seeds::all(FEW).unwrap() {
        let (mut chance, place) = (seed.begin(), Place::new());
        ended(place.publish()).assert_complete();
        for _ in 0..chance.number(1..5) {
            let child = place.stage().spawn().unwrap();
            std::thread::sleep(chance.pause(0..400));
            kill(&child, rustix::process::Signal::KILL);
            child.wait_with_output().unwrap();
        }
        ended(place.stage()).assert_complete();
        place.assert_staged();
    }
}
