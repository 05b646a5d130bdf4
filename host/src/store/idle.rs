//! A Notebook's sidecar says that nobody uses it. Checks that it speaks of its own pod; knows nothing of how a Notebook is
//! suspended.

use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Lab, Store, read};
use crate::kinds::shared::names;

/// What the sidecar sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdleReport {
    /// For how long nobody has used the Notebook.
    pub idle_seconds: u32,
}

/// Nobody uses a Notebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub notebook: String,
    /// The pod that says so.
    pub uid: String,
    /// For how long.
    pub idle: Duration,
}

/// Who suspends Notebooks: the operator.
pub trait Notebooks: Send + Sync + 'static {
    /// Suspends the Notebook, if that is still what its user asked for and the pod is still its own.
    fn suspend<'a>(&'a self, idle: &'a Idle) -> BoxFuture<'a, Result<(), NotSuspended>>;
}

/// The Notebook goes on.
#[derive(Debug, thiserror::Error)]
pub enum NotSuspended {
    /// It is not to be suspended as things are now.
    #[error("the Notebook goes on: {0}")]
    Refused(&'static str),
    /// The API server does not answer, or others write at the same time.
    #[error("the Notebook cannot be suspended now, try again")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// `POST /idle/<namespace>/<notebook>`.
pub(super) async fn report(
    State(store): State<Store>,
    Lab(caller): Lab,
    Path((namespace, notebook)): Path<(String, String)>,
    request: Request,
) -> Response {
    if caller.namespace != namespace || caller.pod != names::notebook(&notebook) {
        return (StatusCode::FORBIDDEN, "a Notebook's pod reports for its own Notebook only\n").into_response();
    }
    let report: IdleReport = match read(request).await {
        Ok(report) => report,
        Err(refusal) => return refusal,
    };
    let idle = Duration::from_secs(report.idle_seconds.into());
    match store.notebooks.suspend(&Idle { namespace, notebook, uid: caller.uid, idle }).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal @ NotSuspended::Refused(_)) => (StatusCode::CONFLICT, format!("{refusal}\n")).into_response(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an idle Notebook is not suspended");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
    }
}
