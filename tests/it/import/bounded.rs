//! What an import holds in memory does not grow with what it imports: the largest of its processes stays below what its pod asks
//! for, with room to spare.

use std::io::Write as _;
use std::process::{Command, Stdio};

use substratus_tests::bench::child;
use substratus_tests::hub::{Content, Repo};

use super::{Bench, HTTP};

const MIB: u64 = 1 << 20;
/// A worker's pod asks for 256 MiB; about 35 are used.
const BOUND: u64 = 64 * MIB;
/// What ten times the rows may add: noise, where a copy of them would add hundreds.
const GROWTH: u64 = 16 * MIB;

/// Rows of so many MiB, compressed; returns how many there are.
fn rows(to: &std::path::Path, size: usize) -> usize {
    let file = std::fs::File::create(to).unwrap();
    let mut gzip = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(file).spawn().unwrap();
    let mut pipe = std::io::BufWriter::new(gzip.stdin.take().unwrap());
    let (mut written, mut count) = (0, 0);
    while written < size {
        let row =
            format!("{{\"id\":{count},\"prompt\":\"what is the number after {count}?\",\"completion\":\"{}\"}}\n", count + 1);
        pipe.write_all(row.as_bytes()).unwrap();
        written += row.len();
        count += 1;
    }
    drop(pipe);
    assert!(gzip.wait().unwrap().success());
    count
}

#[test]
fn memory_of_an_import_does_not_grow_with_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small.jsonl.gz"), folder.path().join("large.jsonl.gz"));
    let counts = [rows(&small, 30 << 20), rows(&large, 300 << 20)];
    let repo = Repo::dataset("acme/data")
        .file("small.jsonl.gz", Content::file(&small).unwrap())
        .file("large.jsonl.gz", Content::file(&large).unwrap());
    let bench = Bench::new(repo);
    // Whoever compiles the importer holds more.
    bench.complete(HTTP, &[&bench.url("small.jsonl.gz")]);
    let peaks = ["small", "large"].map(|name| {
        let target = folder.path().join(name);
        let mut command = bench.command(HTTP, &target);
        command.args([&bench.url(&format!("{name}.jsonl.gz")), "--param", "format=jsonl"]);
        let (status, cost) = child::run(command.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
        assert!(status.success(), "{name}: {status}");
        let text = std::fs::read_to_string(target.join("artifacts").join(format!("{name}.jsonl"))).unwrap();
        (text.lines().count(), cost.peak_bytes)
    });
    assert_eq!(peaks.map(|(rows, _)| rows), counts);
    let [small, large] = peaks.map(|(_, peak)| peak);
    assert!(large < BOUND, "{} MiB", large / MIB);
    assert!(large < small + GROWTH, "{} MiB, and {} MiB for a tenth of it", large / MIB, small / MIB);
}
