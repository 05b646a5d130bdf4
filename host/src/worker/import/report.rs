//! What an import tells the operator at its end: one outcome, as the container's termination message. Runs nothing.

use serde::{Deserialize, Serialize};

use super::schema::{Column, Schema};
use crate::worker::args::cut;
use crate::worker::report::MAX_TERMINATION_MESSAGE;

/// What was imported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedDataset {
    /// Immutable revision of the source.
    pub revision: String,
    /// Licence as the source names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Why this is not all of the data set; absent where it is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
    /// Bytes of all files.
    pub bytes: i64,
    /// Number of files.
    pub files: i64,
    /// Rows, where the files are of kinds that hold rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
    /// Its splits, in the order of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<Split>,
    /// Columns, as the first rows of each file show them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schema: Vec<Column>,
    /// Sentences for the user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A part of a data set that has a name: `train`, `test`, …
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Its name.
    pub name: String,
    /// Bytes of its files.
    pub bytes: i64,
    /// Its rows, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<i64>,
}

/// How an import, or one worker's share of it, ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum ImportOutcome {
    /// Every file is in the bucket, and the manifest is written.
    Complete {
        /// The import it belongs to.
        inputs: String,
        /// What was imported.
        dataset: ImportedDataset,
    },
    /// This worker's shards are done; the worker without an index puts all of them together.
    Shards {
        /// The import they belong to.
        inputs: String,
        /// How many this worker was asked for.
        shards: i64,
    },
    /// It did not work.
    Failed {
        /// The import it belongs to.
        inputs: String,
        /// Reason of the condition: one of `substratus_crds::conditions::reason`.
        reason: String,
        /// What happened and what to do, for the user.
        message: String,
        /// Seconds the source asked to wait.
        #[serde(default, rename = "retryAfter", skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

impl ImportedDataset {
    /// Takes columns in.
    pub(super) fn describe(&mut self, schema: &Schema) {
        self.schema = schema.columns().to_vec();
    }

    /// Gives up what is least needed; `false` where nothing is left to give up.
    fn shorten(&mut self) -> bool {
        if self.warnings.pop().is_some() || self.schema.pop().is_some() || self.splits.pop().is_some() {
            return true;
        }
        let texts = [Some(&mut self.revision), self.license.as_mut(), self.partial.as_mut()];
        let mut shortened = false;
        for text in texts.into_iter().flatten().filter(|text| text.len() > 512) {
            *text = cut(std::mem::take(text), 512);
            shortened = true;
        }
        shortened
    }
}

/// The outcome as JSON within what Kubernetes keeps: texts and lists are cut, numbers never.
pub fn bounded(outcome: &ImportOutcome) -> anyhow::Result<String> {
    let mut outcome = outcome.clone();
    loop {
        let text = serde_json::to_string(&outcome)?;
        if text.len() <= MAX_TERMINATION_MESSAGE {
            return Ok(text);
        }
        let shortened = match &mut outcome {
            ImportOutcome::Complete { dataset, .. } => dataset.shorten(),
            ImportOutcome::Shards { .. } => false,
            ImportOutcome::Failed { message, .. } => {
                let half = message.len() / 2;
                *message = cut(std::mem::take(message), half);
                half > 0
            }
        };
        anyhow::ensure!(shortened, "the outcome does not fit a termination message");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_message_fits_and_keeps_its_numbers() {
        let column = |n: usize| Column { name: format!("column-{n}"), kind: "string".into() };
        let dataset = ImportedDataset {
            revision: "r".into(),
            partial: Some("only the first 5 GB".into()),
            rows: Some(7),
            files: 3,
            bytes: 9,
            splits: (0..100).map(|n| Split { name: format!("split-{n}"), bytes: n, rows: Some(n) }).collect(),
            schema: (0..256).map(column).collect(),
            warnings: vec!["w".repeat(500); 20],
            ..ImportedDataset::default()
        };
        let text = bounded(&ImportOutcome::Complete { inputs: "i".into(), dataset }).unwrap();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE);
        let ImportOutcome::Complete { dataset, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!((dataset.rows, dataset.files, dataset.bytes), (Some(7), 3, 9));
        assert!(dataset.partial.is_some() && !dataset.splits.is_empty());

        let failed = ImportOutcome::Failed {
            inputs: "i".into(),
            reason: "Invalid".into(),
            message: "ü\n".repeat(4000),
            retry_after: Some(1),
        };
        let text = bounded(&failed).unwrap();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE && text.contains("\"retryAfter\":1"), "{text}");
    }
}
