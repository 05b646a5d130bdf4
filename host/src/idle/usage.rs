//! From Jupyter's answers to whether anybody uses it, and for how long nobody has. Pure: the time is handed in, and it is one
//! that nobody can set: times of the answers are compared with each other and never with a clock.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

/// What Jupyter says at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// Somebody or something uses it.
    Busy(Because),
    /// Nobody does at this moment; when each of its parts was last used. Equal ones mean that nobody did in between.
    Quiet(BTreeMap<String, Timestamp>),
}

/// Why it counts as used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because {
    /// A kernel computes.
    Kernel,
    /// A page is open.
    Connection,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy(Because::Kernel) => "a kernel is busy",
            Self::Busy(Because::Connection) => "a page is connected to a kernel",
            Self::Quiet(_) => "no kernel is busy and nobody is connected",
        })
    }
}

#[derive(Deserialize)]
struct Status {
    last_activity: Timestamp,
    connections: u64,
}

#[derive(Deserialize)]
struct Kernel {
    id: String,
    execution_state: String,
    connections: u64,
    last_activity: Timestamp,
}

#[derive(Deserialize)]
struct Terminal {
    name: String,
    last_activity: Timestamp,
}

/// Reads the answers to `/api/status`, `/api/kernels` and, where there are terminals, `/api/terminals`.
pub fn read(status: &[u8], kernels: &[u8], terminals: Option<&[u8]>) -> Result<Usage, String> {
    let status: Status = parse("/api/status", status)?;
    let kernels: Vec<Kernel> = parse("/api/kernels", kernels)?;
    let terminals: Vec<Terminal> = terminals.map_or(Ok(Vec::new()), |answer| parse("/api/terminals", answer))?;
    // `starting` is what a kernel says that nobody has connected to yet; a state that is not known counts as work.
    if kernels.iter().any(|kernel| !matches!(kernel.execution_state.as_str(), "idle" | "starting" | "dead")) {
        return Ok(Usage::Busy(Because::Kernel));
    }
    if status.connections > 0 || kernels.iter().any(|kernel| kernel.connections > 0) {
        return Ok(Usage::Busy(Because::Connection));
    }
    let mut last = BTreeMap::from([("server".to_owned(), status.last_activity)]);
    last.extend(kernels.into_iter().map(|kernel| (format!("kernel {}", kernel.id), kernel.last_activity)));
    last.extend(terminals.into_iter().map(|terminal| (format!("terminal {}", terminal.name), terminal.last_activity)));
    Ok(Usage::Quiet(last))
}

fn parse<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T, String> {
    serde_json::from_slice(answer).map_err(|error| format!("{path}: {error}"))
}

/// For how long nobody has used it.
#[derive(Debug, Default)]
pub struct Watch {
    /// The last answers, and since when they have been the same.
    same: Option<(BTreeMap<String, Timestamp>, Instant)>,
}

