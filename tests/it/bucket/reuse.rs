//! Files that another artifact of the same bucket has: the store copies them, and no byte passes through the worker on its way.

use substratus::worker::report::Outcome;
use substratus_tests::s3::{Fault, Rule};

use super::*;

const SIZE: u64 = 30 * MIB;

impl Bench {
    fn run_second(&self, place: &str) -> Loaded {
        let mut command = self.command_to(&format!("s3://{BUCKET}/second"));
        Loaded::of(command.args(["--reuse", place, "--log-filter", "info"]).output().unwrap())
    }

    /// Every file and the manifest are there, whole, and nothing else.
    fn assert_second(&self) {
        let objects = self.assert_all_below("second");
        let weights = std::fs::read(&objects["artifacts/model.safetensors"]).unwrap();
        assert_eq!(hex::encode(Sha256::digest(weights)), self.sha256("model.safetensors"));
    }
}

/// Bytes of the files beside the weights.
fn small(loaded: &Loaded) -> u64 {
    let Outcome::Complete { source, .. } = &loaded.outcome else { return u64::MAX };
    u64::try_from(source.bytes).unwrap() - SIZE
}

fn reused(loaded: &Loaded) -> u64 {
    let Outcome::Complete { reused, .. } = &loaded.outcome else { return u64::MAX };
    *reused
}

#[test]
fn the_store_copies_what_it_has() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    bench.hub.reset_stats();
    let before = bench.s3.requests().len();
    let second = bench.run_second(&format!("s3://{BUCKET}/some/model"));
    second.assert_complete();
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (SIZE + small(&second), 0), "{}", second.everything);
    bench.assert_second();
    let requests = bench.s3.requests().split_off(before);
    let about = |request: &&String| request.contains("model.safetensors");
    let sent: Vec<_> = requests.iter().filter(about).collect();
    assert!(sent.iter().all(|request| !request.contains("uploadId")), "parts were sent: {sent:?}");
    // One copy to look at, read once, and one under its name.
    let count = |method: &str| sent.iter().filter(|request| request.starts_with(method)).count();
    assert_eq!((count("PUT "), count("GET "), count("DELETE ")), (2, 1, 1), "{sent:?}");
    bench.assert_whole();
}

#[test]
fn an_object_that_is_not_what_its_record_says_is_fetched_and_never_shown() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    let object = bench.s3.object("some/model/artifacts/model.safetensors");
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[20_000_000] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    bench.hub.reset_stats();
    let before = bench.s3.requests().len();
    let second = bench.run_second(&format!("s3://{BUCKET}/some/model"));
    second.assert_complete();
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (small(&second), SIZE), "{}", second.everything);
    assert!(second.everything.contains("not what its record says"), "{}", second.everything);
    bench.assert_second();
    let requests = bench.s3.requests().split_off(before);
    let shown = |request: &&String| request.starts_with("PUT ") && request.contains("second/artifacts/model.safetensors");
    assert!(requests.iter().filter(shown).all(|request| request.contains("uploadId")), "the copy was shown: {requests:?}");
}

#[test]
fn a_place_that_cannot_be_copied_from_is_left_alone() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    let folder = bench.folder.path().display().to_string();
    for place in [folder.as_str(), "s3://no-such-bucket/some/model", &format!("s3://{BUCKET}/nothing")] {
        bench.hub.reset_stats();
        let second = bench.run_second(place);
        second.assert_complete();
        assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (0, SIZE), "{place}: {}", second.everything);
        bench.assert_second();
        std::fs::remove_dir_all(bench.s3.object("second")).unwrap();
    }
}

#[test]
fn a_copy_that_a_killed_load_left_goes_away() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    let left = bench.s3.object("second/.substratus/aside/old.safetensors");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "left").unwrap();
    bench.run_second(&format!("s3://{BUCKET}/some/model")).assert_complete();
    bench.assert_second();
}

#[test]
fn what_is_too_large_for_one_request_is_copied_in_parts() {
    // S3 refuses so what is larger than 5 GiB; others have another code.
    for code in ["InvalidRequest", "EntityTooLarge"] {
        let bench = Bench::new(SIZE);
        bench.run().assert_complete();
        bench.hub.reset_stats();
        for part in ["second/.substratus/aside/model.safetensors", "second/artifacts/model.safetensors"] {
            bench.s3.fault(Rule { method: "PUT", part, fault: Fault::Answer(400, code), times: 1 });
        }
        let second = bench.run_second(&format!("s3://{BUCKET}/some/model"));
        second.assert_complete();
        assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (SIZE + small(&second), 0), "{}", second.everything);
        bench.assert_second();
        let requests = bench.s3.requests();
        let parts = requests.iter().filter(|request| request.starts_with("PUT ") && request.contains("second/artifacts/model"));
        assert_eq!(parts.filter(|request| request.contains("partNumber")).count(), 4, "{requests:?}");
    }
}

#[test]
fn what_cannot_be_copied_at_all_is_fetched() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    bench.hub.reset_stats();
    let part = "second/.substratus/aside/model.safetensors";
    bench.s3.fault(Rule { method: "PUT", part, fault: Fault::Answer(400, "InvalidRequest"), times: u32::MAX });
    let second = bench.run_second(&format!("s3://{BUCKET}/some/model"));
    second.assert_complete();
    assert_eq!((reused(&second), bench.hub.stats().cdn.bytes), (small(&second), SIZE), "{}", second.everything);
    bench.assert_second();
}
