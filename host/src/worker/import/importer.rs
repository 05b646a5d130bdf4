//! Asks the importer: for its shards, page by page; where an input is now; to map one shard. Moves no byte.

use std::collections::HashSet;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use substratus_crds::conditions::reason;

use super::plan::{ImportPlan, MAX_SHARDS};
use crate::plugin::Plugins;
use crate::plugin::io::Streams;
use crate::plugin::types::{DatasetFacts, FileFilter, ImportRequest, Shard, ShardReport, Subject};
use crate::worker::asking::{Asker, refused};
use crate::worker::calls::LoaderCalls;
use crate::worker::egress::Egress;
use crate::worker::failure::LoadError;
use crate::worker::pickle;
use crate::worker::plan::{Origin, PlanFile};
use crate::worker::request::LoadRequest;
use crate::worker::transfer::{Refresh, Tuning};

/// Most bytes of a plan: it is held in memory.
const MAX_PLAN_BYTES: usize = 512 * 1024 * 1024;
/// Most pages of one plan: one that never ends is noticed, whatever is on its pages.
const MAX_PAGES: usize = 10_000;
/// Most warnings that are kept.
const MAX_WARNINGS: usize = 20;

/// An importer that answers for one import. Clones ask the same one.
#[derive(Clone)]
pub struct Importer {
    plugins: Plugins,
    digest: String,
    calls: Arc<LoaderCalls>,
    asker: Asker,
    question: ImportRequest,
    files: substratus_crds::FileFilter,
}

impl Importer {
    /// The importer that `request` names.
    pub fn new(plugins: Plugins, request: &LoadRequest, egress: Egress, tuning: Tuning) -> Self {
        let question = ImportRequest {
            subject: Subject { kind: "Dataset".to_owned(), namespace: request.namespace.clone(), name: request.name.clone() },
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

    /// This importer, bound to a revision.
    #[must_use]
    pub fn at(mut self, revision: &str) -> Self {
        self.question.revision = Some(revision.to_owned());
        self
    }

    /// The whole plan, checked.
    pub async fn plan(&self, inputs: &str) -> Result<ImportPlan, LoadError> {
        let (mut asking, mut cursor, mut facts, mut bytes) = (self.clone(), None::<String>, None::<DatasetFacts>, 0);
        let mut plan = ImportPlan { inputs: inputs.to_owned(), ..ImportPlan::default() };
        for _ in 0..MAX_PAGES {
            let ask = || asking.plugins.plan_import(&asking.digest, &asking.question, cursor.as_deref(), asking.calls.clone());
            let page = self.asker.patiently(ask).await?;
            for shard in &page.shards {
                bytes += shard.name.len() + shard.context.len() + 256;
                for input in &shard.inputs {
                    bytes += input.path.len() + 512;
                    self.asker.check(input.clone())?;
                }
            }
            plan.shards.extend(page.shards);
            if plan.shards.len() > MAX_SHARDS || bytes > MAX_PLAN_BYTES {
                let message = format!("the source has more than {MAX_SHARDS} shards, or too long names; choose fewer files");
                return Err(LoadError::new(reason::TOO_LARGE, message));
            }
            facts = page.facts.or(facts);
            plan.warnings.extend(page.warnings);
            plan.warnings.truncate(MAX_WARNINGS);
            asking.question.revision = Some(page.revision.clone());
            plan.revision = page.revision;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if cursor.is_some() {
            return Err(refused(&format!("it has more than {MAX_PAGES} pages")));
        }
        check(&plan)?;
        let inputs = plan.shards.iter().flat_map(|shard| &shard.inputs);
        pickle::refuse(&self.files, inputs.map(|input| input.path.as_str()))?;
        if let Some(facts) = facts {
            (plan.license, plan.partial) = (facts.license, facts.partial);
        }
        Ok(plan)
    }

    /// The inputs of a shard, as the transfer wants them.
    pub fn inputs(&self, shard: &Shard) -> Result<Vec<PlanFile>, LoadError> {
        shard.inputs.iter().map(|input| self.asker.check(input.clone())).collect()
    }

    /// Has a shard mapped.
    pub async fn transform(&self, shard: &Shard, streams: Streams) -> Result<ShardReport, LoadError> {
        let answer = self.plugins.transform(&self.digest, &self.question, shard, streams, self.calls.clone()).await;
        answer.map_err(|error| self.asker.failure(&error))
    }
}

impl Refresh for Importer {
    fn refresh<'a>(&'a self, file: &'a PlanFile) -> BoxFuture<'a, Result<Origin, LoadError>> {
        async move {
            let ask = || self.plugins.refresh_import(&self.digest, &self.question, &file.path, self.calls.clone());
            let answer = self.asker.patiently(ask).await?;
            self.asker.moved(file, answer)
        }
        .boxed()
    }
}

/// What only the whole plan shows.
fn check(plan: &ImportPlan) -> Result<(), LoadError> {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for shard in &plan.shards {
        if !names.insert(shard.name.as_str()) {
            return Err(refused(&format!("shard `{}` comes twice", shard.name)));
        }
        if let Some(twice) = shard.inputs.iter().find(|input| !paths.insert(input.path.as_str())) {
            return Err(refused(&format!("input `{}` comes twice", twice.path)));
        }
    }
    if plan.shards.is_empty() {
        return Err(LoadError::new(reason::NOT_FOUND, "the source has no data that was asked for; check source and params"));
    }
    Ok(())
}
