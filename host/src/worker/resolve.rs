//! Asks the loader page by page what to fetch, and checks all of it before the first byte: paths, digests, headers, and every
//! URL against the grant. Fetches nothing itself.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;

use super::access::{self, Access};
use super::asking::{Asker, refused};
use super::calls::LoaderCalls;
use super::egress::Egress;
use super::failure::LoadError;
use super::pickle;
use super::plan::{MAX_FILES, Origin, Plan, PlanFile, check_paths};
use super::request::LoadRequest;
use super::transfer::{Refresh, Tuning};
use crate::plugin::Plugins;
use crate::plugin::types::{FileFilter, ModelFacts, PlanPage, ResolveRequest, Subject};

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
    asker: Asker,
    question: ResolveRequest,
    files: substratus_crds::FileFilter,
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
        let asker = Asker::new(&request.grant, egress, tuning);
        Self { plugins, digest: request.plugin.digest.clone(), calls, asker, question, files: request.files.clone() }
    }

    /// Asks who may read the files too, and for a plan whoever that is: nothing is going to be fetched.
    #[must_use]
    pub fn only_looking(mut self) -> Self {
        self.question.extensions.push(access::question());
        self
    }

    /// The whole plan, and this loader bound to the plan's revision.
    pub async fn resolve(mut self) -> Result<(Plan, Self), LoadError> {
        let (mut plan, mut facts, mut cursor, mut bytes) = (Plan::default(), None, None, 0);
        for _ in 0..MAX_PAGES {
            let page = self.page(cursor.as_deref()).await?;
            self.question.revision = Some(page.revision.clone());
            for file in page.files {
                bytes += file.path.len() + 256;
                let file = self.asker.check(file)?;
                bytes += file.origin.url.as_str().len();
                plan.files.push(file);
            }
            if plan.files.len() > MAX_FILES || bytes > MAX_PLAN_BYTES {
                let message =
                    format!("the source has more than {MAX_FILES} files, or too long names; choose fewer with spec.files");
                return Err(LoadError::new(reason::TOO_LARGE, message));
            }
            facts = page.facts.or(facts);
            plan.access = Access::read(&page.extensions, &self.asker).or(plan.access);
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
        pickle::refuse(&self.files, plan.files.iter().map(|file| file.path.as_str()))?;
        if plan.files.is_empty() {
            return Err(LoadError::new(reason::NOT_FOUND, "the source has no file that was asked for; check spec.files"));
        }
        plan.source = source_status(&plan, facts);
        Ok((plan, self))
    }

    /// One page; waits where the source asks to, repeats what may pass.
    async fn page(&self, cursor: Option<&str>) -> Result<PlanPage, LoadError> {
        self.asker.patiently(|| self.plugins.resolve(&self.digest, &self.question, cursor, self.calls.clone())).await
    }
}

impl Refresh for Loader {
    fn refresh<'a>(&'a self, file: &'a PlanFile) -> BoxFuture<'a, Result<Origin, LoadError>> {
        async move {
            if self.asker.is_blob(file) {
                return Ok(file.origin.clone());
            }
            let answer = self
                .asker
                .patiently(|| self.plugins.refresh(&self.digest, &self.question, &file.path, self.calls.clone()))
                .await?;
            self.asker.moved(file, answer)
        }
        .boxed()
    }
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
