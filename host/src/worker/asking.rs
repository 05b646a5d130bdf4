//! How a plugin is asked while bytes are moved: waited for where it asks to, repeated where it may pass, its files checked, its
//! failures put into words for the user. Knows neither loaders nor importers.

use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderMap;
use substratus_crds::conditions::reason;
use url::Url;

use super::egress::{Egress, guest_headers};
use super::failure::LoadError;
use super::journal::unhex;
use super::oci::reference::OciUrl;
use super::plan::{Origin, PlanFile};
use super::transfer::Tuning;
use crate::plugin::types::{self, Failure, GITOID, SHA256};
use crate::plugin::{Grant, PluginError, SecretScheme, describe};

/// What asking needs. Clones share connections.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) egress: Egress,
    tuning: Tuning,
    /// Variables that may carry a token.
    tokens: Vec<String>,
    /// The secret use that means an account at a registry.
    registry: Option<String>,
}

impl Asker {
    /// Asks with the rights of `grant`.
    pub(super) fn new(grant: &Grant, egress: Egress, tuning: Tuning) -> Self {
        let tokens = grant.secrets.iter().flat_map(|secret| secret.env.clone()).collect();
        let registry = grant.secrets.iter().find(|secret| secret.scheme == SecretScheme::Registry);
        Self { egress, tuning, tokens, registry: registry.map(|secret| secret.name.clone()) }
    }

