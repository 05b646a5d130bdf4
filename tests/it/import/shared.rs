//! Imports that are killed, and imports by several processes: what is done stays done, and the files are the same in every case.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use substratus::worker::report::Outcome;
use substratus_tests::hub::{Fault, Repo, Rule};

use super::{Bench, HTTP};

const SHARDS: usize = 8;
const ROWS: usize = 2000;

/// A data set of several files, and what to say to import their rows.
fn bench() -> (Bench, Vec<String>) {
    let mut repo = Repo::dataset("acme/data").lfs_threshold(1);
    for shard in 0..SHARDS {
        let mut rows = String::from("prompt,n\n");
        for row in 0..ROWS {
            writeln!(rows, "question {row} of {shard},{row}").unwrap();
        }
        repo = repo.file(&format!("part-{shard}.csv"), rows.as_str());
    }
    let bench = Bench::new(repo);
    let urls: Vec<String> = (0..SHARDS).map(|shard| bench.url(&format!("part-{shard}.csv"))).collect();
    let urls = format!("urls={}", urls.join(","));
    let args = ["--image", "substratusai/dataset-loader-http", "--param", &urls, "--param", "format=jsonl"];
    let args = args.map(str::to_owned).to_vec();
    (bench, args)
}

/// As a status counts the rows of so many shards.
fn rows(shards: usize) -> Option<i64> {
    i64::try_from(shards * ROWS).ok()
}

/// A process of an import; its words go nowhere.
struct Process(Child);

impl Process {
    fn start(bench: &Bench, to: &Path, args: &[String], more: &[&str]) -> Self {
        let mut command = bench.command(HTTP, to);
        Self(command.args(args).args(more).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn complete(self) -> substratus_crds::SourceStatus {
        let output = self.0.wait_with_output().unwrap();
        match serde_json::from_slice(&output.stdout).unwrap() {
            Outcome::Complete { source, .. } => source,
            Outcome::Failed { .. } => panic!("{}", String::from_utf8_lossy(&output.stdout)),
        }
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Every file of an artifact and the manifest beside it.
fn everything(target: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all: BTreeMap<_, _> = std::fs::read_dir(target.join("artifacts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap()))
        .collect();
    all.insert("the manifest".into(), std::fs::read(target.join(".substratus/manifest.json")).unwrap());
    all
}

/// Which shards of an import are done.
fn done(target: &Path) -> Vec<usize> {
    let record = |shard: &usize| target.join(format!(".substratus/shards/{shard:06}/.substratus/shard.json")).exists();
    (0..SHARDS).filter(record).collect()
}

fn wait_until(what: &str, check: impl Fn() -> bool) {
    let since = Instant::now();
    while !check() {
        assert!(since.elapsed() < Duration::from_mins(1), "waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_import_repeats_only_what_was_not_done() {
    let (bench, args) = bench();
    let whole = bench.folder.path().join("whole");
    let source = Process::start(&bench, &whole, &args, &[]).complete();
    assert_eq!((source.rows, source.files), (rows(SHARDS), 8));

    let target = bench.target();
    bench.hub.fault(Rule::cdn("part-5.csv", Fault::StallAfter(1000)));
    let first = Process::start(&bench, &target, &args, &["--stall", "60"]);
    wait_until("the shards before the slow one", || done(&target).iter().take(5).eq(&[0, 1, 2, 3, 4]));
    first.kill();
    let done = done(&target);
    assert!(!done.contains(&5) && !target.join(".substratus/manifest.json").exists());

    bench.hub.clear_faults();
    bench.hub.reset_stats();
    assert_eq!(Process::start(&bench, &target, &args, &[]).complete(), source);
    assert!(everything(&target) == everything(&whole), "the files are those of an import in one go");
    // Of those that were not done, some may have had their inputs.
    let stats = bench.hub.stats();
    let fetched = |shard: usize| stats.cdn.bytes_with(&format!("part-{shard}.csv"));
    assert!(fetched(5) > 0, "the one that was cut off");
    for shard in done {
        assert_eq!(fetched(shard), 0, "shard {shard} was done");
    }
}

#[test]
fn the_files_are_the_same_however_many_processes_make_them() {
    let (bench, args) = bench();
    let alone = bench.folder.path().join("alone");
    let source = Process::start(&bench, &alone, &args, &[]).complete();
    for processes in [1, 2, 3] {
        bench.hub.reset_stats();
        let target = bench.folder.path().join(format!("by-{processes}"));
        let shares: Vec<String> = (0..processes).map(|index| format!("--share={index}/{processes}")).collect();
        // Whoever has a share may come before the plan.
        let shares: Vec<_> = shares.iter().map(|share| Process::start(&bench, &target, &args, &[share])).collect();
        let lead = Process::start(&bench, &target, &args, &["--lead"]);
        assert_eq!(lead.complete(), source);
        for share in shares {
            share.complete();
        }
        assert!(everything(&target) == everything(&alone), "by {processes}");
        let fetched = bench.hub.stats();
        let size = std::fs::metadata(alone.join("artifacts/part-0.jsonl")).unwrap().len();
        for shard in 0..SHARDS {
            let fetched = fetched.cdn.bytes_with(&format!("part-{shard}.csv"));
            assert!(fetched > 0 && fetched < size, "shard {shard} was fetched more than once: {fetched}");
        }
    }
}

#[test]
fn a_share_that_died_is_taken_up_where_it_stopped() {
    let (bench, args) = bench();
    let target = bench.target();
    bench.hub.fault(Rule::cdn("part-5.csv", Fault::StallAfter(1000)));
    let lead = Process::start(&bench, &target, &args, &["--lead"]);
    let even = Process::start(&bench, &target, &args, &["--share=0/2"]);
    let odd = Process::start(&bench, &target, &args, &["--share=1/2", "--stall", "60"]);
    wait_until("all but one shard", || done(&target).len() == SHARDS - 1);
    odd.kill();
    assert_eq!(even.complete().rows, rows(SHARDS / 2));
    bench.hub.clear_faults();
    bench.hub.reset_stats();
    // As a Job does with an index that failed; the leader would do it too, later.
    let again = Process::start(&bench, &target, &args, &["--share=1/2"]);
    assert_eq!(lead.complete().rows, rows(SHARDS));
    again.complete();
    let stats = bench.hub.stats();
    let fetched: Vec<_> = (0..SHARDS).filter(|shard| stats.cdn.bytes_with(&format!("part-{shard}.csv")) > 0).collect();
    assert_eq!(fetched, [5]);
}

#[test]
fn a_leader_whose_team_is_gone_ends_the_work() {
    let (bench, args) = bench();
    let target = bench.target();
    // Nobody holds a shard, and none gets done: after a while the leader does them.
    assert_eq!(Process::start(&bench, &target, &args, &["--lead"]).complete().rows, rows(SHARDS));
}
