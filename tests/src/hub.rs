//! A model hub on this machine: speaks Hugging Face's HTTP API to real clients, counts, and fails on demand.
//! Must not know who downloads from it, nor anything of Kubernetes.
//!
//! Two listeners, as on the internet: the hub itself answers metadata and small files, the "CDN" serves large files
//! behind signed URLs that run out. A request that carries a credential to the CDN is refused and counted.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use substratus_tests::hub::{Content, Fault, Hub, Repo, Rule};
//!
//! let runtime = tokio::runtime::Runtime::new()?;
//! let hub = Hub::builder()
//!     .repo(Repo::model("acme/tiny").file("config.json", "{}").file("big.bin", Content::noise(1, 1 << 30)))
//!     .start([127, 0, 0, 1].into(), runtime.handle())?;
//! hub.fault(Rule::cdn("big.bin", Fault::CutAfter(1 << 20)).once());
//! // … point a client at `hub.url`, then:
//! assert_eq!(hub.stats().cdn.authorization_headers, 0);
//! # Ok(()) }
//! ```
//!
//! | question | file |
//! |---|---|
//! | Which URLs exist? | `address.rs` |
//! | What does the metadata say? | `api.rs`, `tree.rs` |
//! | How does a file reach the client? | `resolve.rs`, `cdn.rs`, `body.rs` |
//! | What can go wrong on demand? | `fault.rs` |

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use axum::{Router, routing::any};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::{
    content::Content,
    fault::{Fault, Rule, Service},
    repo::{Gated, Kind, Repo},
    stats::{HostStats, Stats},
};
use self::{listen::Bound, state::Shared, stats::Host};

mod address;
mod admin;
mod api;
mod body;
mod cdn;
mod content;
mod fault;
mod git;
mod listen;
mod published;
mod range;
mod refusal;
mod repo;
mod resolve;
mod state;
mod stats;
mod tree;

/// How the hub behaves when nothing is said.
#[derive(Debug, Clone)]
struct Settings {
    page_size: usize,
    url_ttl: Duration,
    tokens: Vec<String>,
    cdn_url: Option<String>,
}

/// A hub that is not yet running.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    repos: Vec<Repo>,
}

impl Builder {
    /// Adds a repository.
    #[must_use]
    pub fn repo(mut self, repo: Repo) -> Self {
        self.repos.push(repo);
        self
    }

    /// A token the hub knows but that opens no private or gated repository (see [`Repo::reader`] for those).
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.settings.tokens.push(token.to_owned());
        self
    }

    /// Entries per page of a tree listing; 1,000 like the real hub unless told.
    #[must_use]
    pub fn page_size(mut self, entries: usize) -> Self {
        self.settings.page_size = entries.max(1);
        self
    }

    /// How long a signed CDN URL works; an hour unless told.
    #[must_use]
    pub fn url_ttl(mut self, ttl: Duration) -> Self {
        self.settings.url_ttl = ttl;
        self
    }

    /// The CDN's address as clients see it, where that is not the address it listens on.
    #[must_use]
    pub fn cdn_url(mut self, url: &str) -> Self {
        self.settings.cdn_url = Some(url.trim_end_matches('/').to_owned());
        self
    }

    /// Listens on two free ports of `ip`; see [`Builder::start_at`].
    pub fn start(self, ip: IpAddr, runtime: &Handle) -> Result<Hub> {
        self.start_at(SocketAddr::new(ip, 0), SocketAddr::new(ip, 0), runtime)
    }

    /// Listens in the network namespace of the calling thread; the requests are served on `runtime`.
    pub fn start_at(self, hub: SocketAddr, cdn: SocketAddr, runtime: &Handle) -> Result<Hub> {
        let (hub, cdn) = (Bound::to(hub)?, Bound::to(cdn)?);
        let url = format!("http://{}", hub.address);
        let cdn_url = self.settings.cdn_url.clone().unwrap_or_else(|| format!("http://{}", cdn.address));
        let shared = Shared::new(self.settings, cdn_url.clone());
        for repo in self.repos {
            shared.put(repo)?;
        }
        let stop = CancellationToken::new();
        let router = Router::new().fallback(any(resolve::hub)).with_state(shared.clone());
        hub.serve(router, Host::Hub, &shared, &stop, runtime)?;
        let router = Router::new().fallback(any(cdn::cdn)).with_state(shared.clone());
        cdn.serve(router, Host::Cdn, &shared, &stop, runtime)?;
        Ok(Hub { url, cdn_url, shared, _stop: stop.drop_guard() })
    }
}

/// A running hub; dropping it closes both listeners and every connection.
#[derive(Debug)]
pub struct Hub {
    /// What `HF_ENDPOINT` is set to.
    pub url: String,
    /// Where large files come from.
    pub cdn_url: String,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Hub {
    /// A hub with no repository.
    pub fn builder() -> Builder {
        let settings = Settings { page_size: 1000, url_ttl: Duration::from_hours(1), tokens: Vec::new(), cdn_url: None };
        Builder { settings, repos: Vec::new() }
    }

    /// Publishes a repository, or new revisions of one; earlier commits stay reachable by their hash.
    pub fn put(&self, repo: Repo) -> Result<()> {
        self.shared.put(repo)
    }

    /// Arms a fault; several may be armed, and all that match a request apply.
    pub fn fault(&self, rule: Rule) {
        self.shared.rules.arm(rule);
    }

    /// Rules that are armed; one that is used up has no times left.
    pub fn faults(&self) -> Vec<Rule> {
        self.shared.rules.all()
    }

    /// Disarms every fault.
    pub fn clear_faults(&self) {
        self.shared.rules.clear();
    }

    /// What was asked and served since the start or the last [`Hub::reset_stats`].
    pub fn stats(&self) -> Stats {
        self.shared.stats.read()
    }

    /// Counts from zero again; open connections stay counted.
    pub fn reset_stats(&self) {
        self.shared.stats.reset();
    }

    /// The commit that a branch, tag or commit of a repository stands for.
    pub fn commit(&self, kind: Kind, id: &str, revision: &str) -> Result<String> {
        self.shared.commit(kind, id, revision).with_context(|| format!("the hub has no revision {revision:?} of {id:?}"))
    }

    /// The sha256 of a large file, as the listing announces it.
    pub fn sha256(&self, kind: Kind, id: &str, revision: &str, path: &str) -> Result<String> {
        self.shared
            .sha256(kind, id, revision, path)
            .with_context(|| format!("the hub has no large file {path:?} at {revision:?} of {id:?}"))
    }
}
