//! What will be done for an object: recorded answers where its inputs did not change, else new ones. Asks the GPU policy only;
//! the plugin that knows the source is asked by the worker, beside the hub and far from the operator's token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use substratus_crds::conditions::reason;
use substratus_crds::{Build, FileFilter, ObjectRef, Param, PlanRecord, PluginUsed};

use super::Artifact;
use super::jobs;
use super::observe::Observed;
use super::push::{self, Push};
use super::validate::{Route, Valid, validate};
use crate::kinds::shared::content;
use crate::kinds::shared::env;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::hash;
use crate::kinds::shared::reference::{self, Reasons};
use crate::kinds::shared::route::Image;
use crate::kinds::shared::verdict::Verdict;
use crate::plugin::types::{Placement, Subject};
use crate::plugin::{Grant, Plugins};
use crate::reconcile::ask;

/// How a missing base model is called.
const BASE: Reasons = Reasons { not_found: reason::BASE_MODEL_NOT_FOUND, not_ready: reason::BASE_MODEL_NOT_READY };
/// How missing training data is called.
pub const DATASET: Reasons = Reasons { not_found: reason::DATASET_NOT_FOUND, not_ready: reason::DATASET_NOT_READY };

/// A complete plan: building it takes no further choice.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hash of what decides the bytes.
    pub inputs: String,
    /// Bucket URL that is written to.
    pub target: String,
    /// What a container leaves has to be published, and its publisher's word is what counts.
    pub is_published: bool,
    /// What runs.
    pub run: Run,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
    /// Answer of the GPU policy.
    pub placement: Option<Placement>,
    /// Artifacts of the base model.
    pub base: Option<String>,
    /// Artifacts of the training data.
    pub dataset: Option<String>,
    /// What becomes of the artifact once it is complete: where it is pushed, or why it cannot be.
    pub push: Option<Result<Push, Verdict>>,
    /// Policies of pods that are no more, or that an administrator does without: they go, where nothing makes them anew.
    pub idle_policies: Vec<String>,
}

/// What runs for an object.
#[derive(Clone, Debug)]
pub enum Run {
    /// Nothing: the artifact is whole.
    Done,
    /// Our worker, with this plugin.
    Load {
        /// The plugin.
        plugin: PluginUsed,
        /// What it may do.
        grant: Grant,
        /// Its configuration.
        config: Map<String, Value>,
    },
    /// What runs already, with a plugin that is not there any more: it is left alone until it has ended.
    Kept {
        /// The plugin.
        plugin: PluginUsed,
    },
    /// The user's image.
    Container(Image),
}

/// The recorded answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answers {
    /// The plugin that was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loader: Option<PluginUsed>,
    /// The GPU policy's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl Plan {
    /// What the status keeps of it.
    pub fn record(&self) -> PlanRecord {
        let loader = match &self.run {
            Run::Load { plugin, .. } | Run::Kept { plugin } => Some(plugin.clone()),
            Run::Done | Run::Container(_) => None,
        };
        let answers = Answers { loader, placement: self.placement.clone() };
        PlanRecord {
            inputs: self.inputs.clone(),
            target: Some(self.target.clone()),
            answers: serde_json::to_value(answers).unwrap_or_default(),
            ..PlanRecord::default()
        }
    }
}

/// Everything of a spec that decides what the artifact is. Credentials, resources, the worker's image and the plugin's digest
/// are not part of it: changing them fetches nothing again.
#[derive(Serialize)]
struct Inputs<'a> {
    source: &'a Option<String>,
    plugin: &'a Option<String>,
    files: &'a Option<FileFilter>,
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<&'a Build>,
    command: Option<&'a [String]>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    args: &'a [String],
    params: Option<&'a BTreeMap<String, Param>>,
    model: Option<&'a ObjectRef>,
    dataset: Option<&'a ObjectRef>,
}

/// Hash of what decides the artifact.
pub fn inputs<A: Artifact>(observed: &Observed<A>) -> String {
    let wanted = observed.wanted();
    hash::of(&Inputs {
        source: wanted.source,
        plugin: wanted.plugin,
        files: wanted.files,
        image: wanted.workload.image,
        build: wanted.workload.build,
        command: wanted.workload.command,
        args: wanted.workload.args,
        params: wanted.workload.params,
        model: wanted.model,
        dataset: wanted.dataset,
    })
}

