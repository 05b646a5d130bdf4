//! `substratus operator`: the wiring. A list of parts and the order they start and stop in.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use axum::body::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Readiness};
use crate::bucket::BucketUrl;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::controllers;
use crate::kinds;
use crate::kinds::plugin::bundle::{self, InstalledPlugins};
use crate::kinds::plugin::keeping::{self, Keeper};
use crate::kinds::shared::environment::Environment;
use crate::leader;
use crate::metrics::{Lookup, Metrics};
use crate::plugin::{CallEvent, Isolation, Observer, PlainHttp, PluginError, PluginOptions, Plugins, Tampered};
use crate::reconcile::caches;
use crate::reconcile::follow::Scope;
use crate::reconcile::suspend::Suspender;
use crate::reconcile::trigger::Trigger;
use crate::settings::{ArtifactMount, Settings};
use crate::store::{self, ProgressBoard};
use crate::telemetry::Reload;
use crate::uploads::Uploads;

/// Checks of `/readyz`.
const CHECKS: &[&str] = &["plugins", "watches"];

/// Runs until `shutdown` is cancelled or leadership is lost.
///
/// An operator is ready as soon as it could act: one that waits for its turn watches and serves plugins meanwhile, so that a
/// rolling update need not wait for the old leader's end, and its turn begins at once.
pub async fn operator(settings: Settings, log: Reload, shutdown: CancellationToken) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let readiness = Readiness::new(CHECKS);
    let mut tasks = JoinSet::new();
    let admin = Admin { readiness: readiness.clone(), metrics: metrics.clone(), log };
    for address in &settings.admin_bind_addresses {
        let listener = admin::bind(*address).await.with_context(|| format!("listen on {address} for probes and metrics"))?;
        serve(&mut tasks, listener, admin::router(admin.clone()), &shutdown);
    }

    let client = Client::try_default().await.context("connect to the API server")?;
    let (alarm, alarms) = mpsc::channel(keeping::ALARMS);
    let plugins = plugins(&settings, CallMetrics { metrics: metrics.clone(), alarm })?;
    readiness.pass("plugins");
    let board = ProgressBoard::default();
    let listener = admin::bind(settings.store_bind_address)
        .await
        .with_context(|| format!("listen on {} for workers", settings.store_bind_address))?;
    let reviewer = store::KubeReviewer::new(client.clone());
    let suspender = Suspender::new(client.clone(), clock);
    let acting = Arc::new(AtomicBool::new(false));
    let (queue, mut triggers) = mpsc::unbounded_channel();
    let uploads = uploads(&settings, queue.clone())?;
    let had = store::Had { components: Shelf(plugins.clone()), notebooks: suspender, uploads: Arc::clone(&uploads) };
    let endpoint = store::Store::new(had, reviewer, board.clone(), metrics.clone(), Arc::clone(&acting));
    serve(&mut tasks, listener, endpoint.router(), &shutdown);

    let scope = Scope::new(settings.watch_namespaces.clone());
    let caches = caches::start(&client, &scope, &queue, &mut tasks);
    tokio::select! {
        () = caches.synced() => readiness.pass("watches"),
        () = shutdown.cancelled() => return Ok(()),
    }
    let leadership = stand_by(lead(&settings, &client, &metrics, &shutdown), &mut triggers).await;
    if shutdown.is_cancelled() {
        return Ok(());
    }
    let context = Arc::new(context(&settings, client, Held { plugins, uploads, board, metrics }, caches)?);
    acting.store(true, Ordering::Relaxed);
    install_plugins(&context).await;
    let keeper = Keeper { room: settings.plugin_cache_bytes, alarms, own: own(&settings), queue };
    tasks.spawn(keeper.run(Arc::clone(&context), shutdown.clone()));
    tracing::info!(
        datasets = context.caches.datasets.len(),
        notebooks = context.caches.notebooks.len(),
        models = context.caches.models.len(),
        servers = context.caches.servers.len(),
        plugins = context.catalog().active().len(),
        "operator is ready and acts"
    );
    let lost = leadership.as_ref().map_or_else(|| futures::future::pending().boxed(), |leader| leader.lost().boxed());
    tokio::select! {
        () = controllers::run(&context, triggers, settings.concurrency, &shutdown) => {}
        () = lost => anyhow::bail!("leadership was lost; another operator acts now"),
    }
    if let Some(leadership) = leadership {
        leadership.release().await.context("give the Lease back")?;
    }
    Ok(())
}

