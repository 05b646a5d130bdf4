//! Host calls that a guest makes while it answers. The face carries them both ways, so that a guest may live in another process.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::types::{HttpError, HttpRequest, HttpResponse, LogLevel};

/// What the host does for a guest. Count, bytes and time are bounded before a call arrives here; hosts and secrets are not.
pub trait HostCalls: Send + Sync {
    /// Sends a request where the grant allows it.
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>>;

    /// Takes a line of log: at most [`crate::limits::SENTENCE_BYTES`] long, without control characters.
    fn log(&self, level: LogLevel, message: &str);
}

/// The pure tier: no network; log lines go to our own log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offline;

/// Host calls of a caller that offers none.
pub type NoCalls = Offline;

impl HostCalls for Offline {
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let denied = HttpError::Denied(format!("no network here: `{}` was not asked", request.url));
        std::future::ready(Err(denied)).boxed()
    }

    fn log(&self, level: LogLevel, message: &str) {
        match level {
            LogLevel::Debug => tracing::debug!(target: "plugin", "{message}"),
            LogLevel::Info => tracing::info!(target: "plugin", "{message}"),
            LogLevel::Warn => tracing::warn!(target: "plugin", "{message}"),
            LogLevel::Error => tracing::error!(target: "plugin", "{message}"),
        }
    }
}
