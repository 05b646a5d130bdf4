//! Who calls: a pod's projected token, reviewed by the API server and remembered for a minute. Only the service accounts of
//! workers, of builds and of Notebooks may call. Knows nothing of what the caller wants.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::kinds::shared::names;

/// Audience of the tokens that worker pods mount: worth nothing to the API server, and no other token is worth anything here.
pub const AUDIENCE: &str = "substratus-store";
/// Service accounts of the pods that load models and import datasets.
pub const WORKER_ACCOUNTS: [&str; 2] = [names::MODELLER, names::DATA_LOADER];

/// A verdict is asked for again after this; a deleted pod may call for so long.
const REMEMBERED: Duration = Duration::from_mins(1);
/// Verdicts that are remembered; a flood of tokens empties the memory rather than filling ours.
const MAX_REMEMBERED: usize = 4096;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 8 * 1024;
/// Reviews at a time, so that nobody can turn this endpoint against the API server.
const CONCURRENT_REVIEWS: usize = 8;
/// A review that takes longer has failed.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A pod that may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What it may call for.
    pub role: Role,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID: another pod of the same name is another caller.
    pub uid: String,
}

/// What a caller is, by its service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A worker, one of [`WORKER_ACCOUNTS`].
    Worker,
    /// The pod of a Notebook.
    Notebook,
    /// The pod of a build.
    Builder,
}

/// The caller gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token, or none that the API server vouches for.
    #[error("show a token of audience 'substratus-store' as bearer")]
    NotAuthenticated,
    /// A good token of somebody else.
    #[error(
        "only pods of the service accounts 'modeller', 'data-loader', 'container-builder' and 'notebook' may call, each for what it is"
    )]
    NotACaller,
    /// The API server does not answer, or too many ask.
    #[error("the token cannot be checked now, try again")]
    Unavailable,
}

/// Says who a token belongs to.
pub trait Reviewer: Send + Sync + 'static {
    /// Asks; the token is never logged.
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Denied>>;
}

/// Asks the API server.
#[derive(Clone, Debug)]
pub struct KubeReviewer(Api<TokenReview>);

impl KubeReviewer {
    /// Asks through this client, which needs the right to create `tokenreviews`.
    pub fn new(client: kube::Client) -> Self {
        Self(Api::all(client))
    }
}

impl Reviewer for KubeReviewer {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Denied>> {
        Box::pin(async move {
            let spec = TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: Some(token.to_owned()) };
            let review = TokenReview { spec, ..TokenReview::default() };
            let review = self.0.create(&PostParams::default(), &review).await.map_err(|error| {
                tracing::warn!(error = &error as &dyn std::error::Error, "review a worker's token");
                Denied::Unavailable
            })?;
            verdict(&review)
        })
    }
}

/// What the answer of the API server means. An answer without our audience comes from an authenticator that knows none.
fn verdict(review: &TokenReview) -> Result<Caller, Denied> {
    let status = review.status.as_ref().ok_or(Denied::NotAuthenticated)?;
    let ours = status.audiences.iter().flatten().any(|audience| audience == AUDIENCE);
    if status.authenticated != Some(true) || !ours {
        return Err(Denied::NotAuthenticated);
    }
    status.user.as_ref().and_then(caller).ok_or(Denied::NotACaller)
}

fn caller(user: &UserInfo) -> Option<Caller> {
    let account = user.username.as_deref()?.strip_prefix("system:serviceaccount:")?;
    let (namespace, name) = account.split_once(':')?;
    let role = match name {
        names::NOTEBOOK => Role::Notebook,
        names::CONTAINER_BUILDER => Role::Builder,
        name if WORKER_ACCOUNTS.contains(&name) => Role::Worker,
        _ => return None,
    };
    let said = |key: &str| user.extra.as_ref()?.get(key)?.first().cloned();
    Some(Caller { role, namespace: namespace.to_owned(), pod: said(POD_NAME)?, uid: said(POD_UID)? })
}

type Verdict = Result<Caller, Denied>;

