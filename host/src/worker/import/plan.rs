//! The plan of an import, as it lies beside the artifact: whoever works on a shard reads it from there. Asks nobody.

use serde::{Deserialize, Serialize};

use crate::bucket::{BucketUrl, Records, SinkError};
use crate::plugin::types::Shard;

/// Most shards of one import.
pub const MAX_SHARDS: usize = 1_000_000;
/// Name of the record.
const PLAN: &str = "import.json";
const VERSION: u32 = 1;

/// Every shard, in order, and what the importer said of the data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportPlan {
    /// The import it belongs to.
    pub inputs: String,
    /// Immutable revision.
    pub revision: String,
    /// In order; a shard is known by its place.
    pub shards: Vec<Shard>,
    /// Licence as the source names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Why this is not all of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// Sentences for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Written<P> {
    version: u32,
    #[serde(flatten)]
    plan: P,
}

impl ImportPlan {
    /// The plan of the import `inputs` beside an artifact, where it was made.
    pub async fn read(records: &Records, inputs: &str) -> Result<Option<Self>, SinkError> {
        let written: Option<Written<Self>> = records.read(PLAN).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(written.filter(|written| written.version == VERSION && written.plan.inputs == inputs).map(|written| written.plan))
    }

    /// Leaves it beside the artifact: all or nothing.
    pub async fn write(&self, records: &Records) -> Result<(), SinkError> {
        let written = Written { version: VERSION, plan: self };
        records.replace(PLAN, true, |out| serde_json::to_writer(out, &written).map_err(Into::into)).await
    }

    /// Removes the record.
    pub async fn remove(records: &Records) -> Result<(), SinkError> {
        records.remove(PLAN).await
    }
}

/// Folder of our records where the parts of shards lie until they are put together.
pub const SHARDS: &str = "shards";

/// Where the parts of a shard lie.
pub fn shard_url(target: &BucketUrl, index: usize) -> BucketUrl {
    target.join(crate::bucket::url::RECORDS).join(SHARDS).join(&format!("{index:06}"))
}
