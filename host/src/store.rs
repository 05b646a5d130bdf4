//! The one port that pods of ours talk to: plugin components by digest, sources of images, and reports the other way. Every caller
//! shows the token of its pod; a user's client that sends sources shows a ticket instead. Knows nothing of how a component is pulled or what becomes of a report.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures::future::BoxFuture;

use substratus_crds::TransferStatus;

use crate::kinds::shared::names;
use crate::metrics::Metrics;
use crate::uploads::Uploads;
use crate::worker::report::Progress;

mod auth;
pub mod idle;
mod progress;
mod upload;

pub use auth::{AUDIENCE, Caller, Denied, KubeReviewer, Reviewer, Role, WORKER_ACCOUNTS};
pub use idle::{Idle, IdleReport, NotSuspended, Notebooks};
pub use progress::{Moved, ProgressBoard, Refusal, Report};

/// Largest report, in bytes.
const MAX_REPORT: usize = 64 * 1024;
/// A report that is not here by then is not read further.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where components come from: the plugin host.
pub trait Components: Send + Sync + 'static {
    /// The component of this digest (`sha256:<hex>`, well-formed), of an active plugin or of one that objects still use; or
    /// nothing, where no Plugin of this cluster ever had it. An error is passing, such as a registry that does not answer.
    fn bytes<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, ComponentError>>;
}

/// A component could not be had for now.
#[derive(Debug, thiserror::Error)]
#[error("get component {digest}")]
pub struct ComponentError {
    /// Which one.
    pub digest: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What callers come for.
#[derive(Debug)]
pub struct Had<C, N> {
    /// Plugins.
    pub components: C,
    /// Who suspends Notebooks.
    pub notebooks: N,
    /// Sources of images.
    pub uploads: Arc<Uploads>,
}

/// What the endpoint is made of.
#[derive(Clone)]
pub struct Store {
    components: Arc<dyn Components>,
    notebooks: Arc<dyn Notebooks>,
    uploads: Arc<Uploads>,
    callers: Arc<auth::Callers>,
    board: ProgressBoard,
    metrics: Metrics,
    acting: Arc<AtomicBool>,
}

impl Store {
    /// Serves what is `had` to callers that `reviewer` knows, puts their reports on `board`, and has Notebooks suspended that nobody
    /// uses. While this operator is not `acting`, another one has the reports and may have more components: callers are sent on.
    /// Whoever is asked may suspend.
    pub fn new(
        had: Had<impl Components, impl Notebooks>,
        reviewer: impl Reviewer,
        board: ProgressBoard,
        metrics: Metrics,
        acting: Arc<AtomicBool>,
    ) -> Self {
        let callers = Arc::new(auth::Callers::new(reviewer));
        let (components, notebooks) = (Arc::new(had.components), Arc::new(had.notebooks));
        Self { components, notebooks, uploads: had.uploads, callers, board, metrics, acting }
    }

    fn stands_by(&self) -> bool {
        !self.acting.load(Ordering::Relaxed)
    }

    /// `GET /plugins/<digest>`, `POST /progress/<namespace>/<job>`, `POST /idle/<namespace>/<notebook>`, and `PUT` and `GET` below
    /// `/uploads/<kind>/<namespace>/<name>`; serve it with [`crate::admin::run`].
    pub fn router(self) -> Router {
        Router::new()
            .route("/plugins/{digest}", get(component))
            .route("/progress/{namespace}/{job}", post(report))
            .route("/idle/{namespace}/{notebook}", post(idle::report))
            .route("/uploads/{kind}/{namespace}/{name}", put(upload::put))
            .route("/uploads/{kind}/{namespace}/{name}/{md5}", get(upload::get))
            .with_state(self)
    }
}

/// A caller that is a worker. Every handler takes its caller, so that no route is open by mistake.
struct Worker(Caller);

/// A caller that is the pod of a Notebook.
struct Lab(Caller);

/// A caller that is the pod of a build.
struct Builder(Caller);

impl FromRequestParts<Store> for Worker {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, store: &Store) -> Result<Self, Response> {
        store.caller(parts, Role::Worker).await.map(Self)
    }
}

impl FromRequestParts<Store> for Lab {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, store: &Store) -> Result<Self, Response> {
        store.caller(parts, Role::Notebook).await.map(Self)
    }
}

impl FromRequestParts<Store> for Builder {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, store: &Store) -> Result<Self, Response> {
        store.caller(parts, Role::Builder).await.map(Self)
    }
}

impl Store {
    async fn caller(&self, parts: &Parts, role: Role) -> Result<Caller, Response> {
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        let caller = self.callers.who(token).await;
        caller.and_then(|caller| if caller.role == role { Ok(caller) } else { Err(Denied::NotACaller) }).map_err(|denied| {
            let status = match denied {
                Denied::NotAuthenticated => StatusCode::UNAUTHORIZED,
                Denied::NotACaller => StatusCode::FORBIDDEN,
                Denied::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, format!("{denied}\n")).into_response()
        })
    }
}

/// Reads a report, which is small and comes at once.
async fn read<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Response> {
    let body = tokio::time::timeout(REPORT_TIMEOUT, axum::body::to_bytes(request.into_body(), MAX_REPORT));
    let Ok(body) = body.await else { return Err(StatusCode::REQUEST_TIMEOUT.into_response()) };
    let Ok(body) = body else { return Err(StatusCode::PAYLOAD_TOO_LARGE.into_response()) };
    serde_json::from_slice(&body)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, format!("read report: {error}\n")).into_response())
}

async fn component(State(store): State<Store>, _: Worker, Path(digest): Path<String>) -> Response {
    if !is_digest(&digest) {
        return (StatusCode::BAD_REQUEST, "a digest is written sha256:<64 lower-case hexadecimal digits>\n").into_response();
    }
    match store.components.bytes(&digest).await {
        Ok(Some(bytes)) => {
            let mut response = Response::new(Body::from(bytes));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/wasm"));
            response
        }
        Ok(None) if store.stands_by() => elsewhere(),
        Ok(None) => (StatusCode::NOT_FOUND, "no plugin of this cluster has this digest\n").into_response(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "component not served");
            (StatusCode::SERVICE_UNAVAILABLE, "the component cannot be had now, try again\n").into_response()
        }
    }
}

async fn report(
    State(store): State<Store>,
    Worker(caller): Worker,
    Path((namespace, job)): Path<(String, String)>,
    request: Request,
) -> Response {
    if caller.namespace != namespace {
        return (StatusCode::FORBIDDEN, "a worker reports for its own namespace only\n").into_response();
    }
    if store.stands_by() {
        return elsewhere();
    }
    let mut progress: Progress = match read(request).await {
        Ok(progress) => progress,
        Err(refusal) => return refusal,
    };
    // Who it is says its token; what became of earlier reports is ours to say.
    progress.transfer =
        TransferStatus { pod: Some(caller.pod), stalled: false, announced: None, time: None, ..progress.transfer };
    match store.board.put(&namespace, &job, progress) {
        Ok(moved) => {
            // What leaves for a registry was loaded before.
            if !job.ends_with(names::PUBLISH) {
                store.metrics.transferred(moved);
            }
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal @ Refusal::Invalid(_)) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{refusal}\n")).into_response(),
        Err(refusal) => {
            let retry = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
            (StatusCode::TOO_MANY_REQUESTS, retry, format!("{refusal}\n")).into_response()
        }
    }
}

/// The next connection may reach the operator that acts.
fn elsewhere() -> Response {
    let close = [(header::CONNECTION, HeaderValue::from_static("close")), (header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, close, "this operator stands by for another one, try again\n").into_response()
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests;
