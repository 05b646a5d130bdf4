//! Hostile loaders in the real worker program: it ends with a typed outcome, soon, and leaves nothing at the target. Knows what
//! each guest is told to do, and nothing of how it is stopped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use substratus::worker::report::{EXIT_FINAL, Outcome};
use substratus_tests::guests::{self, root};

use crate::load::program;

/// How a load of a hostile loader ends: reason, message, exit code.
fn load(guest: &str, how: &str) -> (String, String, Option<i32>) {
    let target = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command.args(["load", "hostile://anything", "-o", "json", "--attempts", "2", "--stall", "2", "--to"]);
    command.arg(target.path()).arg("--plugin").arg(guests::component(&format!("tests/guests/{guest}")).unwrap());
    command.arg("--plugin-cache").arg(root().join("target/guests/cache")).args(["--param", &format!("do={how}")]);
    let output = command.env("HUB_TOKEN", "hub_it_secret").stdin(Stdio::null()).output().unwrap();
    let (out, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!out.contains("hub_it_secret") && !log.contains("hub_it_secret"), "{how}: a secret shows: {out}{log}");
    assert!(!log.contains('\u{1b}') && !log.contains('\0'), "{how}: control characters reach the log: {log:?}");
    let files = walk(target.path());
    let unfinished = |file: &String| file.contains(".substratus/") || file.ends_with(".partial");
    assert!(files.iter().all(unfinished), "{how}: something lies at the target: {files:?}");
    assert!(!files.iter().any(|file| file.ends_with("manifest.json")), "{how}: it is called complete");
    match serde_json::from_str(out.trim()) {
        Ok(Outcome::Failed { reason, message, .. }) => (reason, message, output.status.code()),
        other => panic!("{how}: {other:?}: {out}{log}"),
    }
}

fn walk(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path.to_string_lossy().into_owned()] }).collect()
}

fn fails(guest: &str, how: &str, reason: &str, code: u8, words: &[&str]) {
    let start = Instant::now();
    let (found, message, exit) = load(guest, how);
    assert_eq!((found.as_str(), exit), (reason, Some(code.into())), "{how}: {message}");
    assert!(message.len() < 4_000 && !message.contains(char::is_control), "{how}: {message:?}");
    for word in words {
        assert!(message.contains(word), "{how}: `{word}` is not in: {message}");
    }
    assert!(start.elapsed() < Duration::from_secs(90), "{how} took {:?}", start.elapsed());
}

#[test]
fn a_loader_that_never_answers_is_stopped_and_named() {
    for (how, words) in [
        ("loop", &["`hostile-loader` hit a limit in `resolve`", "processor time is at most 5000 ms"][..]),
        ("eat", &["memory is at most 256 MiB"]),
        ("eat-at-once", &["memory is at most 256 MiB"]),
        ("recurse", &["the guest's stack is at most 512 KiB"]),
        ("trap", &["crashed in `resolve`", "unreachable"]),
        ("divide", &["crashed in `resolve`", "attempt to divide by zero"]),
        ("panic", &["crashed in `resolve`", "a panic with 5 words of nonsense", "src/burn.rs"]),
        ("huge", &["data from guest to host is at most 4096 KiB"]),
        ("log-too-long", &["data from guest to host is at most 4096 KiB"]),
        ("invalid-utf8", &["utf-8"]),
        ("same-cursor", &["the plan would never end"]),
    ] {
        fails("loader", how, "PluginFailed", EXIT_FINAL, words);
    }
    fails("start", "", "PluginFailed", EXIT_FINAL, &["processor time is at most 5000 ms"]);
}

#[test]
fn a_plan_that_never_ends_is_noticed() {
    fails("loader", "endless-empty", "PluginFailed", EXIT_FINAL, &["more than 10000 pages"]);
}

