//! Sends a file: whole or a range, spoilt where a fault says so. Must not know which file, nor who may have it.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use futures::stream;
use http::{HeaderMap, StatusCode, header};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    content::{CHUNK, Content},
    fault::Plan,
    range::{self, Span},
    refusal::Refusal,
    state::Shared,
    stats::Host,
};

/// A file on its way to a client.
pub(super) struct Sending {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) plan: Plan,
    pub(super) host: Host,
    pub(super) path: String,
    pub(super) shared: Arc<Shared>,
}

impl Sending {
    /// The answer to a request with these headers.
    pub(super) fn answer(mut self, request: &HeaderMap) -> Response {
        if self.plan.changed {
            self.etag = self.etag.chars().rev().collect();
        }
        let (size, etag) = (self.content.size(), format!("\"{}\"", self.etag));
        let text = |name| request.get(name).and_then(|value| value.to_str().ok());
        let still_the_same = text(header::IF_RANGE).is_none_or(|seen| seen == etag);
        let span = range::parse(text(header::RANGE).filter(|_| still_the_same), size);
        let (status, start, end) = match span {
            Span::Whole => (StatusCode::OK, 0, size),
            Span::Part { start, end } => (StatusCode::PARTIAL_CONTENT, start, end),
            Span::Unsatisfiable => return Refusal::range(size).into_response(),
        };
        let length = (end - start).saturating_sub(self.plan.short) + self.plan.extra;
        let mut headers = vec![
            (header::CONTENT_LENGTH, length.to_string()),
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, etag),
        ];
        if status == StatusCode::PARTIAL_CONTENT {
            let last = end.saturating_sub(1);
            headers.push((header::CONTENT_RANGE, format!("bytes {start}-{last}/{size}")));
        }
        let end = start + length.saturating_sub(self.plan.extra);
        let stream = Stream { at: start, end, sent: 0, length, began: Instant::now(), sending: self };
        let body = Body::from_stream(stream::try_unfold(stream, Stream::next));
        (status, axum::response::AppendHeaders(headers), body).into_response()
    }
}

struct Stream {
    at: u64,
    end: u64,
    sent: u64,
    length: u64,
    began: Instant,
    sending: Sending,
}

impl Stream {
    async fn next(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let plan = self.sending.plan;
        if plan.stall_after.is_some_and(|limit| self.sent >= limit) {
            std::future::pending::<()>().await;
        }
        if plan.cut_after.is_some_and(|limit| self.sent >= limit) {
            // Lets what was sent leave first: a connection that breaks drops what is still queued.
            sleep(Duration::from_millis(50)).await;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.sent >= self.length {
            return Ok(None);
        }
        let chunk = self.read().await?;
        self.sent += chunk.len() as u64;
        if let Some(rate) = plan.bytes_per_second {
            let due = Duration::from_millis(self.sent.saturating_mul(1000) / rate);
            sleep_until(self.began + due).await;
        }
        let Sending { shared, host, path, .. } = &self.sending;
        shared.stats.sent(*host, path, chunk.len() as u64);
        Ok(Some((chunk, self)))
    }

    async fn read(&mut self) -> io::Result<Bytes> {
        let plan = self.sending.plan;
        // Twenty pieces a second look steady to a client.
        let pace = plan.bytes_per_second.map(|rate| (rate / 20).max(1));
        let until = |limit: Option<u64>| limit.map(|limit| limit - self.sent);
        let limits = [pace, until(plan.cut_after), until(plan.stall_after), Some(CHUNK as u64)];
        let most = limits.into_iter().flatten().min().unwrap_or(0);
        if self.at >= self.end {
            let more = most.min(self.length - self.sent);
            return Ok(vec![b'x'; usize::try_from(more).map_err(io::Error::other)?].into());
        }
        let most = usize::try_from(most.min(self.end - self.at)).map_err(io::Error::other)?;
        let mut chunk = self.sending.content.read(self.at, most).await?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if plan.changed {
            chunk = chunk.iter().map(|byte| byte ^ 0x5a).collect();
        }
        if plan.wrong_byte && self.sent == 0 {
            let rest = chunk.slice(1..);
            chunk = chunk.iter().take(1).map(|byte| !byte).chain(rest).collect();
        }
        self.at += chunk.len() as u64;
        Ok(chunk)
    }
}
