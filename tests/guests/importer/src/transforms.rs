//! Transforms that never end, write what nobody asked for, or lie about it. Plans nothing.

use std::hint::black_box;

use substratus_plugin::Failure;
use substratus_plugin::http::{self, HostHttp, Http};
use substratus_plugin::importer::ShardReport;
use substratus_plugin::io::{Input, Lines, Outputs};

const BLOCK: usize = 256 * 1024;

/// Maps a shard as `how` says.
pub fn transform(how: &str, inputs: &[&dyn Input], outputs: &dyn Outputs) -> Result<ShardReport, Failure> {
    match how {
        "loop" => loop {
            black_box(0);
        },
        "eat" => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1_u8; 16 << 20]);
                black_box(&eaten);
            }
        }
        "trap" => trap(),
        "panic" => panic!("as asked"),
        "recurse" => Err(Failure::Internal(recurse(0).to_string())),
        "row-bomb" => {
            let rows = "{\"a\":1}\n".repeat(BLOCK / 8);
            let out = outputs.open("out.jsonl")?;
            loop {
                out.write(rows.as_bytes())?;
            }
        }
        "long-row" => {
            let (out, row) = (outputs.open("out.jsonl")?, vec![b'x'; BLOCK]);
            loop {
                out.write(&row)?;
            }
        }
        "files" => {
            let mut number = 0_u64;
            loop {
                outputs.open(&format!("{number}.jsonl"))?.write(b"{}\n")?;
                number += 1;
            }
        }
        "open-files" => {
            let mut open = Vec::new();
            loop {
                open.push(outputs.open(&format!("{}.jsonl", open.len()))?);
            }
        }
        "open-dotdot" => open(outputs, "../../evil.jsonl"),
        "open-absolute" => open(outputs, "/tmp/substratus-evil.jsonl"),
        "open-records" => open(outputs, "../.substratus/manifest.json"),
        "open-twice" => open(outputs, "a.jsonl").and_then(|_| open(outputs, "A.jsonl")),
        "read-nothing" => loop {
            // Each is refused, and none of them is progress.
            drop(inputs.iter().map(|input| input.read(0)).collect::<Vec<_>>());
        },
        "http" => {
            let question = http::get("https://hub.example/", None);
            let answer = HostHttp.send(&question).err();
            Err(Failure::Internal(
                answer.map_or_else(|| "the network answers".to_owned(), |error| format!("no network: {error:?}")),
            ))
        }
        "miscount" => copy(inputs, outputs).map(|report| ShardReport { rows: report.rows.map(|rows| rows + 1), ..report }),
        _ => copy(inputs, outputs),
    }
}

/// Small frames: the engine's stack ends first, not the guest's own in its memory.
fn recurse(depth: u64) -> u64 {
    let again: fn(u64) -> u64 = black_box(recurse);
    1 + again(depth + 1)
}

fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}

fn report(rows: Option<u64>) -> ShardReport {
    ShardReport { rows, warnings: Vec::new(), extensions: Vec::new() }
}

fn open(outputs: &dyn Outputs, path: &str) -> Result<ShardReport, Failure> {
    outputs.open(path)?.write(b"{}\n")?;
    Ok(report(None))
}

fn copy(inputs: &[&dyn Input], outputs: &dyn Outputs) -> Result<ShardReport, Failure> {
    let (out, mut rows) = (outputs.open("out.jsonl")?, 0);
    for input in inputs {
        let mut lines = Lines::new(*input);
        while let Some(line) = lines.next()? {
            out.write(&[line, b"\n"].concat())?;
            rows += 1;
        }
    }
    Ok(report(Some(rows)))
}
