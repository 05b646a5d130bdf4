//! Asks the loader page by page what to fetch, and checks all of it before the first byte: paths, digests, headers, and every
//! URL against the grant. Fetches nothing itself.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use url::Url;

use super::calls::LoaderCalls;
use super::egress::{Egress, guest_headers};
use super::failure::LoadError;
use super::journal::unhex;
use super::plan::{MAX_FILES, Origin, Plan, PlanFile, check_paths};
use super::request::LoadRequest;
use super::transfer::{Refresh, Tuning};
use crate::plugin::types::{self, Failure, FileFilter, ModelFacts, PlanPage, ResolveRequest, Subject};
use crate::plugin::{PluginError, Plugins, describe};

/// Most bytes of paths, URLs and headers of one plan: it is held in memory.
const MAX_PLAN_BYTES: usize = 512 * 1024 * 1024;
/// Most pages of one plan: one that never ends is noticed, whatever is on its pages.
const MAX_PAGES: usize = 10_000;
/// Most warnings that are kept.
const MAX_WARNINGS: usize = 20;

/// A loader that answers for one load. Clones ask the same one.
#[derive(Clone)]
pub struct Loader {
    plugins: Plugins,
    digest: String,
    calls: Arc<LoaderCalls>,
    egress: Egress,
    question: ResolveRequest,
    tuning: Tuning,
    /// Variables that may carry a token.
    tokens: Vec<String>,
}

impl Loader {
    /// The loader that `request` names.
    pub fn new(plugins: Plugins, request: &LoadRequest, egress: Egress, tuning: Tuning) -> Self {
        let question = ResolveRequest {
            subject: Subject { kind: "Model".to_owned(), namespace: request.namespace.clone(), name: request.name.clone() },
            source: request.source.clone(),
            params: request.params.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            files: FileFilter {
                include: request.files.include.clone(),
                exclude: request.files.exclude.clone(),
                format: request.files.format.clone(),
            },
            config: serde_json::Value::Object(request.config.clone()).to_string(),
            revision: None,
            extensions: Vec::new(),
        };
        let calls = Arc::new(LoaderCalls::new(egress.clone(), request.plugin.name.clone()));
        let tokens = request.grant.secrets.iter().flat_map(|secret| secret.env.clone()).collect();
        Self { plugins, digest: request.plugin.digest.clone(), calls, egress, question, tuning, tokens }
    }

