//! What will serve a Server: recorded answers where its inputs did not change, else new ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use substratus_crds::conditions::reason;
use substratus_crds::{Candidate, PlanRecord, PluginUsed, ServerSpec};

use super::observe::Observed;
use super::validate::{Route, Valid, validate};
use crate::catalog::Active;
use crate::kinds::shared::env;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::reference::{self, Reasons};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{hash, mounts, params, resources};
use crate::plugin::Plugins;
use crate::plugin::types::{Container, Placement, ServeRequest, ServingGpu, ServingModel, Subject};
use crate::reconcile::{ask, guard};

/// A complete plan: building it takes no further choice.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hash of what was planned for.
    pub inputs: String,
    /// The answers.
    pub answers: Answers,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
}

/// The recorded answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answers {
    /// Bucket URL of the artifacts that are served.
    pub artifacts: String,
    /// It served before we came: the Deployment stays as it is.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// The image of a Server that no adapter plans.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// For the status, where a plugin might have been expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Engine name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The adapter that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PluginUsed>,
    /// Its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The GPU policy's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What every adapter said, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
}

impl Plan {
    /// What the status keeps of it.
    pub fn record(&self) -> PlanRecord {
        let answers = serde_json::to_value(&self.answers).unwrap_or_default();
        PlanRecord { inputs: self.inputs.clone(), answers, ..PlanRecord::default() }
    }
}

/// How a missing Model is called.
pub const MODEL: Reasons = Reasons { not_found: reason::MODEL_NOT_FOUND, not_ready: reason::MODEL_NOT_READY };

/// Validates and plans.
pub async fn plan(observed: &Observed, environment: &Environment, plugins: &Plugins) -> Result<Plan, Verdict> {
    let recorded = observed.recorded().and_then(|record| {
        let answers: Answers = serde_json::from_value(record.answers.clone()).ok()?;
        // What was taken over and is gone is planned like any other.
        let gone = answers.adopted && observed.deployment.is_none() && !observed.says_ready();
        (!gone).then_some((record.inputs.as_str(), answers))
    });
    let env = env::parse(observed.server.spec.env.as_ref())?;
    if observed.is_taken_over() {
        let url = observed.artifacts_url().unwrap_or_default();
        let answers = Answers { artifacts: url.to_owned(), adopted: true, ..Answers::default() };
        return Ok(Plan { inputs: inputs(&observed.server.spec, url), answers, env });
    }
    match (artifacts(observed), recorded) {
        (Ok(url), Some((known, answers))) if known == inputs(&observed.server.spec, &url) => {
            Ok(Plan { inputs: known.to_owned(), answers, env })
        }
        // The Model is not ready any more: what was planned keeps running.
        (Err(_), Some((known, answers))) if known == inputs(&observed.server.spec, &answers.artifacts) => {
            Ok(Plan { inputs: known.to_owned(), answers, env })
        }
        (url, _) => {
            let valid = validate(observed)?;
            let url = url?;
            let answers = answer(observed, environment, plugins, &valid, &url).await?;
            Ok(Plan { inputs: inputs(&observed.server.spec, &url), answers, env: valid.env })
        }
    }
}

/// Scaling plans nothing anew.
fn inputs(spec: &ServerSpec, artifacts: &str) -> String {
    hash::of(&(ServerSpec { replicas: None, ..spec.clone() }, artifacts))
}

/// Where the Model's artifacts lie, or what is missing.
fn artifacts(observed: &Observed) -> Result<String, Verdict> {
    let reference = observed.server.spec.model.as_ref();
    reference::resolve(reference, observed.model.as_deref(), &observed.owner.namespace, MODEL)?
        .ok_or_else(|| Verdict::new(reason::MODEL_NOT_FOUND, "spec.model.name is empty; name the Model to serve"))
}

async fn answer(
    observed: &Observed,
    environment: &Environment,
    plugins: &Plugins,
    valid: &Valid,
    url: &str,
) -> Result<Answers, Verdict> {
    let spec = &observed.server.spec;
    let subject =
        Subject { kind: "Server".to_owned(), namespace: observed.owner.namespace.clone(), name: observed.name().to_owned() };
    let resources = spec.resources.as_ref();
    let placement = ask::place(plugins, &observed.catalog, environment, subject.clone(), resources, &observed.nodes).await?;
    let mut answers = Answers { artifacts: url.to_owned(), placement, ..Answers::default() };
    let mut request = request(observed, valid, subject, &answers);
    match &valid.route {
        Route::Container(image) => {
            answers.image = Some(image.name.clone());
            answers.note = image.note.as_ref().map(|note| format!("{note}: it runs as a container"));
            return Ok(answers);
        }
        Route::Adapter { chosen, image } => {
            request.image.clone_from(image);
            serve(plugins, &chosen.plugin, request, &mut answers).await?;
        }
        Route::Best => {
            let best = best(plugins, observed, &mut request, &mut answers).await?;
            serve(plugins, &best, request, &mut answers).await?;
        }
    }
    Ok(answers)
}

