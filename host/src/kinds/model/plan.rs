//! What will be done for a Model: recorded answers where its inputs did not change, else new ones. Asks the GPU policy only;
//! the loader is asked by the worker, beside the hub and far from the operator's token.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use substratus_crds::conditions::reason;
use substratus_crds::{FileFilter, ObjectRef, Param, PlanRecord, PluginUsed};

use super::observe::Observed;
use super::validate::{Route, Valid, validate};
use crate::kinds::shared::env;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::hash;
use crate::kinds::shared::verdict::Verdict;
use crate::plugin::types::{Placement, Subject};
use crate::plugin::{Grant, Plugins};
use crate::reconcile::ask;

/// A complete plan: building it takes no further choice.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hash of what decides the bytes.
    pub inputs: String,
    /// Bucket URL that is written to.
    pub target: String,
    /// What runs.
    pub run: Run,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
    /// Answer of the GPU policy.
    pub placement: Option<Placement>,
    /// Artifacts of the base model.
    pub base: Option<String>,
}

/// What runs for a Model.
#[derive(Clone, Debug)]
pub enum Run {
    /// Nothing: the artifact is whole.
    Done,
    /// Our worker, with this loader.
    Load {
        /// The loader.
        plugin: PluginUsed,
        /// What it may do.
        grant: Grant,
        /// Its configuration.
        config: Map<String, Value>,
    },
    /// The user's image.
    Container {
        /// The image.
        image: String,
        /// For the status.
        note: Option<String>,
    },
}

/// The recorded answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answers {
    /// The loader that was chosen.
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
            Run::Load { plugin, .. } => Some(plugin.clone()),
            Run::Done | Run::Container { .. } => None,
        };
        let answers = Answers { loader, placement: self.placement.clone() };
        PlanRecord {
            inputs: self.inputs.clone(),
            target: Some(self.target.clone()),
            answers: serde_json::to_value(answers).unwrap_or_default(),
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
    image: &'a Option<String>,
    command: &'a Option<Vec<String>>,
    params: &'a Option<BTreeMap<String, Param>>,
    model: &'a Option<ObjectRef>,
    dataset: &'a Option<ObjectRef>,
}

/// Hash of what decides the artifact.
pub fn inputs(observed: &Observed) -> String {
    let spec = &observed.model.spec;
    hash::of(&Inputs {
        source: &spec.source,
        plugin: &spec.plugin,
        files: &spec.files,
        image: &spec.image,
        command: &spec.command,
        params: &spec.params,
        model: &spec.model,
        dataset: &spec.dataset,
    })
}

/// Validates and plans.
pub async fn plan(observed: &Observed, environment: &Environment, plugins: &Plugins) -> Result<Plan, Verdict> {
    let inputs = inputs(observed);
    let recorded = observed.recorded().filter(|record| record.inputs == inputs);
    // Ready before we came (no record, an artifact URL), or ready by this very plan: nothing runs.
    if observed.is_ready()
        && (recorded.is_some() || observed.recorded().is_none())
        && let Some(url) = observed.artifacts_url()
    {
        let run = Run::Done;
        return Ok(Plan { inputs, target: url.to_owned(), run, env: BTreeMap::new(), placement: None, base: None });
    }
    let valid = validate(observed)?;
    let base = base(observed)?;
    let answers: Option<Answers> = recorded.and_then(|record| serde_json::from_value(record.answers.clone()).ok());
    let placement = if let Some(answers) = &answers {
        answers.placement.clone()
    } else {
        let subject =
            Subject { kind: "Model".to_owned(), namespace: observed.owner.namespace.clone(), name: observed.name().to_owned() };
        let resources = observed.model.spec.resources.as_ref();
        ask::place(plugins, &observed.catalog, environment, subject, resources, &observed.nodes).await?
    };
    let target = recorded.and_then(|record| record.target.clone()).unwrap_or_else(|| target(observed, environment));
    let run = run(&valid, answers.and_then(|answers| answers.loader));
    Ok(Plan { inputs, target, run, env: valid.env, placement, base })
}

fn run(valid: &Valid, recorded: Option<PluginUsed>) -> Run {
    match &valid.route {
        Route::Load { plugin, .. } => Run::Load {
            // A load keeps the revision it was planned with; grants and configuration are the administrator's of today.
            plugin: recorded.filter(|used| used.name == plugin.name).unwrap_or_else(|| plugin.used()),
            grant: plugin.grant.clone(),
            config: plugin.config.clone(),
        },
        Route::Container { image, note } => Run::Container { image: image.clone(), note: note.clone() },
    }
}

/// The first artifact lies where the first operator put it; every other run gets a folder of its own, so that nothing is
/// rewritten under an engine that reads it.
fn target(observed: &Observed, environment: &Environment) -> String {
    let place = crate::bucket::artifact_hash(&environment.cluster, &observed.owner.namespace, "model", observed.name());
    let first = environment.bucket.join(&place);
    match (observed.recorded(), observed.artifacts_url()) {
        (None, Some(url)) => url.to_owned(),
        (None, None) => first.to_string(),
        (Some(_), _) => {
            let generation = observed.model.metadata.generation.unwrap_or_default();
            first.join(&format!("g{generation}")).to_string()
        }
    }
}

fn base(observed: &Observed) -> Result<Option<String>, Verdict> {
    let spec = &observed.model.spec;
    if let Some(dataset) = &spec.dataset {
        let message = format!("dataset `{}`: this version has no datasets yet", dataset.name);
        return Err(Verdict::new(reason::DATASET_NOT_FOUND, message));
    }
    let Some(reference) = &spec.model else { return Ok(None) };
    let Some(base) = &observed.base else {
        let message = format!("no Model `{}` in namespace `{}`", reference.name, observed.owner.namespace);
        return Err(Verdict::new(reason::BASE_MODEL_NOT_FOUND, message));
    };
    let status = base.status.as_ref().filter(|status| status.ready);
    let url = status.and_then(|status| status.artifacts.as_ref()).and_then(|artifacts| artifacts.url.clone());
    match url {
        Some(url) => Ok(Some(url)),
        None => Err(Verdict::new(reason::BASE_MODEL_NOT_READY, format!("Model `{}` is not ready", reference.name))),
    }
}
