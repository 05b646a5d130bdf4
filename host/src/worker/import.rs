//! Imports a data set: asks an importer for shards, does them, puts the parts together. Runs in a Job's pod, or by hand as
//! `substratus import`.
//!
//! ```text
//! cli ─► run ─► importer ── plan ──► plugin            `.substratus/import.json`: the plan, for whoever does shards
//!         │
//!         ├───► shard ─► transfer (the load's own) ──► inputs on disk, resumable
//!         │       └────► decode ─► part                           nothing to map: native code alone
//!         │              decode ─► guest's transform ─► part      bounded streams both ways
//!         │                                        └── `.substratus/shards/NNNNNN/`: parts, and `shard.json` last
//!         └───► commit: parts in the plan's order ──► `artifacts/`; the manifest is the last write
//! ```
//!
//! What is written depends on the plan alone, not on who does which shard, nor when. So several processes may work on one target:
//! one leads (plans, waits, puts together), the others take a share each. They meet in the records beside the artifact; a shard's
//! lock keeps two from doing the same one.

mod by_hand;
pub mod cli;
pub mod commit;
pub mod decode;
pub mod importer;
pub mod part;
pub mod plan;
pub mod schema;
pub mod shard;
pub mod share;
pub mod streams;

use std::ffi::OsString;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use self::cli::ImportArgs;
use self::commit::{commit, withdraw};
use self::importer::Importer;
use self::plan::ImportPlan;
use self::shard::{Work, interrupted};
use self::share::Part;
use super::counters::Counters;
use super::egress::Egress;
use super::failure::LoadError;
use super::load::{Effort, Surroundings, stopped_for_good};
use super::manifest::Manifest;
use super::progress::Reporter;
use super::publish;
use super::report::Outcome;
use super::request::LoadRequest;
use super::transfer::Tuning;
use crate::bucket::url::{ARTIFACTS, BucketUrlError};
use crate::bucket::{BucketUrl, Sink};
use crate::plugin::Plugins;
use crate::plugin::types::Shard;

/// Shards in work at the same time: one is decoded or mapped while others are fetched.
const AHEAD: usize = 4;

/// Runs an import, or this process's part of it, and says how it ended.
pub async fn import(request: &LoadRequest, around: Surroundings, part: Part) -> Outcome {
    let stop = around.stop.clone();
    let doing = async {
        let target: BucketUrl = request.target.parse().map_err(|error| invalid(&error))?;
        match part {
            Part::Whole if target.scheme().is_object() => into_bucket(request, around, &target).await,
            Part::Share(share) => share::take(request, around, target, share).await,
            Part::Whole => run(request, around, target, false).await,
            Part::Lead => run(request, around, target, true).await,
        }
    };
    let result = tokio::select! {
        biased;
        result = doing => result,
        () = stopped_for_good(&stop) => Err(interrupted()),
    };
    match result {
        Ok(source) => Outcome::Complete { inputs: request.inputs.clone(), source, reused: 0 },
        Err(error) => Outcome::failed(request.inputs.clone(), error),
    }
}

/// What an import would fetch: the importer's plan, checked, and no byte of a file. Credentials come from `env`.
pub async fn look(
    plugins: &Plugins,
    request: &LoadRequest,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    effort: &Effort,
) -> Result<ImportPlan, LoadError> {
    Importer::new(plugins.clone(), request, effort.egress(request, env)?, effort.tuning).plan(&request.inputs).await
}

/// Parts are put together in a folder, so what goes to an object store is published from one.
async fn into_bucket(request: &LoadRequest, around: Surroundings, target: &BucketUrl) -> Result<SourceStatus, LoadError> {
    let env = around.env.clone();
    let bucket = Sink::connect(target, &env).await?;
    if let Some(manifest) = Manifest::read(bucket.records()).await?
        && manifest.inputs == request.inputs
        && manifest.holds(&bucket).await?
    {
        tracing::info!(revision = manifest.revision, "the artifact is complete already");
        return Ok(manifest.source);
    }
    drop(bucket);
    let folder = std::env::temp_dir().join(format!("substratus-import-{}", request.inputs));
    let source = run(request, around, BucketUrl::of_folder(&folder).map_err(|error| invalid(&error))?, false).await?;
    let published =
        publish::folder(&folder.join(ARTIFACTS), target, (&request.inputs, Some(source)), &env, &mut publish::Before::default())
            .await?;
    // What is whole in the bucket is not wanted a second time.
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(%error, folder = %folder.display(), "the import's folder stays");
    }
    Ok(published)
}

