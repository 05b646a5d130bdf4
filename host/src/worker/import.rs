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
//! What is written depends on the plan alone, not on the order in which shards are done.

mod by_hand;
pub mod cli;
pub mod commit;
pub mod decode;
pub mod importer;
pub mod part;
pub mod plan;
pub mod schema;
pub mod shard;
pub mod streams;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio::sync::Semaphore;

pub use self::cli::ImportArgs;
use self::commit::{commit, withdraw};
use self::importer::Importer;
use self::plan::ImportPlan;
use self::shard::{Work, interrupted};
use super::counters::Counters;
use super::egress::Egress;
use super::failure::LoadError;
use super::load::{Surroundings, stopped_for_good};
use super::manifest::Manifest;
use super::progress::Reporter;
use super::report::Outcome;
use super::request::LoadRequest;
use super::secrets::Secrets;
use super::transfer::Tuning;
use crate::bucket::{BucketUrl, Sink};

/// Shards in work at the same time: one is decoded or mapped while others are fetched.
const AHEAD: usize = 4;

/// Runs an import and says how it ended.
pub async fn import(request: &LoadRequest, around: Surroundings) -> Outcome {
    match run(request, around).await {
        Ok(source) => Outcome::Complete { inputs: request.inputs.clone(), source },
        Err(error) => Outcome::failed(request.inputs.clone(), error),
    }
}

async fn run(request: &LoadRequest, around: Surroundings) -> Result<SourceStatus, LoadError> {
    let target: BucketUrl = request.target.parse().map_err(|error| LoadError::new(reason::INVALID, format!("{error}")))?;
    let sink = Sink::open(&target).await?;
    if let Some(manifest) = Manifest::read(&sink)? {
        if manifest.inputs == request.inputs && manifest.holds(&sink).await? {
            tracing::info!(revision = manifest.revision, "the artifact is complete already");
            return Ok(manifest.source);
        }
        withdraw(&sink, &manifest).await?;
    }
    let secrets =
        Secrets::from_env(&request.grant, around.env).map_err(|error| LoadError::new(reason::INVALID, error.to_string()))?;
    let egress = Egress::new(&request.grant.hosts, secrets, around.patience)?;
    let importer = Importer::new(around.plugins, request, egress.clone(), around.tuning);
    let counters = Arc::new(Counters::default());
    let _reporter = Reporter::start(Arc::clone(&counters), request.inputs.clone(), around.progress);
    let stop = around.stop.clone();
    let doing = async {
        let plan = plan(&importer, &sink, &request.inputs).await?;
        let work = Work {
            importer: importer.at(&plan.revision),
            egress,
            tuning: per_shard(around.tuning, plan.shards.len()),
            target,
            counters,
            stop: around.stop,
            identity: format!("{}@{} {}", plan.inputs, plan.revision, request.plugin.digest),
            making: Semaphore::new(1),
        };
        let shards = stream::iter(plan.shards.iter().enumerate()).map(|(index, shard)| work.run(index, shard));
        shards.buffer_unordered(AHEAD).try_collect::<()>().await?;
        commit(&work, &sink, &plan).await
    };
    tokio::select! {
        biased;
        result = doing => result,
        () = stopped_for_good(&stop) => Err(interrupted()),
    }
}

/// The plan of an earlier run of this import, else a new one.
async fn plan(importer: &Importer, sink: &Sink, inputs: &str) -> Result<ImportPlan, LoadError> {
    if let Some(plan) = ImportPlan::read(sink.records(), inputs)? {
        return Ok(plan);
    }
    let plan = importer.plan(inputs).await?;
    plan.write(sink.records())?;
    tracing::info!(revision = plan.revision, shards = plan.shards.len(), "the plan is made");
    Ok(plan)
}

/// How hard to try for one shard of several: the connections are shared out.
fn per_shard(tuning: Tuning, shards: usize) -> Tuning {
    Tuning { connections: (tuning.connections / shards.clamp(1, AHEAD)).max(2), ..tuning }
}
