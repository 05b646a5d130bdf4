//! Loads into a bucket: whole, killed at any moment, and after the plan has changed.

use substratus_tests::hub::{Fault, Rule};
use substratus_tests::seeds;

use super::*;

/// Six parts and a bit.
const SIZE: u64 = 50 * MIB;
/// Seeds of a normal run.
const FEW: u64 = 10;

#[test]
fn a_load_into_a_bucket_is_whole_and_a_second_one_does_nothing() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    bench.assert_whole();
    let (written, fetched) = (bench.s3.requests().len(), bench.hub.stats().cdn.bytes);
    bench.run().assert_complete();
    let again: Vec<_> = bench.s3.requests().split_off(written);
    assert!(again.iter().all(|request| request.starts_with("GET ")), "{again:?}");
    assert_eq!(bench.hub.stats().cdn.bytes, fetched);
}

#[test]
fn nothing_is_visible_before_it_is_whole_and_a_killed_load_goes_on() {
    // Twice what is held in memory, and more.
    const SIZE: u64 = 130 * MIB;
    let bench = Bench::new(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(4 * MIB)));
    let mut child = bench.run_until(|| bench.hub.stats().cdn.bytes >= 110 * MIB);
    child.kill().unwrap();
    child.wait_with_output().unwrap();
    assert!(bench.manifest().is_none() && !bench.s3.object("some/model/artifacts/model.safetensors").exists());
    let sent = bench.hub.stats().cdn.bytes;
    bench.hub.clear_faults();
    bench.run().assert_complete();
    bench.assert_whole();
    // Lost: what was held in memory, and what came after the last second's record.
    let again = bench.hub.stats().cdn.bytes.saturating_sub(SIZE);
    assert!(again < 80 * MIB && sent >= 110 * MIB, "{} MiB came twice", again / MIB);
}

#[test]
fn an_upload_of_a_plan_that_changed_is_given_up() {
    let bench = Bench::new(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(2 * MIB)));
    let mut child = bench.run_until(|| bench.hub.stats().cdn.bytes >= 20 * MIB);
    child.kill().unwrap();
    child.wait_with_output().unwrap();
    assert_eq!(bench.s3.uploads().unwrap(), 1);
    let ended = Loaded::of(bench.command().args(["--include", "*.json"]).output().unwrap());
    ended.assert_complete();
    assert_eq!(bench.s3.uploads().unwrap(), 0);
    assert!(!bench.s3.object("some/model/artifacts/model.safetensors").exists());
}

#[test]
fn bytes_that_are_wrong_once_come_again_and_always_wrong_ones_never_appear() {
    let bench = Bench::new(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::WrongByte).once());
    bench.run().assert_complete();
    bench.assert_whole();
    let bench = Bench::new(20 * MIB);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::WrongByte));
    bench.run().assert_failed("DigestMismatch", true, &["model.safetensors"]);
    assert!(bench.manifest().is_none() && !bench.s3.object("some/model/artifacts/model.safetensors").exists());
    assert_eq!(bench.s3.uploads().unwrap(), 0);
}

#[test]
fn memory_stays_bounded_whatever_the_size() {
    let bench = Bench::new(400 * MIB);
    let (loaded, peak) = Loaded::with_peak(&mut bench.command());
    loaded.assert_complete();
    assert!(peak > 0 && peak < 128 * 1024, "{peak} KiB were resident");
}

#[test]
fn chaos_a_load_into_a_bucket_killed_at_any_moment_ends_as_an_undisturbed_one() {
    for seed in seeds::all(FEW).unwrap() {
        let mut chance = seed.begin();
        let bench = Bench::new(SIZE);
        for _ in 0..chance.number(1..5) {
            bench.hub.clear_faults();
            bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(chance.number(2 * MIB..8 * MIB))));
            let (begun, far) = (bench.hub.stats().cdn.bytes, chance.number(0..SIZE));
            let (started, early) = (Instant::now(), chance.pause(0..1500));
            let by_bytes = chance.number(0..3) > 0;
            let far = || if by_bytes { bench.hub.stats().cdn.bytes - begun >= far } else { started.elapsed() >= early };
            let child = bench.run_until(far);
            let signal = if chance.number(0..4) == 0 { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
            // It may be done before.
            let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
            child.wait_with_output().unwrap();
            let visible = bench.s3.object("some/model/artifacts/model.safetensors");
            if visible.exists() {
                assert_eq!(hex::encode(Sha256::digest(std::fs::read(visible).unwrap())), bench.sha256("model.safetensors"));
            }
        }
        bench.hub.clear_faults();
        bench.run().assert_complete();
        bench.assert_whole();
    }
}

#[test]
fn an_upload_that_no_record_speaks_of_is_given_up_by_the_next_load() {
    let bench = Bench::new(SIZE);
    bench.run().assert_complete();
    // Of a load that was killed between the beginning of an upload and its record, and of somebody else's.
    bench.begin_upload("some/model/artifacts/model.safetensors");
    bench.begin_upload("some/model/.substratus/aside/model.safetensors");
    bench.begin_upload("some/model-of-another/artifacts/model.safetensors");
    assert_eq!(bench.s3.uploads().unwrap(), 3);
    std::fs::remove_file(bench.s3.object("some/model/.substratus/manifest.json")).unwrap();
    let ended = bench.run();
    ended.assert_complete();
    assert_eq!(bench.s3.uploads().unwrap(), 1, "{}", ended.everything);
}

#[test]
fn whoever_may_not_list_uploads_loads_all_the_same() {
    let bench = Bench::new(20 * MIB);
    bench.s3.fault(rule("GET", "uploads", 403, "AccessDenied"));
    bench.run().assert_complete();
    bench.assert_whole();
}

fn rule(method: &'static str, part: &'static str, status: u16, code: &'static str) -> substratus_tests::s3::Rule {
    substratus_tests::s3::Rule { method, part, fault: substratus_tests::s3::Fault::Answer(status, code), times: u32::MAX }
}
