//! The plugin store on real disks that are full or cannot be written to, and under processes that are killed while they write. The
//! real program, in a mount namespace of its own; needs root.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use substratus::plugin::Observer;

use super::{Counted, open, score, scoring};
use crate::load::program;

/// Asks a guest, as an author would.
const RUN: &str = r#"run() { "$program" plugin run "$1" --call fit --cache "$cache"; }"#;

/// Runs a script that may mount what it likes.
fn script(text: &str, folder: &Path) -> Output {
    fs::create_dir(folder.join("cache")).unwrap();
    for score in [7, 8] {
        fs::write(folder.join(format!("{score}.wasm")), scoring(score)).unwrap();
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("set -e; {RUN}; {text}")]).current_dir(folder);
    command.env("program", program()).env("cache", folder.join("cache")).stdin(Stdio::null()).output().unwrap()
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_full_disk_costs_time_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let fill = r#"mount -t tmpfs -o size=1m none "$cache"; "$program" plugin inspect 7.wasm --cache "$cache" >&2;
        dd if=/dev/zero of="$cache/fill" bs=4k 2>&1 | grep -q 'No space'; run 7.wasm;
        find "$cache" -type f ! -name fill ! -name key -printf '%P\n'; if run 8.wasm; then exit 9; fi;
        find "$cache" -type f ! -name fill ! -name key -printf '%P\n'"#;
    let output = script(fill, folder.path());
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("\"score\": 7"), "what is there answers: {out}{err}");
    assert!(err.contains("blobs/sha256/") && err.contains("No space left on device"), "what cannot be kept is said: {err}");
    let left: Vec<&str> = out.lines().filter(|line| line.contains('/') && !line.starts_with("notes/")).collect();
    assert!(left.len() == 2 && left.iter().all(|file| file.starts_with("blobs/sha256/")), "{left:?}");
}

#[test]
fn a_disk_that_cannot_be_written_to_serves_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let seal = r#"run 7.wasm >&2; mount --bind "$cache" "$cache"; mount -o remount,bind,ro "$cache"; run 7.wasm;
        if run 8.wasm; then exit 9; fi"#;
    let output = script(seal, folder.path());
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("\"score\": 7"), "{out}{err}");
    assert!(err.contains("blobs/sha256/") && err.contains("Read-only file system"), "{err}");
}

/// Writers that are killed at any moment, several at a time in one store: nobody ever sees half of a file.
#[tokio::test]
async fn writers_that_are_killed_leave_whole_files_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let scores = 1..=4_u8;
    for score in scores.clone() {
        fs::write(folder.path().join(format!("{score}.wasm")), scoring(score)).unwrap();
    }
    for round in 0..12_u64 {
        let mut writers: Vec<_> = scores
            .clone()
            .map(|score| {
                let mut command = Command::new(program());
                command.args(["plugin", "check"]).arg(folder.path().join(format!("{score}.wasm"))).arg("--cache").arg(&cache);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
            })
            .collect();
        for (at, writer) in writers.iter_mut().enumerate() {
            // Any moment will do: no answer depends on which.
            std::thread::sleep(Duration::from_millis((round * 7 + at as u64 * 13) % 60));
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        let plugins = open(&cache);
        let counted = Arc::new(Counted::default());
        plugins.observe(Arc::clone(&counted) as Arc<dyn Observer>);
        for wanted in scores.clone() {
            let digest = plugins.add(&scoring(wanted)).unwrap().digest;
            assert_eq!(score(&plugins, &digest).await, wanted, "round {round}");
        }
        assert_eq!(counted.tampered.load(Ordering::Relaxed), 0, "half of a file was seen in round {round}");
        fs::remove_dir_all(cache.join("aot")).unwrap();
        fs::remove_dir_all(cache.join("blobs")).unwrap();
    }
}
