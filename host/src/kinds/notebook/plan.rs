//! What will run for a Notebook: recorded answers where its inputs did not change, else new ones. New artifacts of its Model or
//! Dataset are no such change: nobody's session ends because of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use substratus_crds::{NotebookSpec, PlanRecord};

use super::observe::Observed;
use super::validate::{Route, validate};
use crate::kinds::artifact::plan::DATASET;
use crate::kinds::server::plan::MODEL;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{env, hash, reference};
use crate::plugin::Plugins;
use crate::plugin::types::{Placement, Subject};
use crate::reconcile::ask;

/// A complete plan: building it takes no further choice.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Hash of what was planned for.
    pub inputs: String,
    /// Nothing runs.
    pub is_suspended: bool,
    /// The answers.
    pub answers: Answers,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
    /// Bucket URL of the workspace and the artifacts.
    pub place: String,
    /// Artifacts of the Model.
    pub model: Option<String>,
    /// Artifacts of the Dataset.
    pub dataset: Option<String>,
}

/// The recorded answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answers {
    /// The image.
    pub image: String,
    /// The image is the operator's choice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_default: bool,
    /// It ran before we came: the Pod stays as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// The GPU policy's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl Plan {
    /// What the status keeps of it.
    pub fn record(&self) -> PlanRecord {
        let answers = serde_json::to_value(&self.answers).unwrap_or_default();
        PlanRecord { inputs: self.inputs.clone(), answers, ..PlanRecord::default() }
    }
}

/// Validates and plans.
pub async fn plan(observed: &Observed, environment: &Environment, plugins: &Plugins) -> Result<Plan, Verdict> {
    let (spec, namespace) = (&observed.notebook.spec, &observed.owner.namespace);
    let (inputs, place) = (inputs(spec), place(observed, environment));
    if spec.suspend == Some(true) {
        return Ok(Plan { inputs, is_suspended: true, place, ..Plan::default() });
    }
    let valid = validate(observed, environment)?;
    // A Pod that runs is not stopped because what it was given is not ready any more.
    let runs = observed.pod.is_some() && (is_recorded(observed, &inputs) || observed.is_taken_over());
    let model = reference::resolve(spec.model.as_ref(), observed.model.as_deref(), namespace, MODEL);
    let dataset = reference::resolve(spec.dataset.as_ref(), observed.dataset.as_deref(), namespace, DATASET);
    let (model, dataset) = if runs { (model.unwrap_or(None), dataset.unwrap_or(None)) } else { (model?, dataset?) };
    let answers = match recorded(observed, &inputs) {
        Some(answers) => answers,
        None => answer(observed, environment, plugins, &valid.route).await?,
    };
    Ok(Plan { inputs, is_suspended: false, answers, env: valid.env, place, model, dataset })
}

/// Suspending, resuming and waiting plan nothing anew.
fn inputs(spec: &NotebookSpec) -> String {
    hash::of(&NotebookSpec { suspend: None, idle_timeout: None, ..spec.clone() })
}

fn is_recorded(observed: &Observed, inputs: &str) -> bool {
    observed.recorded().is_some_and(|record| record.inputs == inputs)
}

fn recorded(observed: &Observed, inputs: &str) -> Option<Answers> {
    let record = observed.recorded().filter(|record| record.inputs == inputs)?;
    let answers: Answers = serde_json::from_value(record.answers.clone()).ok()?;
    // What was taken over and is gone is planned like any other.
    (!answers.adopted || observed.pod.is_some()).then_some(answers)
}

async fn answer(observed: &Observed, environment: &Environment, plugins: &Plugins, route: &Route) -> Result<Answers, Verdict> {
    let subject =
        Subject { kind: "Notebook".to_owned(), namespace: observed.owner.namespace.clone(), name: observed.name().to_owned() };
    let resources = observed.notebook.spec.resources.as_ref();
    let adopted = observed.is_taken_over();
    let placement = if adopted {
        None
    } else {
        ask::place(plugins, &observed.catalog, environment, subject, resources, &observed.nodes).await?
    };
    let is_default = matches!(route, Route::Default(_));
    Ok(Answers { image: route.image().to_owned(), is_default, adopted, placement })
}

/// The place that was chosen stays; else the one that the first operator would have chosen.
fn place(observed: &Observed, environment: &Environment) -> String {
    observed
        .place()
        .map_or_else(|| environment.place(&observed.owner.namespace, "notebook", observed.name()).to_string(), str::to_owned)
}
