//! One import spread over several workers that see the same bucket: who does what, and how the one who plans learns of it.
//! Knows nothing of how a shard is done.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use substratus_crds::conditions;
use tokio::time::Instant;

use super::commit::ImportManifest;
use super::plan::{ImportPlan, SHARDS};
use super::shard::Work;
use super::{Ended, do_shards, records_of};
use crate::bucket::{BucketUrl, Sink};
use crate::bucket::url::RECORDS;
use crate::worker::failure::LoadError;
use crate::worker::request::LoadRequest;

/// How often the bucket is looked into.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a worker waits for the plan before its Job has to start it again.
const PATIENCE: Duration = Duration::from_mins(15);

/// Which part of an import this worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// This worker's place among those that do shards; without one it plans and commits.
    pub index: Option<usize>,
    /// How many workers do shards; one does everything by itself.
    pub workers: usize,
}

/// What a worker leaves behind that will not get further.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    inputs: String,
    reason: String,
    message: String,
}

fn failure_name(index: usize) -> String {
    format!("failed-{index}.json")
}

impl Share {
    /// Waits for the plan and does the shards of worker `index`.
    pub(super) async fn part(
        self,
        index: usize,
        request: &LoadRequest,
        target: &BucketUrl,
        work: impl FnOnce(&ImportPlan) -> Work,
    ) -> Result<Ended, LoadError> {
        let records = records_of(target)?;
        let until = Instant::now() + PATIENCE;
        let plan = loop {
            if let Some(plan) = ImportPlan::read(&records, &request.inputs)? {
                break plan;
            }
            if ImportManifest::read(&records)?.is_some_and(|manifest| manifest.inputs == request.inputs) {
                // All is done: whoever started this worker again came late.
                return Ok(Ended::Share(0));
            }
            if Instant::now() >= until {
                return Err(LoadError::unavailable("there is no plan yet; the loader's own pod makes it"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let work = work(&plan);
        let folder = Sink::records_below(&target.join(RECORDS).join(SHARDS)).await?;
        folder.remove(&failure_name(index))?;
        match do_shards(&plan, &work, index, self.workers).await {
            Ok(shards) => Ok(Ended::Share(shards)),
            Err(error) => {
                if LoadError::reason_is_final(error.reason) {
                    let failure = Failure {
                        inputs: request.inputs.clone(),
                        reason: error.reason.to_owned(),
                        message: error.message.clone(),
                    };
                    folder.replace(&failure_name(index), false, |out| serde_json::to_writer(out, &failure).map_err(Into::into))?;
                }
                Err(error)
            }
        }
    }

    /// Waits until every shard is recorded, or a worker says that it will not get further.
    pub(super) async fn wait(self, plan: &ImportPlan, work: &Work) -> Result<(), LoadError> {
        let folder = Sink::records_below(&work.target.join(RECORDS).join(SHARDS)).await?;
        work.counters.expect(plan.shards.len() as u64, 0);
        let mut waiting: Vec<usize> = (0..plan.shards.len()).collect();
        loop {
            let mut still = Vec::with_capacity(waiting.len());
            for index in waiting {
                match plan.shards.get(index) {
                    Some(shard) if work.done(index, shard)?.is_none() => still.push(index),
                    _ => work.counters.file(),
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            waiting = still;
            for index in 0..self.workers {
                let failure: Option<Failure> =
                    folder.read(&failure_name(index))?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
                if let Some(failure) = failure.filter(|failure| failure.inputs == plan.inputs) {
                    return Err(LoadError::new(known(&failure.reason), failure.message));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = work.stop.cancelled() => return Err(super::interrupted()),
            }
        }
    }
}

/// A reason that was written down, as the constant it came from.
fn known(reason: &str) -> &'static str {
    use conditions::reason as r;
    let all = [
        r::INVALID, r::PLUGIN_FAILED, r::PLUGIN_DENIED, r::UNSUPPORTED, r::REFUSED, r::NEEDS_AUTH, r::GATED, r::NOT_FOUND,
        r::DIGEST_MISMATCH, r::TOO_LARGE,
    ];
    all.into_iter().find(|known| *known == reason).unwrap_or(r::JOB_FAILED)
}
