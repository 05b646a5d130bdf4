//! Importers that mean harm, in the real program: each is stopped where it is, the user is told, and nothing of it looks like an
//! artifact. Knows no real importer.

use std::time::Instant;

use substratus::worker::report::{EXIT_FINAL, Outcome};
use substratus_tests::hub::Repo;

use super::Bench;

const GUEST: &str = "tests/guests/importer";
const ROWS: &str = "{\"a\":1}\n{\"a\":2}\n";

fn bench() -> Bench {
    Bench::new(Repo::dataset("acme/data").file("rows.jsonl", ROWS))
}

/// Runs the guest in its way and returns what the user is told: exit code, reason, message.
fn told(bench: &Bench, how: &str) -> (i32, String, String) {
    let (how, url) = (format!("do={how}"), format!("url={}", bench.url("rows.jsonl")));
    match bench.import(GUEST, &["--param", &how, "--param", &url]) {
        (Some(code), Outcome::Failed { reason, message, .. }) => (code, reason, message),
        other => panic!("{how}: {other:?}"),
    }
}

/// Every way ends for good with this reason, with these words, and leaves nothing behind.
fn refused(cases: &[(&str, &str, &str)]) {
    let bench = bench();
    let mut wrong = Vec::new();
    for (how, reason, words) in cases {
        let (code, found, message) = told(&bench, how);
        let last = match *reason {
            "NotFound" => 68,
            "TooLarge" => 71,
            _ => i32::from(EXIT_FINAL),
        };
        if code != last || found != *reason || !message.contains(words) {
            wrong.push(format!("{how}: {code} {found}: {message}"));
        }
        assert!(!bench.target().join(".substratus/manifest.json").exists(), "{how} left a manifest");
        assert!(bench.files().is_empty(), "{how} left {:?}", bench.files());
        let outside = std::fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let outside: Vec<_> = outside.filter(|name| name != "data" && name != "outcome").collect();
        assert!(outside.is_empty(), "{how} left {outside:?}");
        assert!(!std::path::Path::new("/tmp/substratus-evil.jsonl").exists(), "{how} wrote to /tmp");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The same folder takes the next import.
    let url = format!("url={}", bench.url("rows.jsonl"));
    assert_eq!(bench.complete(GUEST, &["--param", "do=good", "--param", &url]).rows, Some(2));
    assert_eq!(bench.text("out.jsonl"), ROWS);
}

#[test]
fn plans_that_nobody_should_follow_are_not_followed() {
    refused(&[
        ("input-dotdot", "PluginFailed", "../../in.jsonl"),
        ("input-absolute", "PluginFailed", "/tmp/in.jsonl"),
        ("outside", "PluginDenied", "elsewhere.example"),
        ("file-url", "PluginFailed", "file:///etc/passwd"),
        ("metadata-url", "PluginDenied", "169.254.169.254"),
        ("twice", "PluginFailed", "`one` comes twice"),
        ("same-input", "PluginFailed", "`in.jsonl` comes twice"),
        ("endless", "TooLarge", "shards"),
        ("endless-empty", "PluginFailed", "10000 pages"),
        ("license-control", "PluginFailed", "control character"),
        ("no-shards", "NotFound", "no data"),
        ("many-inputs", "PluginFailed", "64"),
        ("output-dotdot", "PluginFailed", "../../evil.jsonl"),
        ("output-absolute", "PluginFailed", "/tmp/substratus-evil.jsonl"),
        ("output-records", "PluginFailed", ".substratus"),
    ]);
}

#[test]
fn transforms_that_run_away_are_stopped() {
    refused(&[
        ("eat", "PluginFailed", "memory"),
        ("trap", "PluginFailed", "unreachable"),
        ("panic", "PluginFailed", "unreachable"),
        ("recurse", "PluginFailed", "stack"),
        ("row-bomb", "PluginFailed", "what a shard writes"),
        ("long-row", "PluginFailed", "what a shard writes"),
        ("files", "PluginFailed", "the files of a shard"),
        ("open-files", "PluginFailed", "the open files of a shard"),
    ]);
}

#[test]
fn transforms_that_leave_the_artifact_or_lie_are_refused() {
    refused(&[
        ("open-dotdot", "PluginFailed", "../../evil.jsonl"),
        ("open-absolute", "PluginFailed", "/tmp/substratus-evil.jsonl"),
        ("open-records", "PluginFailed", ".substratus"),
        ("open-twice", "PluginFailed", "only in case"),
        ("miscount", "PluginFailed", "reports 3 rows and wrote 2"),
        ("http", "PluginFailed", "no network"),
    ]);
}

#[test]
fn a_transform_that_is_stuck_ends_at_its_processor_limit() {
    let since = Instant::now();
    refused(&[("loop", "PluginFailed", "processor time"), ("read-nothing", "PluginFailed", "processor time")]);
    assert!(since.elapsed().as_secs() < 300, "{:?}", since.elapsed());
}

#[test]
fn a_row_that_is_too_long_is_bad_data() {
    let row = format!("{{\"a\":\"{}\"}}\n", "x".repeat(20 << 20));
    let bench = Bench::new(Repo::dataset("acme/data").file("rows.jsonl", row.as_str()));
    let (code, reason, message) = told(&bench, "good");
    assert_eq!((code, reason.as_str()), (71, "TooLarge"), "{message}");
    assert!(message.contains("rows.jsonl") || message.contains("in.jsonl"), "{message}");
}

#[test]
fn control_characters_of_an_importer_reach_nobody() {
    let bench = bench();
    let url = format!("url={}", bench.url("rows.jsonl"));
    let source = bench.complete(GUEST, &["--param", "do=partial-control", "--param", &url]);
    let words = source.partial.unwrap();
    assert!(words.contains("nothing") && !words.chars().any(char::is_control), "{words:?}");
}
