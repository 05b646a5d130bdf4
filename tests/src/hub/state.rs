//! What both hosts share: repositories, rights, signed URLs, faults, counters. Must not know a request's shape.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::{
    Settings,
    content::Content,
    fault::Rules,
    published::{Commit, Published, What},
    refusal::Refusal,
    repo::{Kind, Repo},
    stats::Counters,
};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rules: Rules,
    pub(super) stats: Counters,
    settings: Settings,
    cdn_url: String,
    secret: String,
    repos: RwLock<Repos>,
}

#[derive(Debug, Default)]
struct Repos {
    by_id: BTreeMap<(Kind, String), Arc<Published>>,
    moved: BTreeMap<(Kind, String), String>,
    blobs: HashMap<String, Content>,
}

/// Who asks: a token that the hub knows, or nobody.
pub(super) type Caller = Option<String>;

/// What is known of a name.
pub(super) enum Found {
    Here(Arc<Published>),
    MovedTo(String),
}

impl Shared {
    pub(super) fn new(settings: Settings, cdn_url: String) -> Arc<Self> {
        // Differs from one run to the next, so that no test signs a URL by itself.
        let secret = format!("{:?} {}", SystemTime::now(), std::process::id());
        let (rules, stats, repos) = (Rules::default(), Counters::default(), RwLock::default());
        Arc::new(Self { rules, stats, settings, cdn_url, secret, repos })
    }

    pub(super) fn put(&self, repo: Repo) -> Result<()> {
        let former = repo.former.clone();
        let mut published = Published::new(repo)?;
        let key = (published.kind, published.id.clone());
        let mut repos = self.repos.write().unwrap_or_else(PoisonError::into_inner);
        for name in former {
            repos.moved.insert((published.kind, name), published.id.clone());
        }
        for (sha256, content) in published.blobs() {
            repos.blobs.insert(sha256.to_owned(), content.clone());
        }
        if let Some(earlier) = repos.by_id.remove(&key).and_then(Arc::into_inner) {
            published.keep(earlier);
        }
        repos.by_id.insert(key, Arc::new(published));
        Ok(())
    }

    pub(super) fn page_size(&self) -> usize {
        self.settings.page_size
    }

    /// Reads the `Authorization` header; a token nobody has issued is refused even where none is needed.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let known = |token: &&str| {
            let reader = |repo: &Arc<Published>| repo.readers.contains(*token);
            self.settings.tokens.iter().any(|other| other == token) || self.repos().by_id.values().any(reader)
        };
        token.filter(known).map(|token| Some(token.to_owned())).ok_or_else(Refusal::credentials)
    }

    /// The repository, as far as the caller may know of it.
    pub(super) fn find(&self, kind: Kind, id: &str, caller: &Caller) -> Result<Found, Refusal> {
        let repos = self.repos();
        let key = (kind, id.to_owned());
        if let Some(to) = repos.moved.get(&key) {
            return Ok(Found::MovedTo(to.clone()));
        }
        let hidden = |repo: &Published| repo.private && !may_read(repo, caller);
        match repos.by_id.get(&key) {
            Some(repo) if hidden(repo) => Err(Refusal::repository(caller.is_some())),
            Some(repo) if repo.disabled => Err(Refusal::disabled()),
            Some(repo) => Ok(Found::Here(repo.clone())),
            None => Err(Refusal::repository(caller.is_some())),
        }
    }

    /// Every repository that the caller may know of, by name.
    pub(super) fn visible(&self, kind: Kind, caller: &Caller) -> Vec<Arc<Published>> {
        let shown = |repo: &&Arc<Published>| repo.kind == kind && (!repo.private || may_read(repo, caller));
        self.repos().by_id.values().filter(shown).cloned().collect()
    }

    pub(super) fn commit(&self, kind: Kind, id: &str, revision: &str) -> Option<String> {
        self.at(kind, id, revision, |commit| Some(commit.sha.clone()))
    }

    pub(super) fn sha256(&self, kind: Kind, id: &str, revision: &str, path: &str) -> Option<String> {
        self.at(kind, id, revision, |commit| match &commit.entry(path)?.what {
            What::Large { sha256, .. } => Some(sha256.clone()),
            What::Directory | What::Small(_) => None,
        })
    }

    fn at<T>(&self, kind: Kind, id: &str, revision: &str, read: impl FnOnce(&Commit) -> Option<T>) -> Option<T> {
        read(self.repos().by_id.get(&(kind, id.to_owned()))?.commit(revision)?)
    }

    pub(super) fn blob(&self, sha256: &str) -> Option<Content> {
        self.repos().blobs.get(sha256).cloned()
    }

    /// A URL of the CDN that works for a while; `path` must be percent-encoded.
    pub(super) fn sign(&self, path: &str) -> String {
        let expires = now() + self.settings.url_ttl.as_secs();
        format!("{}{path}?Expires={expires}&Signature={}", self.cdn_url, self.signature(path, expires))
    }

    /// Whether the query belongs to the path and has not run out.
    pub(super) fn is_signed(&self, path: &str, query: &str) -> bool {
        let field =
            |name: &str| url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value);
        let expires = field("Expires").and_then(|value| value.parse().ok()).unwrap_or(0);
        now() < expires && field("Signature").is_some_and(|value| value == self.signature(path, expires))
    }

    fn signature(&self, path: &str, expires: u64) -> String {
        hex::encode(Sha256::digest(format!("{}\n{path}\n{expires}", self.secret)))
    }

    fn repos(&self) -> RwLockReadGuard<'_, Repos> {
        self.repos.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the caller was given access to what is not public.
pub(super) fn may_read(repo: &Published, caller: &Caller) -> bool {
    caller.as_ref().is_some_and(|token| repo.readers.contains(token))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