fn serve(tasks: &mut JoinSet<()>, listener: tokio::net::TcpListener, router: axum::Router, shutdown: &CancellationToken) {
    let stopped = shutdown.clone().cancelled_owned();
    tasks.spawn(async move {
        if let Err(error) = admin::run(listener, router, stopped).await {
            tracing::error!(%error, "an endpoint ended");
        }
    });
}

/// Waits for its turn. What the watches tell meanwhile is in the caches, and everything is looked at when the turn begins.
async fn stand_by<T>(turn: impl Future<Output = T>, triggers: &mut mpsc::UnboundedReceiver<Trigger>) -> T {
    let mut turn = std::pin::pin!(turn);
    loop {
        tokio::select! {
            turn = &mut turn => return turn,
            Some(_) = triggers.recv() => {}
        }
    }
}

async fn lead(
    settings: &Settings,
    client: &Client,
    metrics: &Metrics,
    shutdown: &CancellationToken,
) -> Option<leader::Leadership> {
    let lease = settings.lease.as_ref()?;
    let timing = leader::Timing::default();
    let leadership = tokio::select! {
        leadership = leader::acquire(client.clone(), &settings.identity, &settings.namespace, lease, timing) => leadership,
        () = shutdown.cancelled() => return None,
    };
    metrics.leading(true);
    Some(leadership)
}

/// Where Events go that are about no object of a user's: the operator's pod, or the namespace that it would be in.
fn own(settings: &Settings) -> ObjectReference {
    let (kind, name) = match &settings.pod {
        Some(pod) => ("Pod", pod),
        None => ("Namespace", &settings.namespace),
    };
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.clone()),
        namespace: Some(settings.namespace.clone()),
        ..ObjectReference::default()
    }
}

fn plugins(settings: &Settings, observer: CallMetrics) -> anyhow::Result<Plugins> {
    let options = PluginOptions { cache: settings.plugin_cache_dir.clone(), bundled: vec![settings.plugins_dir.clone()] };
    if settings.sandbox == Isolation::Here {
        tracing::warn!(
            "plugins run in the operator's own process, beside its token; unset SANDBOX to run them in one that holds nothing"
        );
    }
    let plugins = Plugins::open_isolated(options, settings.sandbox.clone()).context("start the plugin host")?;
    plugins.observe(Arc::new(observer));
    for plugin in plugins.bundled() {
        tracing::info!(name = plugin.manifest.name, version = plugin.manifest.version, digest = plugin.digest, "bundled plugin");
    }
    Ok(plugins)
}

/// The plugin host as the workers' store sees it: what was checked and kept, by digest.
struct Shelf(Plugins);

impl store::Components for Shelf {
    fn bytes<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, store::ComponentError>> {
        let (plugins, digest) = (self.0.clone(), digest.to_owned());
        async move {
            let name = digest.clone();
            let read = tokio::task::spawn_blocking(move || plugins.bytes(&name)).await;
            let failed =
                |source: Box<dyn std::error::Error + Send + Sync>| store::ComponentError { digest: digest.clone(), source };
            match read.map_err(|error| failed(Box::new(error)))? {
                Ok(bytes) => Ok(Some(Bytes::from(bytes))),
                Err(PluginError::Unknown { .. }) => Ok(None),
                Err(error) => Err(failed(Box::new(error))),
            }
        }
        .boxed()
    }
}

/// What the plugin host has to tell: counted, and where it is an alarm passed on.
struct CallMetrics {
    metrics: Metrics,
    alarm: mpsc::Sender<Tampered>,
}