/// Validates and plans.
pub async fn plan<A: Artifact>(observed: &Observed<A>, environment: &Environment, plugins: &Plugins) -> Result<Plan, Verdict> {
    let inputs = inputs(observed);
    let recorded = observed.recorded().filter(|record| record.inputs == inputs);
    // Ready before we came (no record, an artifact URL), or whole by this very plan, also where a bad edit came and went: nothing runs.
    let is_whole = match observed.recorded() {
        None => observed.is_ready(),
        Some(_) => recorded.is_some_and(|record| record.complete || observed.is_ready()),
    };
    if is_whole && let Some(url) = observed.artifacts_url() {
        let (target, env) = (url.to_owned(), BTreeMap::new());
        let (is_published, run) = (false, Run::Done);
        let push = push::plan(observed, environment, &target);
        let idle_policies = jobs::idle_policies(observed, environment);
        let (placement, base, dataset) = (None, None, None);
        return Ok(Plan { inputs, target, is_published, run, env, placement, base, dataset, push, idle_policies });
    }
    let valid = match validate(observed) {
        Ok(valid) => valid,
        Err(verdict) => return kept(observed, inputs, recorded).ok_or(verdict),
    };
    let (wanted, namespace) = (observed.wanted(), &observed.owner.namespace);
    let base = reference::resolve(wanted.model, observed.base.as_deref(), namespace, BASE)?;
    let dataset = reference::resolve(wanted.dataset, observed.dataset.as_deref(), namespace, DATASET)?;
    let answers: Option<Answers> = recorded.and_then(|record| serde_json::from_value(record.answers.clone()).ok());
    let placement = if let Some(answers) = &answers {
        answers.placement.clone()
    } else {
        let subject = Subject { kind: A::kind(&()).into_owned(), namespace: namespace.clone(), name: observed.name().to_owned() };
        ask::place(plugins, &observed.catalog, environment, subject, wanted.workload.resources, &observed.nodes).await?
    };
    let target = recorded.and_then(|record| record.target.clone()).unwrap_or_else(|| target(observed, environment));
    let run = run(&valid, answers.and_then(|answers| answers.loader));
    let is_published = matches!(run, Run::Container(_)) && content::is_published(environment, &target);
    let push = push::plan(observed, environment, &target);
    let idle_policies = jobs::idle_policies(observed, environment);
    Ok(Plan { inputs, target, is_published, run, env: valid.env, placement, base, dataset, push, idle_policies })
}

/// The plan of a load that runs while its plugin does not answer any more. What it needs it has: an end that nobody disturbs.
fn kept<A: Artifact>(observed: &Observed<A>, inputs: String, recorded: Option<&PlanRecord>) -> Option<Plan> {
    let record = recorded?;
    let answers: Answers = serde_json::from_value(record.answers.clone()).ok()?;
    let loader = answers.loader?;
    let gone = observed.catalog.by_name(A::FACTS.role, &loader.name, &observed.owner.namespace).is_none();
    let env = observed.wanted().workload.check().ok()?;
    let run = Run::Kept { plugin: loader };
    let (target, placement) = (record.target.clone()?, answers.placement);
    let (base, dataset, push, idle_policies) = (None, None, None, Vec::new());
    let plan = Plan { inputs, target, is_published: false, run, env, placement, base, dataset, push, idle_policies };
    (gone && jobs::is_under_way(observed, &plan)).then_some(plan)
}

fn run(valid: &Valid, recorded: Option<PluginUsed>) -> Run {
    match &valid.route {
        Route::Load(chosen) => Run::Load {
            // A load keeps the revision it was planned with; grants and configuration are the administrator's of today.
            plugin: recorded.filter(|used| used.name == chosen.plugin.name).unwrap_or_else(|| chosen.plugin.used()),
            grant: chosen.plugin.grant.clone(),
            config: chosen.plugin.config.clone(),
        },
        Route::Container(image) => Run::Container(image.clone()),
    }
}

/// The first artifact lies where the first operator put it; every other run gets a folder of its own, so that nothing is
/// rewritten under an engine that reads it.
fn target<A: Artifact>(observed: &Observed<A>, environment: &Environment) -> String {
    let first = environment.place(&observed.owner.namespace, A::FACTS.kind, observed.name());
    match (observed.recorded(), observed.artifacts_url()) {
        (None, Some(url)) => url.to_owned(),
        (None, None) => first.to_string(),
        (Some(_), _) => first.join(&format!("g{}", observed.generation().unwrap_or_default())).to_string(),
    }
}
