//! `manifest.json`: what lies in an artifact. It is written last, so an artifact that has one is whole. Knows no HTTP.

use serde::{Deserialize, Serialize, Serializer};
use substratus_crds::SourceStatus;

use super::plan::{Plan, PlanFile};
use crate::bucket::sink::Verified;
use crate::bucket::{Records, Sink, SinkError};

/// Name of the record.
pub const MANIFEST: &str = "manifest.json";
const VERSION: u32 = 1;

/// A manifest that was read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this format.
    pub version: u32,
    /// The load that wrote it.
    pub inputs: String,
    /// Immutable revision.
    pub revision: String,
    /// Licence as the source names it.
    #[serde(default)]
    pub license: Option<String>,
    /// What was imported.
    pub source: SourceStatus,
    /// Every file below `artifacts/`.
    pub files: Vec<Entry>,
}

/// A file of a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to `artifacts/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// The same, as it is written: no second copy of a million names.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, F> {
    version: u32,
    inputs: &'a str,
    revision: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    license: Option<&'a str>,
    source: &'a SourceStatus,
    files: F,
}

struct Files<'a>(&'a [PlanFile], &'a [Verified]);

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().zip(self.1).map(|(file, verified)| Entry {
            path: file.path.clone(),
            size: verified.size,
            sha256: hex::encode(verified.sha256),
        }))
    }
}

impl Manifest {
    /// Reads the manifest beside an artifact; `None` where there is none that this version understands.
    pub async fn read(records: &Records) -> Result<Option<Self>, SinkError> {
        Ok(records.read(MANIFEST).await?.as_deref().and_then(Self::parse))
    }

    /// A manifest from its text, where this version understands it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|manifest: &Self| manifest.version == VERSION)
    }

    /// Whether every file still lies there with its size.
    pub async fn holds(&self, sink: &Sink) -> Result<bool, SinkError> {
        for file in &self.files {
            if sink.finished(&file.path).await? != Some(file.size) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Writes the manifest of a finished load: the last write, durable, all or nothing.
pub async fn write(
    sink: &Sink,
    inputs: &str,
    plan: &Plan,
    source: &SourceStatus,
    verified: &[Verified],
) -> Result<(), SinkError> {
    write_entries(sink, inputs, &plan.revision, source, Files(&plan.files, verified)).await
}

/// The same of files that no plan names, a sequence of [`Entry`].
pub async fn write_entries(
    sink: &Sink,
    inputs: &str,
    revision: &str,
    source: &SourceStatus,
    files: impl Serialize,
) -> Result<(), SinkError> {
    let written = Written { version: VERSION, inputs, revision, license: source.license.as_deref(), source, files };
    sink.records().replace(MANIFEST, true, |out| serde_json::to_writer(out, &written).map_err(Into::into)).await
}
