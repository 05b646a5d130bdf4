//! Loads that end in the middle and go on.

use std::process::Child;
use std::time::{Duration, Instant};

use substratus_tests::hub::{Fault, Rule};

use super::*;

const SIZE: u64 = 96 * MIB;

/// Runs until the CDN has sent `bytes`, slowly enough to be caught in the middle.
fn run_until(bench: &Bench, bytes: u64) -> Child {
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(4 * MIB)));
    let child = bench.command().spawn().unwrap();
    let end = Instant::now() + Duration::from_mins(1);
    while bench.hub.stats().cdn.bytes < bytes {
        assert!(Instant::now() < end, "the load does not get going");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// What the second run fetched.
fn finish(bench: &Bench) -> u64 {
    bench.hub.clear_faults();
    bench.hub.reset_stats();
    bench.load().assert_complete();
    bench.assert_weights();
    bench.hub.stats().cdn.bytes
}

#[test]
fn a_killed_load_goes_on_where_it_was() {
    let bench = Bench::with_weights(SIZE);
    let mut child = run_until(&bench, 72 * MIB);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(bench.manifest().is_none() && !bench.artifact("model.safetensors").exists());
    let sent = bench.hub.stats().cdn.bytes;
    let fetched = finish(&bench);
    // Lost: what was on its way, and what came after the last second's journal.
    let again = (sent + fetched).saturating_sub(SIZE);
    assert!(again < 48 * MIB, "{} MiB came twice", again / MIB);
    assert!(fetched < SIZE, "the second run began from the start");
}

#[test]
fn a_load_that_is_told_to_end_leaves_nothing_to_fetch_again() {
    let bench = Bench::with_weights(SIZE);
    let child = run_until(&bench, 40 * MIB);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let loaded = Loaded::of(child.wait_with_output().unwrap());
    loaded.assert_failed("Unavailable", false, &["interrupted"]);
    let sent = bench.hub.stats().cdn.bytes;
    let again = (sent + finish(&bench)).saturating_sub(SIZE);
    // Six parts, each with a batch and the sockets' buffers on the way.
    assert!(again < 32 * MIB, "{} MiB came twice", again / MIB);
}

#[test]
fn bytes_that_rot_between_runs_are_found_and_fetched_again() {
    use std::os::unix::fs::FileExt;
    let bench = Bench::with_weights(SIZE);
    let mut child = run_until(&bench, 40 * MIB);
    std::thread::sleep(Duration::from_millis(700));
    child.kill().unwrap();
    child.wait().unwrap();
    let partial = std::fs::File::options().write(true).open(bench.artifact("model.safetensors.partial")).unwrap();
    partial.write_all_at(b"rotten", 1000).unwrap();
    let (sent, fetched) = (bench.hub.stats().cdn.bytes, finish(&bench));
    assert!(sent + fetched > SIZE, "the rotten range was kept");
}

#[test]
fn two_loads_do_not_write_to_one_place() {
    let bench = Bench::with_weights(SIZE);
    let mut first = run_until(&bench, MIB);
    bench.load().assert_failed("Unavailable", false, &["another load"]);
    first.kill().unwrap();
    first.wait().unwrap();
    finish(&bench);
}
