//! The operator's own HTTP endpoints: probes, metrics and the log filter. Knows nothing of what the operator does; the
//! checks behind `/readyz` are set by whoever passes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::{CONTENT_TYPE, Metrics};
use crate::telemetry::Reload;

/// A log filter is a line; nothing longer is read.
const MAX_FILTER: usize = 1024;

/// Whether the operator may be asked to work: named checks, none of which is passed at the start.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<RwLock<BTreeMap<&'static str, Result<(), String>>>>);

impl Readiness {
    /// Waits for these checks.
    pub fn new(checks: &[&'static str]) -> Self {
        Self(Arc::new(RwLock::new(checks.iter().map(|&check| (check, Err("not yet".to_owned()))).collect())))
    }

    /// The check is passed.
    pub fn pass(&self, check: &'static str) {
        self.set(check, Ok(()));
    }

    /// The check is not, or no longer, passed.
    pub fn fail(&self, check: &'static str, why: impl Into<String>) {
        self.set(check, Err(why.into()));
    }

    /// Every check is passed.
    pub fn is_ready(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().all(Result::is_ok)
    }

    fn set(&self, check: &'static str, result: Result<(), String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(check, result);
    }

    fn report(&self) -> String {
        let mut text = String::new();
        for (check, result) in &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            // Writing into a string does not fail.
            let _ = match result {
                Ok(()) => writeln!(text, "[+] {check}"),
                Err(why) => writeln!(text, "[-] {check}: {why}"),
            };
        }
        text
    }
}

/// What the endpoints show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Behind `/readyz`.
    pub readiness: Readiness,
    /// Behind `/metrics`.
    pub metrics: Metrics,
    /// Behind `/loglevel`.
    pub log: Reload,
}

/// `/livez` (and `/healthz`), `/readyz`, `/metrics` and `/loglevel`.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/loglevel", get(log_level).put(set_log_level))
        .layer(DefaultBodyLimit::max(MAX_FILTER))
        .with_state(admin)
}

/// Listens; `[::]` takes both families, and falls back to IPv4 where a node has no other.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

/// Serves until `shutdown` is there, then ends what is under way.
pub async fn run(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let status = if admin.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, admin.readiness.report())
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], admin.metrics.encode())
}

async fn log_level(State(admin): State<Admin>) -> String {
    admin.log.filter() + "\n"
}

/// Debug lines may hold more than others should see, so only somebody inside the pod may ask for them.
async fn set_log_level(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    filter: String,
) -> Result<String, (StatusCode, String)> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err((StatusCode::FORBIDDEN, "the log filter changes from inside the pod only\n".to_owned()));
    }
    let filter = filter.trim();
    admin.log.set(filter).map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    tracing::warn!(filter, "log filter changed");
    Ok(admin.log.filter() + "\n")
}

#[cfg(test)]
mod tests;