/// A reviewer with a memory, keyed by the hash of the token.
pub(super) struct Callers {
    reviewer: Box<dyn Reviewer>,
    known: Mutex<HashMap<[u8; 32], (Instant, Verdict)>>,
    reviews: Semaphore,
}

impl Callers {
    pub(super) fn new(reviewer: impl Reviewer) -> Self {
        Self { reviewer: Box::new(reviewer), known: Mutex::default(), reviews: Semaphore::new(CONCURRENT_REVIEWS) }
    }

    pub(super) async fn who(&self, token: &str) -> Verdict {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Denied::NotAuthenticated);
        }
        let key = Sha256::digest(token.as_bytes()).into();
        if let Some(verdict) = self.remembered(&key) {
            return verdict;
        }
        let review = async {
            let _permit = self.reviews.acquire().await.map_err(|_| Denied::Unavailable)?;
            self.reviewer.review(token).await
        };
        let verdict = timeout(REVIEW_TIMEOUT, review).await.unwrap_or(Err(Denied::Unavailable));
        if verdict != Err(Denied::Unavailable) {
            self.remember(key, verdict.clone());
        }
        verdict
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Verdict> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(at, _)| at.elapsed() < REMEMBERED).map(|(_, verdict)| verdict.clone())
    }

    fn remember(&self, key: [u8; 32], verdict: Verdict) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REMEMBERED {
            known.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if known.len() >= MAX_REMEMBERED {
            known.clear();
        }
        known.insert(key, (Instant::now(), verdict));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::TokenReviewStatus;

    use super::*;

    fn review(username: &str, audiences: &[&str], pod: Option<&str>) -> TokenReview {
        let user = UserInfo {
            username: Some(username.to_owned()),
            extra: pod.map(|pod| {
                [(POD_NAME.to_owned(), vec![pod.to_owned()]), (POD_UID.to_owned(), vec![format!("{pod}-uid")])].into()
            }),
            ..UserInfo::default()
        };
        let status = TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(audiences.iter().map(|&audience| audience.to_owned()).collect()),
            user: Some(user),
            ..TokenReviewStatus::default()
        };
        TokenReview { status: Some(status), ..TokenReview::default() }
    }

    #[test]
    fn a_caller_is_its_role_namespace_and_pod() {
        for (account, role) in [
            ("modeller", Role::Worker),
            ("data-loader", Role::Worker),
            ("notebook", Role::Notebook),
            ("container-builder", Role::Builder),
        ] {
            let good = review(&format!("system:serviceaccount:team-a:{account}"), &[AUDIENCE], Some("opt-x1"));
            let (namespace, pod, uid) = ("team-a".to_owned(), "opt-x1".to_owned(), "opt-x1-uid".to_owned());
            assert_eq!(verdict(&good), Ok(Caller { role, namespace, pod, uid }));
        }
    }

    #[test]
    fn others_are_denied() {
        let modeller = "system:serviceaccount:team-a:modeller";
        for (username, audiences, pod, denied) in [
            (modeller, &["https://kubernetes.default.svc"][..], Some("p"), Denied::NotAuthenticated),
            (modeller, &[], Some("p"), Denied::NotAuthenticated),
            (modeller, &[AUDIENCE], None, Denied::NotACaller),
            ("system:serviceaccount:team-a:default", &[AUDIENCE], Some("p"), Denied::NotACaller),
            ("system:serviceaccount:team-a:x:modeller", &[AUDIENCE], Some("p"), Denied::NotACaller),
            ("modeller", &[AUDIENCE], Some("p"), Denied::NotACaller),
        ] {
            assert_eq!(verdict(&review(username, audiences, pod)), Err(denied), "{username} {audiences:?} {pod:?}");
        }
        let mut unsure = review(modeller, &[AUDIENCE], Some("p"));
        unsure.status.as_mut().unwrap().authenticated = Some(false);
        assert_eq!(verdict(&unsure), Err(Denied::NotAuthenticated));
        assert_eq!(verdict(&TokenReview::default()), Err(Denied::NotAuthenticated));
    }
}
