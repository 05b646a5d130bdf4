//! Counts what clients asked and what they were sent, for a test to look at. Must not know what it counts for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Counts of one host. Paths are decoded and without query.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStats {
    /// Requests by method and path, `GET /acme/tiny/resolve/main/config.json`.
    pub requests: BTreeMap<String, u64>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes of files handed to connections.
    pub bytes: u64,
    /// The same by path.
    pub bytes_by_path: BTreeMap<String, u64>,
    /// Connections ever accepted.
    pub connections: u64,
    /// Connections open now.
    pub open_connections: u64,
    /// The most that were open at one time.
    pub max_open_connections: u64,
    /// Requests that carried an `Authorization` header.
    pub authorization_headers: u64,
}

impl HostStats {
    /// How many requests had a method and path that contain `part`.
    pub fn requests_with(&self, part: &str) -> u64 {
        self.requests.iter().filter(|(request, _)| request.contains(part)).map(|(_, count)| count).sum()
    }

    /// How many bytes of files were sent whose path contains `part`.
    pub fn bytes_with(&self, part: &str) -> u64 {
        self.bytes_by_path.iter().filter(|(path, _)| path.contains(part)).map(|(_, bytes)| bytes).sum()
    }
}

/// Counts of both hosts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The hub itself.
    pub hub: HostStats,
    /// Where large files come from; a credential that shows here has leaked.
    pub cdn: HostStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Hub,
    Cdn,
}

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<Stats>);

impl Counters {
    pub(super) fn read(&self) -> Stats {
        self.lock().clone()
    }

    pub(super) fn reset(&self) {
        let mut stats = self.lock();
        let Stats { hub, cdn } = &mut *stats;
        for host in [hub, cdn] {
            let open = host.open_connections;
            *host = HostStats { open_connections: open, max_open_connections: open, ..HostStats::default() };
        }
    }

    pub(super) fn request(&self, host: Host, method: &str, path: &str, authorization: bool) {
        self.on(host, |stats| {
            *stats.requests.entry(format!("{method} {path}")).or_default() += 1;
            stats.authorization_headers += u64::from(authorization);
        });
    }

    pub(super) fn status(&self, host: Host, status: u16) {
        self.on(host, |stats| *stats.statuses.entry(status).or_default() += 1);
    }

    pub(super) fn sent(&self, host: Host, path: &str, bytes: u64) {
        self.on(host, |stats| {
            stats.bytes += bytes;
            if let Some(sum) = stats.bytes_by_path.get_mut(path) {
                *sum += bytes;
            } else {
                stats.bytes_by_path.insert(path.to_owned(), bytes);
            }
        });
    }

    pub(super) fn opened(&self, host: Host) {
        self.on(host, |stats| {
            stats.connections += 1;
            stats.open_connections += 1;
            stats.max_open_connections = stats.max_open_connections.max(stats.open_connections);
        });
    }

    pub(super) fn closed(&self, host: Host) {
        self.on(host, |stats| stats.open_connections = stats.open_connections.saturating_sub(1));
    }

    fn on(&self, host: Host, change: impl FnOnce(&mut HostStats)) {
        let mut stats = self.lock();
        change(match host {
            Host::Hub => &mut stats.hub,
            Host::Cdn => &mut stats.cdn,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Stats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
