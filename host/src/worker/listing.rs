//! What a load or an import would fetch, as it is printed: the sums, and every file. Pure.

use serde::Serialize;
use substratus_crds::SourceStatus;

use super::import::plan::ImportPlan;
use super::plan::Plan;
use crate::plugin::types::{File, SHA256};

/// What a load would fetch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing {
    /// What is known of the whole.
    #[serde(flatten)]
    pub facts: SourceStatus,
    /// Every file.
    pub list: Vec<ListedFile>,
}

/// One of its files.
#[derive(Debug, Serialize)]
pub struct ListedFile {
    /// Relative.
    pub path: String,
    /// Bytes, where the source says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Hexadecimal, where the source says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Listing {
    /// The files of a load.
    pub fn of(plan: &Plan) -> Self {
        let list = plan.files.iter().map(|file| ListedFile {
            path: file.path.clone(),
            size: file.size,
            sha256: file.sha256.map(hex::encode),
        });
        Self { facts: plan.source.clone(), list: list.collect() }
    }

    /// The inputs of an import. What rows come out is known once they are read.
    pub fn of_import(plan: &ImportPlan) -> Self {
        let inputs = || plan.shards.iter().flat_map(|shard| &shard.inputs);
        let sha256 =
            |input: &File| input.digest.as_ref().filter(|digest| digest.algorithm == SHA256).map(|digest| digest.hex.clone());
        let list = inputs().map(|input| ListedFile { path: input.path.clone(), size: input.size, sha256: sha256(input) });
        let mut splits: Vec<String> = plan.shards.iter().filter_map(|shard| shard.split.clone()).collect();
        splits.dedup();
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let facts = SourceStatus {
            revision: Some(plan.revision.clone()),
            license: plan.license.clone(),
            partial: plan.partial.clone(),
            files: signed(inputs().count() as u64),
            bytes: signed(inputs().filter_map(|input| input.size).fold(0, u64::saturating_add)),
            splits,
            warnings: plan.warnings.clone(),
            ..SourceStatus::default()
        };
        Self { facts, list: list.collect() }
    }
}