    /// The whole plan, and this loader bound to the plan's revision.
    pub async fn resolve(mut self) -> Result<(Plan, Self), LoadError> {
        let (mut plan, mut facts, mut cursor, mut bytes) = (Plan::default(), None, None, 0);
        for _ in 0..MAX_PAGES {
            let page = self.page(cursor.as_deref()).await?;
            self.question.revision = Some(page.revision.clone());
            for file in page.files {
                bytes += file.path.len() + 256;
                let file = self.check(file)?;
                bytes += file.origin.url.as_str().len();
                plan.files.push(file);
            }
            if plan.files.len() > MAX_FILES || bytes > MAX_PLAN_BYTES {
                let message =
                    format!("the source has more than {MAX_FILES} files, or too long names; choose fewer with spec.files");
                return Err(LoadError::new(reason::TOO_LARGE, message));
            }
            facts = page.facts.or(facts);
            plan.source.warnings.extend(page.warnings);
            plan.source.warnings.truncate(MAX_WARNINGS);
            plan.revision = page.revision;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if cursor.is_some() {
            return Err(refused(&format!("it has more than {MAX_PAGES} pages")));
        }
        check_paths(plan.files.iter().map(|file| file.path.as_str())).map_err(|error| refused(&error.to_string()))?;
        if plan.files.is_empty() {
            return Err(LoadError::new(reason::NOT_FOUND, "the source has no file that was asked for; check spec.files"));
        }
        plan.source = source_status(&plan, facts);
        Ok((plan, self))
    }

    /// One page; waits where the source asks to, repeats what may pass.
    async fn page(&self, cursor: Option<&str>) -> Result<PlanPage, LoadError> {
        self.patiently(|| self.plugins.resolve(&self.digest, &self.question, cursor, self.calls.clone())).await
    }

    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> Result<T, LoadError>
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
                let failure = self.failure(&error);
                let asked = (failure.reason == reason::RATE_LIMITED).then_some(pause.as_secs());
                return Err(LoadError { retry_after: asked, ..failure });
            }
            tracing::info!(seconds = pause.as_secs_f32(), error = %self.egress.redact(&error.to_string()), "the loader is asked again");
            tokio::time::sleep(pause).await;
        }
    }

    fn check(&self, file: types::File) -> Result<PlanFile, LoadError> {
        let path = file.path;
        let sha256 = match file.digest {
            None => None,
            Some(digest) if digest.algorithm == "sha256" => {
                Some(unhex(&digest.hex).ok_or_else(|| refused(&format!("the digest of `{path}` is no sha256")))?)
            }
            Some(digest) => return Err(refused(&format!("the digest of `{path}` is a {}; sha256 is needed", digest.algorithm))),
        };
        let types::Origin::Http(origin) = file.origin else {
            let message = format!("`{path}` lies where this version cannot fetch from; HTTP origins work");
            return Err(LoadError::new(reason::UNSUPPORTED, message));
        };
        let url = Url::parse(&origin.url).map_err(|error| refused(&format!("the URL of `{path}` is none: {error}")))?;
        self.egress.check(&url)?;
        let headers = guest_headers(&origin.headers)?;
        let origin = Origin { url, headers, auth: origin.auth, expires: origin.expires };
        Ok(PlanFile { path, size: file.size, sha256, origin })
    }

    fn failure(&self, error: &PluginError) -> LoadError {
        let reason = match error {
            PluginError::Failure(failure) => match failure {
                Failure::Invalid(_) => reason::INVALID,
                Failure::NotFound(_) => reason::NOT_FOUND,
                Failure::NeedsAuth(_) => reason::NEEDS_AUTH,
                Failure::Gated(_) => reason::GATED,
                Failure::RateLimited(_) => reason::RATE_LIMITED,
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
        if let (reason::GATED, [first, ..]) = (reason, self.tokens.as_slice()) {
            // The page alone is half of the way: who was let in shows it by a token.
            let names = self.tokens.join(" or ");
            // Writing to a string cannot fail.
            let _ = write!(
                message,
                "; once access is given, set {names} in spec.env from a Secret: {first}: ${{{{ secrets.NAME.KEY }}}}"
            );
        }
        LoadError::new(reason, self.egress.redact(&message))
    }
}

impl Refresh for Loader {
    fn refresh<'a>(&'a self, file: &'a PlanFile) -> BoxFuture<'a, Result<Origin, LoadError>> {
        async move {
            let answer =
                self.patiently(|| self.plugins.refresh(&self.digest, &self.question, &file.path, self.calls.clone())).await?;
            let fresh = self.check(answer)?;
            let differ = (file.size.is_some() && fresh.size.is_some() && file.size != fresh.size)
                || (file.sha256.is_some() && fresh.sha256.is_some() && file.sha256 != fresh.sha256);
            if differ {
                return Err(LoadError::unavailable(format!("`{}` changed at the source while it was loaded", file.path)));
            }
            Ok(fresh.origin)
        }
        .boxed()
    }
}

fn refused(what: &str) -> LoadError {
    LoadError::new(reason::PLUGIN_FAILED, format!("the plan of the loader is refused: {what}"))
}

fn source_status(plan: &Plan, facts: Option<ModelFacts>) -> SourceStatus {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let bytes = plan.files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add);
    let mut source = SourceStatus {
        revision: Some(plan.revision.clone()),
        bytes: signed(bytes),
        files: signed(plan.files.len() as u64),
        warnings: plan.source.warnings.clone(),
        ..SourceStatus::default()
    };
    if let Some(facts) = facts {
        source.format = facts.format;
        source.license = facts.license;
        source.architecture = facts.architecture;
        source.parameters = facts.parameters.map(signed);
        source.dtype = facts.dtype;
        source.quantization = facts.quantization;
        source.context_length = facts.context_length.map(i64::from);
        source.entrypoint = facts.entrypoint.filter(|entrypoint| plan.files.iter().any(|file| file.path == *entrypoint));
    }
    source
}
