//! What goes wrong on demand: rules that match requests and say how the answer is spoilt.
//! Must not know how an answer is made.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::range::{self, Span};
use super::refusal::Refusal;

/// A part of the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Metadata and listings, `/api/…`.
    Api,
    /// `…/resolve/…`: small files, and redirects for large ones.
    Resolve,
    /// The second host: large files.
    Cdn,
}

/// How an answer is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The connection closes once this many bytes of a body are sent.
    CutAfter(u64),
    /// Nothing more comes after this many bytes of a body; the connection stays open.
    StallAfter(u64),
    /// A body comes at this speed; each connection has its own.
    BytesPerSecond(u64),
    /// The first byte of the body is another one.
    WrongByte,
    /// The file became another one of the same size: every byte differs, and so does the `ETag`.
    ChangedContent,
    /// A well-formed answer that holds this many bytes less than it should.
    ShortBody(u64),
    /// A well-formed answer that holds this many bytes more than it should.
    ExtraBody(u64),
    /// The signed URL ran out: 403, as the CDN says it.
    Expired,
    /// This status and nothing else.
    Status(u16),
    /// 429 with `RateLimit` headers and `Retry-After`.
    TooManyRequests {
        /// When to come back.
        seconds: u64,
    },
    /// 404 for a file that the listing has.
    NotFound,
    /// An answer begins so many milliseconds late, as if the hub were far away.
    Latency(u64),
}

impl Fault {
    /// Whether it shows only where a body is sent.
    fn spoils_body(self) -> bool {
        use Fault::{BytesPerSecond, ChangedContent, CutAfter, ExtraBody, ShortBody, StallAfter, WrongByte};
        matches!(self, CutAfter(_) | StallAfter(_) | BytesPerSecond(_) | WrongByte | ChangedContent | ShortBody(_) | ExtraBody(_))
    }
}

/// A fault and the requests it strikes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Where.
    pub on: Service,
    /// A part of the request's path (decoded, without the query); empty matches every path.
    #[serde(default)]
    pub path: String,
    /// Only requests for bytes of which this is one; a request without a range is for all of them.
    #[serde(default)]
    pub byte: Option<u64>,
    /// How many requests it strikes; absent = all.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Strikes metadata requests whose path contains `path`.
    pub fn api(path: &str, fault: Fault) -> Self {
        Self { on: Service::Api, path: path.to_owned(), byte: None, times: None, fault }
    }

    /// Strikes `resolve` requests whose path contains `path`.
    pub fn resolve(path: &str, fault: Fault) -> Self {
        Self { on: Service::Resolve, ..Self::api(path, fault) }
    }

    /// Strikes downloads of large files whose path contains `path`.
    pub fn cdn(path: &str, fault: Fault) -> Self {
        Self { on: Service::Cdn, ..Self::api(path, fault) }
    }

    /// Strikes requests for this byte only.
    #[must_use]
    pub fn at(self, byte: u64) -> Self {
        Self { byte: Some(byte), ..self }
    }

    /// Strikes the next `times` requests only.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Strikes the next request only.
    #[must_use]
    pub fn once(self) -> Self {
        self.times(1)
    }
}

/// How one answer is spoilt: what all rules that matched add up to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Plan {
    pub(super) cut_after: Option<u64>,
    pub(super) stall_after: Option<u64>,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) wrong_byte: bool,
    pub(super) changed: bool,
    pub(super) short: u64,
    pub(super) extra: u64,
}

/// The rules that are armed.
#[derive(Debug, Default)]
pub(super) struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    pub(super) fn arm(&self, rule: Rule) {
        self.lock().push(rule);
    }

    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    pub(super) fn all(&self) -> Vec<Rule> {
        self.lock().clone()
    }

    /// Takes what strikes this request; a rule that was to strike so many requests is used up by them.
    pub(super) fn strike(&self, on: Service, request: &Request, path: &str) -> Result<Plan, Refusal> {
        let (mut plan, mut refusal) = (Plan::default(), None);
        let (method, range) = (request.method(), request.headers().get(http::header::RANGE));
        let span = range::parse(range.and_then(|value| value.to_str().ok()), u64::MAX);
        for rule in &mut *self.lock() {
            let spoils = refusal.is_none() && (method == Method::GET || !rule.fault.spoils_body());
            let asked = rule.byte.is_none_or(|byte| match span {
                Span::Part { start, end } => (start..end).contains(&byte),
                Span::Whole | Span::Unsatisfiable => true,
            });
            if rule.on != on || rule.times == Some(0) || !spoils || !asked || !path.contains(&rule.path) {
                continue;
            }
            rule.times = rule.times.map(|times| times - 1);
            match rule.fault {
                Fault::CutAfter(bytes) => plan.cut_after = Some(bytes),
                Fault::StallAfter(bytes) => plan.stall_after = Some(bytes),
                Fault::BytesPerSecond(bytes) => plan.bytes_per_second = Some(bytes.max(1)),
                Fault::WrongByte => plan.wrong_byte = true,
                Fault::ChangedContent => plan.changed = true,
                Fault::ShortBody(bytes) => plan.short = bytes,
                Fault::ExtraBody(bytes) => plan.extra = bytes,
                Fault::Expired => refusal = Some(Refusal::unsigned()),
                // Made to last before anything else: see `latency`.
                Fault::Latency(_) => {}
                Fault::NotFound => refusal = Some(Refusal::entry(path)),
                Fault::TooManyRequests { seconds } => refusal = Some(Refusal::rate_limit(on, seconds)),
                Fault::Status(status) => {
                    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    refusal = Some(Refusal::status(status));
                }
            }
        }
        refusal.map_or(Ok(plan), Err)
    }

    /// How much later than it could be the answer begins. Such a rule strikes always.
    pub(super) fn latency(&self, on: Service, path: &str) -> Duration {
        let late = |rule: &Rule| match rule.fault {
            Fault::Latency(milliseconds) if rule.on == on && path.contains(&rule.path) => Some(milliseconds),
            _ => None,
        };
        Duration::from_millis(self.lock().iter().filter_map(late).sum())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
