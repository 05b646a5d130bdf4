//! One import by several processes: who leads, who takes which shards, and how they wait for each other through the records beside
//! the artifact. Does no shard itself.

use std::str::FromStr;
use std::time::Duration;

use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio::time::Instant;

use super::commit::describe;
use super::plan::ImportPlan;
use super::shard::Work;
use super::{Crew, all};
use crate::bucket::{BucketUrl, Records};
use crate::worker::failure::LoadError;
use crate::worker::load::Surroundings;
use crate::worker::manifest::Manifest;
use crate::worker::request::LoadRequest;

/// How often the records are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After so long without a shard that got done, the leader lends a hand: a shard that nobody holds may have nobody left to do it.
const QUIET: Duration = Duration::from_secs(15);
/// How long whoever has a share waits for the plan.
const PLAN_TIMEOUT: Duration = Duration::from_mins(30);

/// What a process does of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// Plans, waits for those who have shares, puts the parts together.
    Lead,
    /// Some of the shards that a leader planned.
    Share(Share),
}

/// Every `of`th shard, from the one in place `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: usize,
    of: usize,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Self { index, of }),
            _ => Err("a share is written INDEX/COUNT, such as 0/2 and 1/2".to_owned()),
        }
    }
}

/// Waits for the plan and does a share of it. Says what came of that share.
pub(super) async fn take(
    request: &LoadRequest,
    around: Surroundings,
    target: BucketUrl,
    share: Share,
) -> Result<SourceStatus, LoadError> {
    let no_folder = || LoadError::new(reason::UNSUPPORTED, format!("shards of an import into `{target}` cannot be shared out"));
    let records = Records::of(&target).ok_or_else(no_folder)?;
    let Some(plan) = planned(&records, &request.inputs).await? else {
        tracing::info!("the artifact is complete already");
        return Ok(SourceStatus::default());
    };
    let mine = || plan.shards.iter().enumerate().skip(share.index).step_by(share.of);
    let work = Crew::new(request, around)?.work(target, &plan, mine().count());
    work.expect(mine().map(|(_, shard)| shard));
    tracing::info!(revision = plan.revision, shards = mine().count(), of = plan.shards.len(), "the plan is there");
    all(&work, mine()).await?;
    let mut done = Vec::new();
    for (index, shard) in mine() {
        // Where the leader was faster and took them apart, there is nothing left to tell.
        done.extend(work.done(index, shard).await?);
    }
    Ok(describe(&plan, mine().map(|(_, shard)| shard), &done, done.iter().flat_map(|record| &record.parts).map(|part| part.size)))
}

/// The plan, once somebody made it; nothing where all is done.
async fn planned(records: &Records, inputs: &str) -> Result<Option<ImportPlan>, LoadError> {
    let since = Instant::now();
    loop {
        if let Some(plan) = ImportPlan::read(records, inputs).await? {
            return Ok(Some(plan));
        }
        if Manifest::read(records).await?.is_some_and(|manifest| manifest.inputs == inputs) {
            return Ok(None);
        }
        if since.elapsed() > PLAN_TIMEOUT {
            return Err(LoadError::unavailable("nobody made a plan of the import yet"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until every shard is done, whoever does it.
pub(super) async fn lead(work: &Work, plan: &ImportPlan) -> Result<(), LoadError> {
    let mut open: Vec<_> = plan.shards.iter().enumerate().collect();
    let mut moved = Instant::now();
    while !open.is_empty() {
        let began = Instant::now();
        let mut left = Vec::with_capacity(open.len());
        for (index, shard) in &open {
            if work.done(*index, shard).await?.is_some() {
                work.count(shard);
                moved = began;
            } else {
                left.push((*index, *shard));
            }
        }
        open = left;
        if moved.elapsed() > QUIET {
            for at in 0..open.len() {
                let Some((index, shard)) = open.get(at).copied() else { break };
                if work.attempt(index, shard).await? {
                    open.remove(at);
                    break;
                }
            }
        }
        // Looking at a million shards takes a while, and is done the less often.
        tokio::time::sleep(LOOK_EVERY.max(began.elapsed())).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_place_and_a_number() {
        assert_eq!("1/2".parse(), Ok(Share { index: 1, of: 2 }));
        for wrong in ["2/2", "0/0", "1", "-1/2", "a/b", "1/2/3"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