    /// Waits where the source asks to, repeats what may pass.
    pub(super) async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, LoadError>
    where
        F: Future<Output = Result<T, PluginError>>,
    {
        let (mut failures, mut waited) = (0, Duration::ZERO);
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            let pause = match &error {
                PluginError::Failure(Failure::RateLimited(Some(seconds))) => Duration::from_secs((*seconds).into()),
                error if error.is_passing() => self.tuning.pause_after(failures),
                error => return Err(self.failure(error)),
            };
            waited += pause;
            if failures >= self.tuning.attempts || waited > self.tuning.max_wait {
                return Err(match error {
                    PluginError::Failure(Failure::RateLimited(_)) => LoadError::rate_limited(pause.as_secs()),
                    error => self.failure(&error),
                });
            }
            tracing::info!(seconds = pause.as_secs_f32(), error = %self.egress.redact(&error.to_string()), "the plugin is asked again");
            tokio::time::sleep(pause).await;
        }
    }

    /// A file of a plan, fit to be fetched.
    pub(super) fn check(&self, file: types::File) -> Result<PlanFile, LoadError> {
        let path = file.path;
        let (mut sha256, mut gitoid) = (None, None);
        if let Some(digest) = file.digest {
            let wrong = || refused(&format!("the digest of `{path}` is no {}", digest.algorithm));
            match digest.algorithm.as_str() {
                SHA256 => sha256 = Some(unhex(&digest.hex).ok_or_else(wrong)?),
                GITOID => gitoid = Some(unhex(&digest.hex).ok_or_else(wrong)?),
                other => return Err(refused(&format!("the digest of `{path}` is a {other}; {SHA256} or {GITOID} is needed"))),
            }
        }
        let (origin, sha256) = match file.origin {
            types::Origin::Http(origin) => {
                let url = Url::parse(&origin.url).map_err(|error| refused(&format!("the URL of `{path}` is none: {error}")))?;
                self.egress.check(&url)?;
                let headers = guest_headers(&origin.headers)?;
                (Origin { url, headers, auth: origin.auth, expires: origin.expires }, sha256)
            }
            types::Origin::Oci(blob) => {
                let (origin, digest) = self.blob(&path, &blob)?;
                if sha256.is_some_and(|sha256| sha256 != digest) {
                    return Err(refused(&format!("`{path}` has one digest and its blob another")));
                }
                (origin, Some(digest))
            }
            types::Origin::Object(_) | types::Origin::Xet(_) => {
                let message = format!("`{path}` lies where this version cannot fetch from; HTTP and OCI origins work");
                return Err(LoadError::new(reason::UNSUPPORTED, message));
            }
        };
        Ok(PlanFile { path, size: file.size, sha256, gitoid, origin })
    }

    /// A blob of a registry, which is spoken to as it was granted: by https, or else without.
    fn blob(&self, path: &str, blob: &types::OciOrigin) -> Result<(Origin, [u8; 32]), LoadError> {
        let digest = Some(&blob.digest).filter(|digest| digest.algorithm == "sha256").and_then(|digest| unhex(&digest.hex));
        let digest = digest.ok_or_else(|| refused(&format!("the digest of the blob of `{path}` is no sha256")))?;
        let place: OciUrl = format!("oci://{}", blob.repository)
            .parse()
            .map_err(|error| refused(&format!("the repository of `{path}`: {error}")))?;
        let at = |secure| place.base(secure)?.join(&format!("blobs/sha256:{}", blob.digest.hex)).ok();
        let (Some(secure), Some(plain)) = (at(true), at(false)) else {
            return Err(refused(&format!("the repository of `{path}` is none")));
        };
        let url = match (self.egress.check(&secure), self.egress.check(&plain)) {
            (Err(_), Ok(_)) => plain,
            (allowed, _) => allowed.map(|_| secure)?,
        };
        Ok((Origin { url, headers: HeaderMap::new(), auth: self.registry.clone(), expires: None }, digest))
    }

    /// A blob of a registry lies where its digest says: there is no other place to ask for.
    pub(super) fn is_blob(&self, file: &PlanFile) -> bool {
        self.registry.is_some() && file.origin.auth == self.registry
    }

    /// The new place of `file`, as a refresh answered: it must be the same file.
    pub(super) fn moved(&self, file: &PlanFile, answer: types::File) -> Result<Origin, LoadError> {
        let fresh = self.check(answer)?;
        let differ = (file.size.is_some() && fresh.size.is_some() && file.size != fresh.size)
            || (file.sha256.is_some() && fresh.sha256.is_some() && file.sha256 != fresh.sha256)
            || (file.gitoid.is_some() && fresh.gitoid.is_some() && file.gitoid != fresh.gitoid);
        if differ {
            return Err(LoadError::unavailable(format!("`{}` changed at the source while it was loaded", file.path)));
        }
        Ok(fresh.origin)
    }

    /// What a condition will say of a question without an answer.
    pub(super) fn failure(&self, error: &PluginError) -> LoadError {
        let reason = match error {
            PluginError::Failure(failure) => match failure {
                Failure::Invalid(_) => reason::INVALID,
                Failure::NotFound(_) => reason::NOT_FOUND,
                Failure::NeedsAuth(_) => reason::NEEDS_AUTH,
                Failure::Gated(_) => reason::GATED,
                Failure::Forbidden(_) => reason::FORBIDDEN,
                Failure::Disabled(_) => reason::DISABLED,
                Failure::RateLimited(Some(seconds)) => return LoadError::rate_limited((*seconds).into()),
                Failure::RateLimited(None) => reason::RATE_LIMITED,
                Failure::Unavailable(_) => reason::UNAVAILABLE,
                Failure::Unsupported(_) => reason::UNSUPPORTED,
                Failure::Internal(_) => reason::PLUGIN_FAILED,
            },
            error if error.is_passing() => reason::UNAVAILABLE,
            _ => reason::PLUGIN_FAILED,
        };
        let mut message = match error {
            PluginError::Failure(failure) => describe(failure),
            error => error.to_string(),
        };
        if let (reason::GATED | reason::NEEDS_AUTH, [first, ..]) = (reason, self.tokens.as_slice()) {
            // A page alone is half of the way: who was let in shows it by a token.
            let when = if reason == reason::GATED { "once access is given, " } else { "" };
            let names = self.tokens.join(" or ");
            // Writing to a string cannot fail.
            let _ = write!(
                message,
                "; {when}set {names}: in a cluster from a Secret, spec.env.{first}: ${{{{ secrets.NAME.KEY }}}}; by hand in the environment"
            );
        }
        LoadError::new(reason, self.egress.redact(&message))
    }
}

/// The plugin said something that no plugin may say.
pub(super) fn refused(what: &str) -> LoadError {
    LoadError::new(reason::PLUGIN_FAILED, format!("the plan of the plugin is refused: {what}"))
}