impl Observer for CallMetrics {
    fn call(&self, event: &CallEvent<'_>) {
        self.metrics.plugin_called(event.plugin, event.function, event.outcome, event.duration);
        if event.outcome == "trap" || event.outcome == "limit" {
            self.metrics.plugin_trapped(event.plugin, event.outcome);
        }
    }

    fn code(&self, found: bool) {
        self.metrics.cache_asked(if found { Lookup::Hit } else { Lookup::Miss });
    }

    fn sandbox_restarted(&self) {
        self.metrics.sandbox_restarted();
    }

    fn quarantined(&self, components: usize) {
        self.metrics.quarantined(components);
    }

    fn tampered(&self, tampered: &Tampered) {
        self.metrics.tampered(tampered.what.as_str());
        // Whoever floods the store is heard often enough.
        drop(self.alarm.try_send(tampered.clone()));
    }
}

fn uploads(settings: &Settings, arrived: mpsc::UnboundedSender<Trigger>) -> anyhow::Result<Arc<Uploads>> {
    let folder = &settings.uploads_dir;
    let uploads = Uploads::open(folder, settings.upload_url.clone(), settings.uploads_bytes, arrived, clock);
    uploads.map(Arc::new).with_context(|| format!("use {} for uploads (setting UPLOADS_DIR)", folder.display()))
}

/// What endpoints and reconciles share.
struct Held {
    plugins: Plugins,
    uploads: Arc<Uploads>,
    board: ProgressBoard,
    metrics: Metrics,
}

fn context(settings: &Settings, client: Client, held: Held, caches: caches::Caches) -> anyhow::Result<Context> {
    let Held { plugins, uploads, board, metrics } = held;
    let bucket: BucketUrl = settings.artifact_bucket.as_str().parse().context("read the setting ARTIFACT_BUCKET_URL")?;
    let reporter = Reporter { controller: "substratus".to_owned(), instance: Some(settings.identity.clone()) };
    Ok(Context {
        events: Recorder::new(client.clone(), reporter),
        client,
        caches,
        environment: Environment {
            cloud: settings.cloud.clone(),
            cluster: settings.cluster_name.clone(),
            bucket,
            worker_image: settings.worker_image.clone(),
            worker_pull_secret: settings.worker_pull_secret.clone(),
            bucket_secret: settings.bucket_secret.clone(),
            copies_always: settings.artifact_mount == ArtifactMount::Stage,
            publish_seconds: settings.publish_seconds,
            plain_http: settings.insecure_registries.clone(),
            proxies: settings.proxies.clone(),
            certificates: settings.ca_config_map.clone(),
            store_url: settings.store_url.clone(),
            store_port: settings.store_bind_address.port(),
            confines_workers: settings.worker_network_policy,
            bucket_endpoints: settings.bucket_endpoints.clone(),
            notebook_image: settings.notebook_image.clone(),
            principal: settings.principal.clone(),
            building: settings.building.clone(),
        },
        catalog: watch::Sender::new(Arc::new(Catalog::new(bundle::bundled(&plugins), std::collections::BTreeMap::new()))),
        plugins,
        installed: InstalledPlugins::default(),
        uploads,
        board,
        metrics,
        plain_http: PlainHttp(settings.insecure_registries.clone()),
        namespace: settings.namespace.clone(),
        now: clock,
    })
}

/// The one clock of the process: everything else is handed the time.
fn clock() -> Timestamp {
    Timestamp::now()
}

/// Installs what was active before anything is planned, so that a restart does not plan with the wrong plugin.
async fn install_plugins(context: &Arc<Context>) {
    let all = context.caches.plugins.state();
    let installs = all.iter().map(|plugin| kinds::plugin::reconcile(Arc::clone(plugin), Arc::clone(context)));
    for result in futures::future::join_all(installs).await {
        if let Err(error) = result {
            tracing::warn!(error = &error as &dyn std::error::Error, "a plugin's status could not be written");
        }
    }
}