fn invalid(error: &BucketUrlError) -> LoadError {
    LoadError::new(reason::INVALID, error.to_string())
}

async fn run(
    request: &LoadRequest,
    around: Surroundings,
    target: BucketUrl,
    others_do_the_shards: bool,
) -> Result<SourceStatus, LoadError> {
    let sink = Sink::open(&target).await?;
    if let Some(manifest) = Manifest::read(sink.records()).await? {
        if manifest.inputs == request.inputs && manifest.holds(&sink).await? {
            tracing::info!(revision = manifest.revision, "the artifact is complete already");
            return Ok(manifest.source);
        }
        withdraw(&sink, &manifest).await?;
    }
    let crew = Crew::new(request, around)?;
    let plan = plan(&crew.importer, &sink, &request.inputs).await?;
    let work = crew.work(target, &plan, plan.shards.len());
    work.expect(&plan.shards);
    if others_do_the_shards {
        share::lead(&work, &plan).await?;
    } else {
        all(&work, plan.shards.iter().enumerate()).await?;
    }
    commit(&work, &sink, &plan).await
}

/// Does shards, a few at a time.
async fn all<'a>(work: &Work, shards: impl Iterator<Item = (usize, &'a Shard)>) -> Result<(), LoadError> {
    let shards = stream::iter(shards).map(|(index, shard)| work.run(index, shard));
    shards.buffer_unordered(AHEAD).try_collect().await
}

/// Who works on an import: the importer, the way out, and whoever tells the user.
struct Crew {
    importer: Importer,
    egress: Egress,
    tuning: Tuning,
    counters: Arc<Counters>,
    stop: CancellationToken,
    identity: String,
    _reporter: Reporter,
}

impl Crew {
    fn new(request: &LoadRequest, around: Surroundings) -> Result<Self, LoadError> {
        let egress = around.effort.egress(request, around.env)?;
        let tuning = around.effort.tuning;
        let counters = Arc::new(Counters::default());
        counters.more_follows();
        Ok(Self {
            importer: Importer::new(around.plugins, request, egress.clone(), tuning),
            egress,
            tuning,
            _reporter: Reporter::start(Arc::clone(&counters), request.inputs.clone(), around.progress),
            counters,
            stop: around.stop,
            identity: request.plugin.digest.clone(),
        })
    }

    /// What is to be done by `plan`, of which `shards` are ours.
    fn work(&self, target: BucketUrl, plan: &ImportPlan, shards: usize) -> Work {
        // The connections are shared out.
        let connections = (self.tuning.connections / shards.clamp(1, AHEAD)).max(2);
        Work {
            importer: self.importer.clone().at(&plan.revision),
            egress: self.egress.clone(),
            tuning: Tuning { connections, ..self.tuning },
            target,
            counters: Arc::clone(&self.counters),
            stop: self.stop.clone(),
            identity: format!("{}@{} {}", plan.inputs, plan.revision, self.identity),
            making: Semaphore::new(1),
        }
    }
}

/// The plan of an earlier run of this import, else a new one.
async fn plan(importer: &Importer, sink: &Sink, inputs: &str) -> Result<ImportPlan, LoadError> {
    if let Some(plan) = ImportPlan::read(sink.records(), inputs).await? {
        return Ok(plan);
    }
    let plan = importer.plan(inputs).await?;
    plan.write(sink.records()).await?;
    tracing::info!(revision = plan.revision, shards = plan.shards.len(), "the plan is made");
    Ok(plan)
}
