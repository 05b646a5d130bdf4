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
//! With `--shards N` the work is spread: N workers with `--shard-index` do a share each, one without an index plans, waits for their
//! records and commits. What is written depends on the plan alone.

mod by_hand;
pub mod cli;
pub mod commit;
pub mod decode;
pub mod importer;
pub mod part;
pub mod plan;
pub mod report;
pub mod schema;
pub mod shard;
mod share;
pub mod streams;

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use substratus_crds::conditions::reason;
use tokio::sync::Semaphore;

pub use self::cli::ImportArgs;
use self::commit::{ImportManifest, commit};
use self::importer::Importer;
use self::plan::ImportPlan;
use self::report::{ImportOutcome, ImportedDataset};
use self::shard::{Work, interrupted};
pub use self::share::Share;
use super::counters::Counters;
use super::egress::Egress;
use super::failure::LoadError;
use super::load::{Surroundings, stopped_for_good};
use super::progress::Reporter;
use super::request::LoadRequest;
use super::secrets::Secrets;
use super::transfer::Tuning;
use crate::bucket::local::Records;
use crate::bucket::{BucketUrl, Sink, SinkError};

/// Shards in work at the same time: one is decoded or mapped while others are fetched.
const AHEAD: usize = 4;

/// Runs an import, or a share of one, and says how it ended.
pub async fn import(request: &LoadRequest, share: Share, around: Surroundings) -> ImportOutcome {
    let inputs = request.inputs.clone();
    match run(request, share, around).await {
        Ok(Ended::Whole(dataset)) => ImportOutcome::Complete { inputs, dataset },
        Ok(Ended::Share(shards)) => ImportOutcome::Shards { inputs, shards: i64::try_from(shards).unwrap_or(i64::MAX) },
        Err(error) => failed(inputs, error),
    }
}

/// A failure as an outcome.
fn failed(inputs: String, error: LoadError) -> ImportOutcome {
    let LoadError { reason, message, retry_after } = error;
    ImportOutcome::Failed { inputs, reason: reason.to_owned(), message, retry_after }
}

enum Ended {
    Whole(ImportedDataset),
    Share(usize),
}

async fn run(request: &LoadRequest, share: Share, around: Surroundings) -> Result<Ended, LoadError> {
    let target: BucketUrl = request.target.parse().map_err(|error| LoadError::new(reason::INVALID, format!("{error}")))?;
    let secrets =
        Secrets::from_env(&request.grant, around.env).map_err(|error| LoadError::new(reason::INVALID, error.to_string()))?;
    let egress = Egress::new(&request.grant.hosts, secrets, around.patience)?;
    let importer = Importer::new(around.plugins, request, egress.clone(), around.tuning);
    let counters = Arc::new(Counters::default());
    let _reporter = Reporter::start(Arc::clone(&counters), request.inputs.clone(), around.progress);
    let stop = around.stop;
    let work = |plan: &ImportPlan| Work {
        importer: importer.clone().at(&plan.revision),
        egress,
        tuning: per_shard(around.tuning, plan.shards.len() / share.workers.max(1)),
        target: target.clone(),
        counters,
        stop: stop.clone(),
        identity: format!("{}@{} {}", plan.inputs, plan.revision, request.plugin.digest),
        making: Semaphore::new(1),
    };
    let doing = async {
        if let Some(index) = share.index {
            share.part(index, request, &target, work).await
        } else {
            whole(request, share, &target, &importer, work).await.map(Ended::Whole)
        }
    };
    tokio::select! {
        biased;
        result = doing => result,
        () = stopped_for_good(&stop) => Err(interrupted()),
    }
}

/// Plans, does the shards or waits for those who do, commits.
async fn whole(
    request: &LoadRequest,
    share: Share,
    target: &BucketUrl,
    importer: &Importer,
    work: impl FnOnce(&ImportPlan) -> Work,
) -> Result<ImportedDataset, LoadError> {
    let sink = Sink::open(target).await?;
    if let Some(manifest) = ImportManifest::read(sink.records())? {
        if manifest.inputs == request.inputs && manifest.holds(&sink).await? {
            tracing::info!(revision = manifest.revision, "the artifact is complete already");
            return Ok(manifest.dataset);
        }
        manifest.withdraw(&sink).await?;
    }
    let plan = match ImportPlan::read(sink.records(), &request.inputs)? {
        Some(plan) => plan,
        None => {
            let plan = importer.plan(&request.inputs).await?;
            plan.write(sink.records())?;
            plan
        }
    };
    tracing::info!(revision = plan.revision, shards = plan.shards.len(), "the plan is made");
    let work = work(&plan);
    if share.workers > 1 {
        share.wait(&plan, &work).await?;
    } else {
        do_shards(&plan, &work, 0, 1).await?;
    }
    commit(&work, &sink, &plan).await
}

/// Does every `workers`-th shard from `index` on; answers with how many these are.
async fn do_shards(plan: &ImportPlan, work: &Work, index: usize, workers: usize) -> Result<usize, LoadError> {
    let mine: Vec<_> = plan.share(index, workers).collect();
    work.counters.expect(mine.len() as u64, 0);
    let shards = stream::iter(&mine).map(|(index, shard)| work.run(*index, shard));
    shards.buffer_unordered(AHEAD).try_collect::<()>().await?;
    Ok(mine.len())
}

/// The records beside an artifact, without its lock.
fn records_of(target: &BucketUrl) -> Result<Records, SinkError> {
    Records::of(target).ok_or_else(|| SinkError::Unsupported(target.clone()))
}

/// How hard to try for one shard of several: the connections are shared out.
fn per_shard(tuning: Tuning, shards: usize) -> Tuning {
    Tuning { connections: (tuning.connections / shards.clamp(1, AHEAD)).max(2), ..tuning }
}
