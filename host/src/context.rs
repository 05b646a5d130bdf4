//! What a reconcile has at hand: capabilities, not knowledge.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Recorder;
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::kinds::plugin::bundle::InstalledPlugins;
use crate::kinds::shared::environment::Environment;
use crate::metrics::Metrics;
use crate::plugin::Plugins;
use crate::reconcile::caches::Caches;
use crate::store::ProgressBoard;
use crate::uploads::Uploads;

/// Shared by every reconcile of a process.
pub struct Context {
    /// The API server; only `apply`, `status` and the Plugin reconciler use it.
    pub client: Client,
    /// What the watches see.
    pub caches: Caches,
    /// Settings that pure code needs.
    pub environment: Environment,
    /// The plugin host.
    pub plugins: Plugins,
    /// Which plugins answer; the Plugin reconciler writes it.
    pub catalog: watch::Sender<Arc<Catalog>>,
    /// What the Plugin objects came to.
    pub installed: InstalledPlugins,
    /// What users sent.
    pub uploads: Arc<Uploads>,
    /// What workers report.
    pub board: ProgressBoard,
    /// Counters.
    pub metrics: Metrics,
    /// Writer of Events.
    pub events: Recorder,
    /// Registries that speak plain HTTP.
    pub plain_http: crate::plugin::PlainHttp,
    /// The operator's own namespace.
    pub namespace: String,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Context {
    /// The catalog of this moment.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }
}