impl Watch {
    /// Takes what was found `now`, or that nothing was, and says for how long nobody has used it. What is not known counts as
    /// use, and so does whatever happened since the last look.
    pub fn take(&mut self, usage: Option<Usage>, now: Instant) -> Duration {
        let Some(Usage::Quiet(last)) = usage else {
            self.same = None;
            return Duration::ZERO;
        };
        match &self.same {
            Some((before, since)) if *before == last => now.saturating_duration_since(*since),
            _ => {
                self.same = Some((last, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T1: &str = "2026-11-24T04:00:00.123456Z";
    const T2: &str = "2026-11-24T04:00:09Z";

    fn status(last: &str, connections: i32) -> Vec<u8> {
        format!(r#"{{"started": "{T1}", "last_activity": "{last}", "connections": {connections}, "kernels": 1}}"#).into_bytes()
    }

    fn kernels(state: &str, connections: i32, last: &str) -> Vec<u8> {
        format!(
            r#"[{{"id": "k", "name": "python3", "execution_state": "{state}", "connections": {connections}, "last_activity": "{last}"}}]"#
        )
        .into_bytes()
    }

    fn quiet(status_at: &str, kernel_at: &str, terminal_at: &str) -> Usage {
        let terminals = format!(r#"[{{"name": "1", "last_activity": "{terminal_at}"}}]"#);
        let usage = read(&status(status_at, 0), &kernels("idle", 0, kernel_at), Some(terminals.as_bytes())).unwrap();
        assert!(matches!(usage, Usage::Quiet(_)), "{usage:?}");
        usage
    }

    #[test]
    fn work_and_connections_are_use() {
        for (answers, expected) in [
            ((status(T1, 0), kernels("busy", 0, T1)), Usage::Busy(Because::Kernel)),
            ((status(T1, 0), kernels("restarting", 0, T1)), Usage::Busy(Because::Kernel)),
            ((status(T1, 0), kernels("a new state", 0, T1)), Usage::Busy(Because::Kernel)),
            ((status(T1, 1), b"[]".to_vec()), Usage::Busy(Because::Connection)),
            ((status(T1, 0), kernels("idle", 2, T1)), Usage::Busy(Because::Connection)),
        ] {
            assert_eq!(read(&answers.0, &answers.1, None), Ok(expected));
        }
        for state in ["idle", "starting", "dead"] {
            assert!(matches!(read(&status(T1, 0), &kernels(state, 0, T1), None), Ok(Usage::Quiet(_))), "{state}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_answer() {
        let good = (status(T1, 0), b"[]".to_vec());
        for bad in [
            &b""[..],
            b"null",
            b"{}",
            b"[]",
            b"<html>log in</html>",
            br#"{"last_activity": "yesterday", "connections": 0}"#,
            br#"{"last_activity": 0, "connections": 0}"#,
            br#"{"last_activity": "2026-11-24T04:00:00Z", "connections": -1}"#,
            br#"{"last_activity": "2026-11-24T04:00:00Z", "connections": 1e9}"#,
            b"\xff\xfe",
        ] {
            assert!(read(bad, &good.1, None).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for bad in [&b"{}"[..], b"[{}]", br#"[{"id": "k"}]"#, br#"{"message": "Forbidden"}"#, &b"[".repeat(100_000)] {
            assert!(read(&good.0, bad, None).is_err());
            assert!(read(&good.0, &good.1, Some(bad)).is_err());
        }
    }

    #[test]
    fn time_counts_while_nothing_changes() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let mut at = |seconds, usage| watch.take(usage, start + Duration::from_secs(seconds)).as_secs();
        assert_eq!(at(0, Some(quiet(T1, T1, T1))), 0);
        assert_eq!(at(5, Some(quiet(T1, T1, T1))), 5);
        assert_eq!(at(9, Some(quiet(T1, T1, T2))), 0, "a terminal was used in between");
        assert_eq!(at(12, Some(quiet(T1, T1, T2))), 3);
        assert_eq!(at(14, Some(Usage::Busy(Because::Kernel))), 0);
        assert_eq!(at(15, Some(quiet(T1, T1, T2))), 0, "what was busy starts anew");
        assert_eq!(at(20, None), 0, "nobody answers");
        assert_eq!(at(21, Some(quiet(T1, T1, T2))), 0);
        assert_eq!(at(90, Some(quiet(T1, T1, T2))), 69);
    }

    #[test]
    fn clocks_that_jump_suspend_nobody() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        // Jupyter's clock jumps a year ahead, and back: something changed, so somebody may have used it.
        for (second, stamp) in [(0, T1), (1, "2027-11-24T04:00:00Z"), (2, T1), (3, "1970-01-01T00:00:00Z")] {
            assert_eq!(watch.take(Some(quiet(stamp, stamp, T1)), start + Duration::from_secs(second)), Duration::ZERO);
        }
        // Old times are no idle time: it counts from the first look on.
        let mut fresh = Watch::default();
        assert_eq!(fresh.take(Some(quiet("2001-01-01T00:00:00Z", T1, T1)), start), Duration::ZERO);
        // A time that goes back is no time at all.
        assert_eq!(fresh.take(Some(quiet("2001-01-01T00:00:00Z", T1, T1)), start), Duration::ZERO);
    }

    #[test]
    fn a_kernel_that_ends_was_used() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        watch.take(Some(quiet(T1, T1, T1)), start);
        let without = read(&status(T1, 0), b"[]", None).unwrap();
        assert_eq!(watch.take(Some(without), start + Duration::from_mins(1)), Duration::ZERO);
    }
}
