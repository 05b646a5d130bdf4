//! Loads that are killed again and again at moments that a seed picks, on a hub that misbehaves, and that end as one does
//! that nobody disturbed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use substratus_tests::hub::{Fault, Rule};
use substratus_tests::seeds::{self, Chance};

use super::*;

const SIZE: u64 = 32 * MIB;
/// Seeds of a normal run.
const FEW: u64 = 10;

/// What may go wrong besides; each passes by itself.
const TROUBLE: [Fault; 5] =
    [Fault::CutAfter(3 * MIB), Fault::Status(503), Fault::Expired, Fault::ShortBody(1000), Fault::WrongByte];

#[test]
fn chaos_a_load_killed_at_any_moment_ends_as_an_undisturbed_one() {
    let calm = Bench::with_weights(SIZE);
    calm.load().assert_complete();
    let expected = left(&calm);
    for seed in seeds::all(FEW).unwrap() {
        let mut chance = seed.begin();
        let bench = Bench::with_weights(SIZE);
        for _ in 0..chance.number(1..5) {
            disturb(&bench, &mut chance);
        }
        bench.hub.clear_faults();
        bench.load().assert_complete();
        bench.assert_weights();
        assert_eq!(left(&bench), expected);
    }
}

/// Starts a load and kills it; it may be done before that.
fn disturb(bench: &Bench, chance: &mut Chance) {
    bench.hub.clear_faults();
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(chance.number(MIB..8 * MIB))));
    if let Some(fault) = chance.one(&TROUBLE).filter(|_| chance.number(0..2) == 0) {
        bench.hub.fault(Rule::cdn("model.safetensors", *fault).once());
    }
    let (begun, far) = (bench.hub.stats().cdn.bytes, chance.number(0..SIZE));
    let mut child = bench.command().spawn().unwrap();
    // Before the first byte a load has moments too.
    let (started, early) = (Instant::now(), chance.pause(0..600));
    let by_bytes = chance.number(0..4) > 0;
    while child.try_wait().unwrap().is_none() {
        let now = if by_bytes { bench.hub.stats().cdn.bytes - begun >= far } else { started.elapsed() >= early };
        if now {
            let signal = if chance.number(0..4) == 0 { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
            break;
        }
        assert!(started.elapsed() < Duration::from_mins(2), "the load neither moves nor ends");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Its pipes must be read, or it could wait for us.
    child.wait_with_output().unwrap();
}

/// Everything below the target: the content of artifacts, the names of records, and what the manifest says of files.
fn left(bench: &Bench) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![bench.target()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(bench.target()).unwrap().display().to_string();
            let content = match name.strip_prefix(".substratus/") {
                Some(_) => String::new(),
                None => hex::encode(Sha256::digest(std::fs::read(&path).unwrap())),
            };
            found.insert(name, content);
        }
    }
    let manifest = bench.manifest().unwrap();
    found.insert("manifest".to_owned(), format!("{:?} {:?}", manifest.get("revision"), manifest.get("files")));
    found
}