#[test]
fn a_plan_that_leaves_its_target_or_its_grant_stops_before_the_first_byte() {
    for (how, reason, words) in [
        ("absolute", "PluginFailed", &["`/etc/passwd`", "it is absolute"][..]),
        ("dotdot", "PluginFailed", &["`a/../../b`", "`..`"]),
        ("backslash", "PluginFailed", &["backslash"]),
        ("empty-path", "PluginFailed", &["it is empty"]),
        ("control-path", "PluginFailed", &["control character"]),
        ("long-path", "PluginFailed", &["at most 1024"]),
        ("records-path", "PluginFailed", &["`..`"]),
        ("duplicate", "PluginFailed", &["comes twice"]),
        ("case", "PluginFailed", &["differs from another only in case"]),
        ("file-and-folder", "PluginFailed", &["a file and a folder"]),
        ("outside", "PluginDenied", &["https://evil.example", "grant `https://evil.example`"]),
        ("metadata-url", "PluginDenied", &["http://169.254.169.254"]),
        ("secret-elsewhere", "PluginDenied", &["https://evil.example"]),
        ("file-url", "PluginFailed", &["its scheme is none of http, https"]),
        ("userinfo-url", "PluginFailed", &["holds a credential"]),
        ("origin-header", "PluginFailed", &["is the host's to set"]),
        ("origin-split", "PluginFailed", &["is malformed"]),
        ("object", "PluginFailed", &["scheme"]),
        ("oci", "PluginFailed", &["the repository of `a`", "is no reference"]),
        ("sha1", "PluginFailed", &["only sha256"]),
        ("not-hex", "PluginFailed", &["no sha256"]),
        ("no-revision", "PluginFailed", &["revision is empty"]),
        ("revision-control", "PluginFailed", &["control character"]),
        ("moving", "PluginFailed", &["all pages of a plan have one"]),
        ("entrypoint", "PluginFailed", &["at most 512"]),
        ("empty", "NotFound", &["no file that was asked for"]),
        ("failure-control", "NotFound", &["first second"]),
        ("failure-many", "Invalid", &["spec.source: no"]),
        ("nonsense", "Invalid", &["spec.params.do"]),
    ] {
        fails("loader", how, reason, if reason == "NotFound" { 68 } else { EXIT_FINAL }, words);
    }
}

#[test]
fn a_request_outside_the_grant_is_refused_with_the_grant_that_would_allow_it() {
    for (how, words) in [
        ("http-outside", &["Denied", "grant `https://evil.example`"][..]),
        ("http-userinfo", &["Denied", "https://evil.example"]),
        ("http-scheme", &["Denied"]),
        ("http-metadata", &["Denied", "169.254.169.254"]),
        ("http-loopback", &["Denied", "127.0.0.1"]),
        ("http-mapped", &["Denied"]),
        ("http-header", &["Denied", "authorization"]),
        ("http-cookie", &["Denied", "cookie"]),
        ("http-host", &["Denied", "host"]),
        ("http-proxy", &["Denied", "proxy-authorization"]),
        ("http-split", &["Invalid", "malformed"]),
        ("http-secret-elsewhere", &["Denied", "https://evil.example"]),
    ] {
        fails("loader", how, "PluginFailed", EXIT_FINAL, words);
    }
}

/// What is said at length, often or in colour is cut, counted and made one line.
#[test]
fn answers_that_flood_are_bounded() {
    fails("loader", "size-overflow", "TooLarge", 71, &["18446744073709551615 bytes"]);
    fails("loader", "many-files", "PluginFailed", EXIT_FINAL, &["data from guest to host is at most 4096 KiB"]);
    fails("loader", "http-flood", "PluginFailed", EXIT_FINAL, &["0 answered", "at most 50 HTTP requests"]);
    // The plan is good but for what is too much of it: the worker gets as far as the file, which nobody has.
    for how in ["deep-json", "warnings", "log-flood", "log-long", "log-control", "secret-unknown"] {
        fails("loader", how, "Unavailable", 1, &["cannot fetch `a`", "https://hub.example/a"]);
    }
    fails("loader", "failure-long", "NotFound", 68, &["xxx"]);
}

#[test]
fn a_source_that_asks_to_wait_for_a_century_is_left_to_the_operator() {
    fails("loader", "rate-limited", "RateLimited", 67, &[]);
}
