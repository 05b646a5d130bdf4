//! Runs a program and says what it cost. Must not know what the program does.

use std::fs;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// `/proc` counts processor time in these, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// The peak of memory only grows, so that looking this often misses what grew in the last moment alone.
const LOOK: Duration = Duration::from_millis(5);

/// What a program cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// From its start to its end.
    pub seconds: f64,
    /// Processor time of all its threads, in the kernel and outside.
    pub cpu_seconds: f64,
    /// Most memory that was resident at a time, in bytes.
    pub peak_bytes: u64,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<(ExitStatus, Cost)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let waited = watch(&child);
    let seconds = began.elapsed().as_secs_f64();
    // Not yet reaped: its account can still be read.
    let cpu_seconds = cpu_seconds(child.id());
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    Ok((status, Cost { seconds, cpu_seconds: cpu_seconds?, peak_bytes: waited? }))
}

/// Waits for the end without reaping, and returns the peak of memory.
fn watch(child: &Child) -> Result<u64> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut peak = 0;
            while !ended.load(Ordering::Relaxed) {
                peak = family(child.id()).into_iter().filter_map(|pid| memory(pid, "VmHWM").ok()).fold(peak, u64::max);
                thread::sleep(LOOK);
            }
            peak
        });
        let pid = Pid::from_child(child);
        let waited = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).context("waiting for a child");
        ended.store(true, Ordering::Relaxed);
        waited?;
        let peak = looking.join().unwrap_or(0);
        ensure!(peak > 0, "the program ended before its memory could be read");
        Ok(peak)
    })
}

/// A process and its children: the largest of them counts.
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    std::iter::once(pid).chain(children.split_ascii_whitespace().filter_map(|child| child.parse().ok())).collect()
}

/// Processor time of a process so far and of its children that ended, in seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("reading the account of process {pid}"))?;
    ticks(&text)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .with_context(|| format!("process {pid} has an account without times: {text}"))
}

/// When a process was started, in seconds since this machine was.
pub fn started(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    fields(&text)?.nth(19)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND)
}

/// `utime` and `stime`, its own and that of children which ended: the 12th to 15th field.
fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = fields(stat)?.skip(11).take(4).collect();
    if fields.len() < 4 {
        return None;
    }
    fields.iter().map(|field| field.parse::<f64>().ok()).sum()
}

/// The fields behind the name, which may hold anything and ends with the last parenthesis.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

/// A line of `/proc/PID/status` that is a size, in bytes: `VmRSS`, `VmHWM`.
pub fn memory(pid: u32, line: &str) -> Result<u64> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("reading the status of process {pid}"))?;
    let found = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(found.with_context(|| format!("process {pid} has no {line}"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_charged_for_what_it_did() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3";
        let (status, cost) = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(cost.cpu_seconds > 0.0 && cost.cpu_seconds <= cost.seconds + 0.02, "{cost:?}");
        assert!((64 << 10..64 << 20).contains(&cost.peak_bytes), "{cost:?}");
    }

    #[test]
    fn a_process_was_started_before_it_is_asked() {
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let now: f64 = uptime.split_ascii_whitespace().next().unwrap().parse().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let age = started(child.id()).unwrap() - now;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!((-0.02..5.0).contains(&age), "{age}");
        assert_eq!(started(child.id()), None);
    }

    #[test]
    fn a_name_may_look_like_anything() {
        assert_eq!(ticks("7 (a ) b (1 2) S 1 7 7 0 -1 4194560 1 0 0 0 25 17 2 3 20 0 1 0 5"), Some(47.0));
        assert_eq!(ticks("7 no name"), None);
    }
}
