//! Counts what one call does beside computing: log lines, requests, streams. The process that runs a guest counts, and so does
//! the one that does what the guest wants: neither relies on the other. Knows nothing of engines and sockets.

use std::collections::HashSet;

use super::HostCalls;
use super::answers::check_file_path;
use super::io::{Ended, StreamError};
use super::question::Failed;
use super::text::sentence;
use super::types::{HttpError, HttpRequest, HttpResponse, LogLevel};
use crate::limits::{self, Tier};

/// A limit that a guest hit: the end of its call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{limit} is at most {value}")]
pub(super) struct LimitHit {
    pub(super) limit: &'static str,
    pub(super) value: String,
}

/// Why a stream may go no further.
#[derive(Debug)]
pub(super) enum Stop {
    Limit(LimitHit),
    Ended(Ended),
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Limit(hit) => Self::limit(hit.limit, hit.value),
            Stop::Ended(ended) => Self::Stream(ended.0.to_string()),
        }
    }
}

/// Log lines and requests of one call.
pub(super) struct Meter {
    tier: &'static Tier,
    log_lines: usize,
    log_bytes: usize,
    http_requests: usize,
    http_body: usize,
}

impl Meter {
    pub(super) fn new(tier: &'static Tier) -> Self {
        Self { tier, log_lines: 0, log_bytes: 0, http_requests: 0, http_body: 0 }
    }

    /// Lines over the limit are dropped; the last one that fits says so.
    pub(super) fn log(&mut self, calls: &dyn HostCalls, level: LogLevel, message: &str) {
        if self.log_lines > self.tier.log_lines {
            return;
        }
        let line = sentence(message);
        self.log_lines += 1;
        self.log_bytes += line.len();
        if self.log_lines > self.tier.log_lines || self.log_bytes > self.tier.log_bytes {
            self.log_lines = self.tier.log_lines + 1;
            calls.log(LogLevel::Warn, "the plugin logs more than its limit; the rest of this call is dropped");
        } else {
            calls.log(level, &line);
        }
    }

    /// Sends a request, where this call still may.
    pub(super) async fn http(&mut self, calls: &dyn HostCalls, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Tier { http_requests, http_body, name, .. } = self.tier;
        if self.http_requests >= *http_requests {
            return Err(HttpError::Limit(format!("at most {http_requests} HTTP requests in one call of tier `{name}`")));
        }
        self.http_requests += 1;
        let response = calls.http(request).await;
        if let Ok(response) = &response {
            self.http_body = self.http_body.saturating_add(response.body.len());
            if self.http_body > *http_body {
                let most = http_body >> 20;
                return Err(HttpError::Limit(format!("at most {most} MiB of HTTP bodies in one call of tier `{name}`")));
            }
        }
        response
    }
}

/// The streams of one call.
pub(super) struct Ledger {
    tier: &'static Tier,
    opened: HashSet<String>,
    /// Writers that the guest has not dropped.
    open: usize,
    read: u64,
    written: u64,
}

impl Ledger {
    pub(super) fn new(tier: &'static Tier) -> Self {
        Self { tier, opened: HashSet::new(), open: 0, read: 0, written: 0 }
    }

    /// How much one read may give.
    pub(super) fn window(max: u32) -> usize {
        usize::try_from(max).unwrap_or(usize::MAX).min(limits::READ_BYTES)
    }

    /// So much was read.
    pub(super) fn read(&mut self, bytes: usize) {
        self.read = self.read.saturating_add(bytes as u64);
    }

    /// So much is about to be written.
    pub(super) fn write(&mut self, bytes: usize) -> Result<(), Stop> {
        self.written = self.written.saturating_add(bytes as u64);
        let Tier { written, expansion, .. } = self.tier;
        if self.written <= written.saturating_add(self.read.saturating_mul(*expansion)) {
            return Ok(());
        }
        let value = format!("{} MiB and {expansion} times the {} bytes read", written >> 20, self.read);
        Err(Stop::Limit(LimitHit { limit: "what a shard writes", value }))
    }

    /// A file is about to be begun.
    pub(super) fn open(&mut self, path: &str) -> Result<(), Stop> {
        let ended = |reason| Stop::Ended(Ended(StreamError(reason)));
        let limit = |limit, value: usize| Stop::Limit(LimitHit { limit, value: value.to_string() });
        check_file_path(path).map_err(|reason| ended(format!("the importer opens {reason}")))?;
        if self.opened.len() >= limits::SHARD_OUTPUTS {
            return Err(limit("the files of a shard", limits::SHARD_OUTPUTS));
        }
        if self.open >= limits::OPEN_OUTPUTS {
            return Err(limit("the open files of a shard", limits::OPEN_OUTPUTS));
        }
        if !self.opened.insert(path.to_lowercase()) {
            return Err(ended(format!("the importer opens path `{path}` twice, or in two spellings that differ only in case")));
        }
        self.open += 1;
        Ok(())
    }

    /// A file was let go of.
    pub(super) fn close(&mut self) {
        self.open = self.open.saturating_sub(1);
    }
}
