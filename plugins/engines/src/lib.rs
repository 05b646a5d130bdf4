//! What the server adapters share, so that nothing is said twice: how vLLM and llama.cpp are started. It knows no cluster, and
//! nothing of how a plugin is called.

pub mod asked;
pub mod llama;
pub mod model;
pub mod vllm;

use substratus_plugin::adapter::{Cache, Fitness, Probe};

/// Where every engine listens. The container contract's port, so that scripts that reach a pod directly keep working.
pub const PORT: u16 = 8080;

pub(crate) const GIB: u64 = 1 << 30;

/// Reading weights through a mounted bucket on a cold node, in bytes per second: the start-up budget assumes no better.
const COLD_READ: u64 = 100_000_000;
const STARTUP_PERIOD: u32 = 10;

/// A score with its reason.
pub fn fitness(score: u8, reason: impl Into<String>) -> Fitness {
    Fitness { score, reason: reason.into() }
}

/// Ten minutes for the engine, and the time that the weights take to arrive; half an hour where their size is unknown.
pub(crate) fn startup(path: &str, bytes: Option<u64>) -> Probe {
    let seconds = bytes.map_or(1800, |bytes| 600 + bytes / COLD_READ);
    let tries = u32::try_from(seconds.div_ceil(u64::from(STARTUP_PERIOD))).unwrap_or(u32::MAX);
    Probe { path: path.into(), period_seconds: STARTUP_PERIOD, timeout_seconds: 5, failure_threshold: tries }
}

pub(crate) fn readiness(path: &str) -> Probe {
    Probe { path: path.into(), period_seconds: 5, timeout_seconds: 5, failure_threshold: 3 }
}

/// Patient: an engine under load answers late, and a restart costs minutes.
pub(crate) fn liveness(path: &str) -> Probe {
    Probe { path: path.into(), period_seconds: 10, timeout_seconds: 10, failure_threshold: 12 }
}

/// Engines write below `/tmp` whatever one tells them, and the root file system may be read-only.
pub(crate) fn tmp() -> Cache {
    Cache { name: "tmp".into(), mount_path: "/tmp".into(), size: Some(2 * GIB) }
}

/// Rounded up, for a quantity that people read.
pub(crate) fn whole_gib(bytes: u64) -> u64 {
    bytes.div_ceil(GIB).saturating_mul(GIB)
}

pub(crate) fn pairs(mut env: Vec<(&str, &str)>) -> Vec<(String, String)> {
    env.sort_unstable();
    env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