async fn serve(plugins: &Plugins, plugin: &Active, mut request: ServeRequest, answers: &mut Answers) -> Result<(), Verdict> {
    request.config = plugin.config_json();
    let container = plugins.serve(&plugin.digest, &request).await.map_err(|error| Verdict::from_plugin(&plugin.name, &error))?;
    guard::container(&container, &plugin.grant)
        .map_err(|why| Verdict::new(reason::PLUGIN_DENIED, format!("plugin `{}`: {why}", plugin.name)))?;
    answers.engine = plugin.manifest.claims.engines.first().cloned();
    answers.adapter = Some(plugin.used());
    answers.container = Some(container);
    Ok(())
}

/// Asks every adapter how well it fits; the best one serves, ties go to the older plugin.
async fn best(
    plugins: &Plugins,
    observed: &Observed,
    request: &mut ServeRequest,
    answers: &mut Answers,
) -> Result<Arc<Active>, Verdict> {
    let mut scored: Vec<(u8, Arc<Active>)> = Vec::new();
    for plugin in observed.catalog.adapters(&observed.owner.namespace) {
        request.config = plugin.config_json();
        let engine = plugin.manifest.claims.engines.first().unwrap_or(&plugin.name).clone();
        let (score, reason) = match plugins.fit(&plugin.digest, request).await {
            Ok(fitness) => (fitness.score.min(100), fitness.reason),
            // One broken adapter must not keep the others from serving.
            Err(error) => (0, error.to_string()),
        };
        answers.candidates.push(Candidate { engine, score: i32::from(score), reason });
        scored.push((score, Arc::clone(plugin)));
    }
    answers.candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.score));
    let mut winner: Option<(u8, Arc<Active>)> = None;
    for (score, plugin) in scored {
        if score > winner.as_ref().map_or(0, |(best, _)| *best) {
            winner = Some((score, plugin));
        }
    }
    winner.map(|(_, plugin)| plugin).ok_or_else(|| {
        let said: Vec<String> =
            answers.candidates.iter().map(|candidate| format!("{}: {}", candidate.engine, candidate.reason)).collect();
        let said = if said.is_empty() { "no server adapter is active".to_owned() } else { said.join("; ") };
        Verdict::new(reason::UNSUPPORTED, format!("no engine can serve this model here: {said}"))
    })
}

fn request(observed: &Observed, valid: &Valid, subject: Subject, answers: &Answers) -> ServeRequest {
    let spec = &observed.server.spec;
    let count = resources::gpu_count(spec.resources.as_ref());
    let placement = answers.placement.as_ref();
    let gpu = (count > 0).then(|| ServingGpu {
        count,
        gpu_type: spec.resources.as_ref().and_then(|r| r.gpu.as_ref()).and_then(|gpu| gpu.gpu_type.clone()),
        vendor: placement.and_then(|p| p.vendor.clone()),
        memory: placement.and_then(|p| p.gpu_memory),
        compute_capability: placement.and_then(|p| p.compute_capability.clone()),
    });
    let env = valid.env.iter().map(|(name, value)| {
        let literal = match value {
            env::Value::Literal(text) => Some(text.clone()),
            env::Value::Secret(_) => None,
        };
        (name.clone(), literal)
    });
    ServeRequest {
        subject,
        model: model(observed, &answers.artifacts),
        gpu,
        cpu: spec.resources.as_ref().and_then(|r| u32::try_from(r.cpu).ok()),
        memory: spec.resources.as_ref().and_then(|r| u64::try_from(r.memory).ok()).map(|gib| gib << 30),
        params: params::to_wit(spec.params.as_ref()),
        env: env.collect(),
        image: None,
        config: "{}".to_owned(),
        extensions: Vec::new(),
    }
}

fn model(observed: &Observed, url: &str) -> ServingModel {
    let model = observed.model.as_deref();
    let source = model.and_then(|model| model.status.as_ref()).and_then(|status| status.source.clone()).unwrap_or_default();
    ServingModel {
        name: model.and_then(|model| model.metadata.name.clone()).unwrap_or_default(),
        format: source.format,
        architecture: source.architecture,
        parameters: source.parameters.and_then(|n| u64::try_from(n).ok()),
        dtype: source.dtype,
        quantization: source.quantization,
        context_length: source.context_length.and_then(|n| u32::try_from(n).ok()),
        entrypoint: source.entrypoint,
        bytes: u64::try_from(source.bytes).ok().filter(|bytes| *bytes > 0),
        mount_path: Some(format!("{}/model", mounts::CONTENT)),
        bucket_url: Some(format!("{url}/artifacts")),
    }
}
