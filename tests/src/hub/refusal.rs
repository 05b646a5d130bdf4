//! The ways the hub says no: status, `X-Error-Code` and `X-Error-Message` as its clients tell them apart.
//! Must not decide when.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::fault::Service;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: Option<&'static str>,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(status: StatusCode, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), headers: Vec::new() }
    }

    /// Nobody learns whether a private repository exists: 401 without a token, 404 with one.
    pub(super) fn repository(has_token: bool) -> Self {
        if has_token {
            Self::new(StatusCode::NOT_FOUND, Some("RepoNotFound"), "Repository not found")
        } else {
            Self::new(StatusCode::UNAUTHORIZED, Some("RepoNotFound"), "Invalid username or password.")
        }
    }

    pub(super) fn gated(has_token: bool, id: &str) -> Self {
        let (status, hint) = if has_token {
            (StatusCode::FORBIDDEN, "Your request to access it has not been granted.")
        } else {
            (StatusCode::UNAUTHORIZED, "You must have access to it and be authenticated to access it. Please log in.")
        };
        Self::new(status, Some("GatedRepo"), format!("Access to model {id} is restricted. {hint}"))
    }

    pub(super) fn credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, None, "Invalid credentials in Authorization header")
    }

    pub(super) fn disabled() -> Self {
        Self::new(StatusCode::FORBIDDEN, None, "Access to this resource is disabled.")
    }

    pub(super) fn revision(revision: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Some("RevisionNotFound"), format!("Invalid rev id: {revision}"))
    }

    pub(super) fn entry(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, Some("EntryNotFound"), format!("Entry not found: {path}"))
    }

    pub(super) fn page(path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, None, format!("Sorry, we can't find the page you are looking for: {path}"))
    }

    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, None, message)
    }

    /// What the CDN says to a URL that it did not sign or that ran out.
    pub(super) fn unsigned() -> Self {
        Self::new(StatusCode::FORBIDDEN, None, "AccessDenied: the request is not signed, or the URL has expired")
    }

    pub(super) fn range(size: u64) -> Self {
        let refusal = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, None, "The requested range cannot be satisfied");
        refusal.with("content-range", &format!("bytes */{size}"))
    }

    pub(super) fn status(status: StatusCode) -> Self {
        Self::new(status, None, status.canonical_reason().unwrap_or("refused on demand"))
    }

    pub(super) fn rate_limit(service: Service, seconds: u64) -> Self {
        let (bucket, quota) = match service {
            Service::Api => ("api", 500),
            Service::Resolve | Service::Cdn => ("resolvers", 3000),
        };
        Self::new(StatusCode::TOO_MANY_REQUESTS, None, "We had to rate limit you")
            .with("ratelimit", &format!("\"{bucket}\";r=0;t={seconds}"))
            .with("ratelimit-policy", &format!("\"fixed window\";\"{bucket}\";q={quota};w=300"))
            .with("retry-after", &seconds.to_string())
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(serde_json::json!({ "error": self.message }))).into_response();
        let code = self.code.map(|code| ("x-error-code", code.to_owned()));
        let headers = self.headers.into_iter().chain([("x-error-message", self.message)]).chain(code);
        for (name, value) in headers {
            // A name from the request may hold what a header cannot.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}
