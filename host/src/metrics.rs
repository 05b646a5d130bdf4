//! What the operator counts and measures, with typed labels of few values. Knows nothing of who counts or who reads.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::store::Moved;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Seconds: a reconcile talks to an API server and perhaps a registry.
const RECONCILE_BUCKETS: [f64; 9] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];
/// Seconds: a pure call takes well under a millisecond, and none may take longer than its tier's deadline.
const CALL_BUCKETS: [f64; 9] = [0.0001, 0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

/// A kind that is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Kind {
    /// A Dataset.
    Dataset,
    /// A Model.
    Model,
    /// A Notebook.
    Notebook,
    /// A Server.
    Server,
    /// A Plugin.
    Plugin,
}

/// What became of a question to the cache of native code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Lookup {
    /// It was there.
    Hit,
    /// It had to be compiled.
    Miss,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: Kind,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    plugin: String,
    function: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabels {
    plugin: String,
    function: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TrapLabels {
    plugin: String,
    trap: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabel {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookupLabel {
    result: Lookup,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoredLabel {
    what: &'static str,
}

/// Every metric of the operator; clones count into the same numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Family<KindLabel, Histogram>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Family<FunctionLabels, Histogram>,
    traps: Family<TrapLabels, Counter>,
    transferred: Counter<u64, AtomicU64>,
    reused: Counter<u64, AtomicU64>,
    files: Counter<u64, AtomicU64>,
    events: Family<EventLabel, Counter>,
    lookups: Family<LookupLabel, Counter>,
    tampered: Family<StoredLabel, Counter>,
    stored: Gauge,
    restarts: Counter,
    quarantined: Gauge,
    leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Every metric at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("substratus");
        let reconciles = Family::default();
        registry.register("reconciles", "Reconciles by kind and by what became of them", reconciles.clone());
        let reconcile_seconds = Family::new_with_constructor(reconcile_histogram as fn() -> Histogram);
        registry.register_with_unit("reconcile_duration", "Time of a reconcile", Unit::Seconds, reconcile_seconds.clone());
        let calls = Family::default();
        registry.register("plugin_calls", "Questions to plugins by what became of them", calls.clone());
        let call_seconds = Family::new_with_constructor(call_histogram as fn() -> Histogram);
        registry.register_with_unit("plugin_call_duration", "Time of a question", Unit::Seconds, call_seconds.clone());
        let traps = Family::default();
        registry.register("plugin_traps", "Calls that ended in a trap or against a limit", traps.clone());
        let transferred = Counter::default();
        registry.register_with_unit("transfer", "Model bytes that workers reported as moved", Unit::Bytes, transferred.clone());
        let reused = Counter::default();
        let help = "Those of them that were taken over from other artifacts of the namespace";
        registry.register_with_unit("transfer_reused", help, Unit::Bytes, reused.clone());
        let files = Counter::default();
        registry.register("transfer_files", "Files that workers reported as whole", files.clone());
        let events = Family::default();
        registry.register("transfer_events", "What was told of loads: that they started, stalled, went on", events.clone());
        let lookups = Family::default();
        registry.register("plugin_cache_lookups", "Questions to the cache of native code", lookups.clone());
        let tampered = Family::default();
        let help = "Files of the plugin store that were not what was put there; none was used";
        registry.register("plugin_store_tampered", help, tampered.clone());
        let stored = Gauge::default();
        let help = "Components and native code in the plugin store, when it was looked through last";
        registry.register_with_unit("plugin_store", help, Unit::Bytes, stored.clone());
        let restarts = Counter::default();
        registry.register("sandbox_restarts", "Starts of the process that runs plugins, after its first", restarts.clone());
        let quarantined = Gauge::default();
        let help = "Plugins that are not asked, for they ended the process that runs them again and again";
        registry.register("sandbox_quarantined_plugins", help, quarantined.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this operator acts", leader.clone());
        registry.register("build", "Version of the operator", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            registry: Arc::new(registry),
            reconciles,
            reconcile_seconds,
            calls,
            call_seconds,
            traps,
            transferred,
            reused,
            files,
            events,
            lookups,
            tampered,
            stored,
            restarts,
            quarantined,
            leader,
        }
    }

    /// One reconcile ended; `outcome` is `ok` or the category of the error.
    pub fn reconciled(&self, kind: Kind, outcome: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ReconcileLabels { kind, outcome }).inc();
        self.reconcile_seconds.get_or_create(&KindLabel { kind }).observe(took.as_secs_f64());
    }

    /// One question to a plugin was answered; `outcome` is `ok`, a failure's name or `trap`.
    pub fn plugin_called(&self, plugin: &str, function: &'static str, outcome: &'static str, took: Duration) {
        let labels = FunctionLabels { plugin: plugin.to_owned(), function };
        self.call_seconds.get_or_create(&labels).observe(took.as_secs_f64());
        self.calls.get_or_create(&CallLabels { plugin: labels.plugin, function, outcome }).inc();
    }

    /// A call ended in a trap or against a limit.
    pub fn plugin_trapped(&self, plugin: &str, trap: &'static str) {
        self.traps.get_or_create(&TrapLabels { plugin: plugin.to_owned(), trap }).inc();
    }

    /// A file of the plugin store, of this kind, was not what was put there.
    pub fn tampered(&self, what: &'static str) {
        self.tampered.get_or_create(&StoredLabel { what }).inc();
    }

    /// So many bytes of components and native code are in the plugin store.
    pub fn stored(&self, bytes: u64) {
        self.stored.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A worker moved more. The rate is that of these counters.
    pub fn transferred(&self, moved: Moved) {
        self.transferred.inc_by(moved.bytes);
        self.reused.inc_by(moved.reused);
        self.files.inc_by(moved.files);
    }

    /// An Event told something of a load.
    pub fn told(&self, reason: &str) {
        self.events.get_or_create(&EventLabel { reason: reason.to_owned() }).inc();
    }

    /// The cache of native code was asked.
    pub fn cache_asked(&self, result: Lookup) {
        self.lookups.get_or_create(&LookupLabel { result }).inc();
    }

    /// The process that runs plugins was started again.
    pub fn sandbox_restarted(&self) {
        self.restarts.inc();
    }

    /// So many plugins are not asked for a while.
    pub fn quarantined(&self, components: usize) {
        self.quarantined.set(i64::try_from(components).unwrap_or(i64::MAX));
    }

    /// This operator acts, or waits for its turn.
    pub fn leading(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // Writing into a string does not fail; a label that cannot be encoded would be a mistake of this file.
            let _ = writeln!(text, "# EOF");
        }
        text
    }
}

fn reconcile_histogram() -> Histogram {
    Histogram::new(RECONCILE_BUCKETS)
}

fn call_histogram() -> Histogram {
    Histogram::new(CALL_BUCKETS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_into_the_same_numbers() {
        let metrics = Metrics::new();
        let clone = metrics.clone();
        clone.reconciled(Kind::Model, "ok", Duration::from_millis(3));
        metrics.reconciled(Kind::Model, "ok", Duration::from_millis(30));
        metrics.reconciled(Kind::Server, "plugin", Duration::ZERO);
        clone.plugin_called("huggingface", "resolve", "gated", Duration::from_micros(200));
        clone.plugin_trapped("huggingface", "memory");
        clone.transferred(Moved { bytes: 1 << 40, reused: 5, files: 3 });
        clone.told("LoadStalled");
        clone.cache_asked(Lookup::Miss);
        clone.tampered("code");
        clone.stored(7);
        clone.leading(true);
        let text = metrics.encode();
        for line in [
            "substratus_reconciles_total{kind=\"Model\",outcome=\"ok\"} 2",
            "substratus_reconciles_total{kind=\"Server\",outcome=\"plugin\"} 1",
            "substratus_reconcile_duration_seconds_bucket{le=\"0.005\",kind=\"Model\"} 1",
            "substratus_reconcile_duration_seconds_count{kind=\"Model\"} 2",
            "substratus_plugin_calls_total{plugin=\"huggingface\",function=\"resolve\",outcome=\"gated\"} 1",
            "substratus_plugin_call_duration_seconds_bucket{le=\"0.0005\",plugin=\"huggingface\",function=\"resolve\"} 1",
            "substratus_plugin_traps_total{plugin=\"huggingface\",trap=\"memory\"} 1",
            "substratus_transfer_bytes_total 1099511627776",
            "substratus_transfer_reused_bytes_total 5",
            "substratus_transfer_files_total 3",
            "substratus_transfer_events_total{reason=\"LoadStalled\"} 1",
            "substratus_plugin_cache_lookups_total{result=\"Miss\"} 1",
            "substratus_plugin_store_tampered_total{what=\"code\"} 1",
            "substratus_plugin_store_bytes 7",
            "substratus_leader 1",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
