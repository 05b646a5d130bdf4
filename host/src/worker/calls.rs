//! What the host does for a loader while it answers: its HTTP goes through the worker's egress, its log into ours. The bytes
//! of files never come this way.

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use url::Url;

use super::egress::{Ask, Egress, EgressError, Payload, guest_headers, shown};
use crate::plugin::HostCalls;
use crate::plugin::types::{HttpError, HttpMethod, HttpRequest, HttpResponse, LogLevel};

/// Bytes of one answer to a guest.
const MAX_BODY: usize = crate::limits::STANDARD.http_body;
/// Bytes of its headers.
const MAX_HEADERS: usize = 64 * 1024;

/// Host calls of a loader.
#[derive(Clone, Debug)]
pub struct LoaderCalls {
    egress: Egress,
    plugin: String,
}

impl LoaderCalls {
    /// Calls of `plugin` through `egress`.
    pub const fn new(egress: Egress, plugin: String) -> Self {
        Self { egress, plugin }
    }

    async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, EgressError> {
        let url =
            Url::parse(&request.url).map_err(|error| EgressError::Invalid(format!("`{}` is no URL: {error}", request.url)))?;
        let ask = Ask {
            method: match request.method {
                HttpMethod::Get => Method::GET,
                HttpMethod::Head => Method::HEAD,
                HttpMethod::Post => Method::POST,
            },
            headers: guest_headers(&request.headers)?,
            own: http::HeaderMap::new(),
            body: request.body.map(|body| Payload::Bytes(body.into())),
            auth: request.auth.as_deref(),
            follow: request.follow,
            url,
        };
        let answer = self.egress.send(ask).await?;
        let status = answer.response.status().as_u16();
        let headers: Vec<(String, String)> = answer
            .response
            .headers()
            .iter()
            .filter(|(name, _)| *name != http::header::SET_COOKIE)
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        if headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_HEADERS {
            return Err(EgressError::Limit(format!("the headers from {} are over {MAX_HEADERS} bytes", shown(&answer.url))));
        }
        let body = self.egress.body(answer, MAX_BODY).await?;
        Ok(HttpResponse { status, headers, body })
    }
}

impl HostCalls for LoaderCalls {
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let to_guest = |error| match error {
            EgressError::Denied(text) => HttpError::Denied(text),
            EgressError::Limit(text) => HttpError::Limit(text),
            EgressError::Unavailable(text) => HttpError::Unavailable(text),
            EgressError::Invalid(text) => HttpError::Invalid(text),
        };
        async move { self.ask(request).await.map_err(to_guest) }.boxed()
    }

    fn log(&self, level: LogLevel, message: &str) {
        let (plugin, message) = (&self.plugin, self.egress.redact(message));
        match level {
            LogLevel::Debug => tracing::debug!(%plugin, "{message}"),
            LogLevel::Info => tracing::info!(%plugin, "{message}"),
            LogLevel::Warn => tracing::warn!(%plugin, "{message}"),
            LogLevel::Error => tracing::error!(%plugin, "{message}"),
        }
    }
}
