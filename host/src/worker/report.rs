//! What a worker tells the operator: progress while it runs, and one outcome as the container's termination message.

use serde::{Deserialize, Serialize};
use substratus_crds::conditions::reason;
use substratus_crds::{SourceStatus, TransferStatus};

use super::failure::LoadError;

/// Largest termination message that Kubernetes keeps, in bytes.
pub const MAX_TERMINATION_MESSAGE: usize = 4096;

/// Exit code of a failure that [`Outcome::is_final`] and has no code of its own.
pub const EXIT_FINAL: u8 = 64;

/// Exit codes of final failures that scripts tell apart, ascending from [`EXIT_FINAL`]. A code never gets another meaning.
const CODES: [(&str, u8); 8] = [
    (reason::NEEDS_AUTH, 65),
    (reason::GATED, 66),
    (reason::RATE_LIMITED, 67),
    (reason::NOT_FOUND, 68),
    (reason::DISABLED, 69),
    (reason::FORBIDDEN, 70),
    (reason::TOO_LARGE, 71),
    (reason::DIGEST_MISMATCH, 72),
];

/// Exit codes of every final failure, ascending: the Job's failure policy ends it at once at one of these.
pub fn final_codes() -> impl Iterator<Item = u8> {
    std::iter::once(EXIT_FINAL).chain(CODES.iter().map(|(_, code)| *code))
}

/// What `--help` says of exit codes, below `examples`.
pub fn help(examples: &str) -> String {
    let codes: Vec<String> = CODES.iter().map(|(reason, code)| format!("{code} {reason}")).collect();
    format!(
        "{examples}\n\nExit codes: 0 complete; 1 may work when run again; {EXIT_FINAL} somebody has to change something first. Of the latter,\n\
         these have codes of their own: {}.",
        codes.join(", ")
    )
}

/// Sent while a load runs; the newest one counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The load it belongs to.
    pub inputs: String,
    /// Counters.
    pub transfer: TransferStatus,
}

/// How a load ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
#[expect(clippy::large_enum_variant, reason = "a process has one of these")]
pub enum Outcome {
    /// Every file is in the bucket, verified, and the manifest is written.
    Complete {
        /// The load it belongs to.
        inputs: String,
        /// What was imported.
        source: SourceStatus,
        /// Bytes of it that were not fetched, but taken over from other artifacts.
        #[serde(default, skip_serializing_if = "is_zero")]
        reused: u64,
    },
    /// It did not work.
    Failed {
        /// The load it belongs to.
        inputs: String,
        /// Reason of the condition: one of `substratus_crds::conditions::reason`.
        reason: String,
        /// What happened and what to do, for the user.
        message: String,
        /// Seconds the source asked to wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
}

impl Outcome {
    /// A failure as an outcome of the load `inputs`.
    pub fn failed(inputs: String, error: LoadError) -> Self {
        Self::Failed { inputs, reason: error.reason.to_owned(), message: error.message, retry_after: error.retry_after }
    }

    /// Another try may end otherwise, or will not, and then why.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Complete { .. } => 0,
            Self::Failed { reason, .. } if self.is_final() => {
                CODES.iter().find(|(own, _)| own == reason).map_or(EXIT_FINAL, |(_, code)| *code)
            }
            Self::Failed { .. } => 1,
        }
    }

    /// As JSON within what Kubernetes keeps: texts and lists are cut, numbers never.
    pub fn bounded(&self) -> anyhow::Result<String> {
        let mut outcome = self.clone();
        loop {
            let text = serde_json::to_string(&outcome)?;
            if text.len() <= MAX_TERMINATION_MESSAGE {
                return Ok(text);
            }
            match &mut outcome {
                Self::Complete { source, .. } => shorten(source),
                Self::Failed { message, .. } => {
                    let half = message.len() / 2;
                    anyhow::ensure!(half > 0, "the outcome does not fit a termination message");
                    *message = cut(std::mem::take(message), half);
                }
            }
        }
    }

    /// Whether the next pod would end like this one: somebody has to change something first, or the source said when to come
    /// back, which the operator keeps to and a Job would not.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Complete { .. } => true,
            Self::Failed { reason, retry_after, .. } => {
                retry_after.is_some()
                    || !matches!(reason.as_str(), reason::UNAVAILABLE | reason::RATE_LIMITED | reason::JOB_FAILED)
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Gives up what is least needed.
fn shorten(source: &mut SourceStatus) {
    if source.warnings.pop().is_some() || source.schema.pop().is_some() || source.splits.pop().is_some() {
        return;
    }
    let (revision, partial) = (source.revision.take(), source.partial.take());
    *source = SourceStatus {
        revision: revision.map(|text| cut(text, 512)),
        partial: partial.map(|text| cut(text, 512)),
        bytes: source.bytes,
        files: source.files,
        rows: source.rows,
        ..SourceStatus::default()
    };
}

/// The beginning of a text.
fn cut(text: String, bytes: usize) -> String {
    if text.len() <= bytes { text } else { text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_termination_message_fits() {
        let long = Outcome::Failed {
            inputs: "i".into(),
            reason: reason::NOT_FOUND.into(),
            message: "\"ü\n".repeat(4000),
            retry_after: Some(7),
        };
        let text = long.bounded().unwrap();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE);
        let Outcome::Failed { reason, message, retry_after, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!((reason.as_str(), retry_after), (reason::NOT_FOUND, Some(7)));
        assert!(message.len() > 500);

        let source = SourceStatus {
            files: 7,
            bytes: 9,
            rows: Some(11),
            partial: Some("p".repeat(5000)),
            splits: vec!["s".repeat(100); 100],
            schema: vec!["column: string".into(); 256],
            warnings: vec!["w".repeat(400); 20],
            ..SourceStatus::default()
        };
        let text = Outcome::Complete { inputs: "i".into(), source, reused: 0 }.bounded().unwrap();
        let Outcome::Complete { source, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!((source.files, source.bytes, source.rows), (7, 9, Some(11)));
        assert!(source.partial.is_some_and(|partial| partial.len() == 512));

        let source =
            SourceStatus { warnings: vec!["w".repeat(400); 20], splits: vec!["train".into()], ..SourceStatus::default() };
        let text = Outcome::Complete { inputs: "i".into(), source, reused: 0 }.bounded().unwrap();
        let Outcome::Complete { source, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert!(!source.warnings.is_empty() && source.splits == ["train"]);
    }

    #[test]
    fn what_another_run_would_meet_again_is_final() {
        for (reason, retry_after, code) in [
            (reason::INVALID, None, 64),
            (reason::NEEDS_AUTH, None, 65),
            (reason::GATED, None, 66),
            (reason::NOT_FOUND, None, 68),
            (reason::DISABLED, None, 69),
            (reason::FORBIDDEN, None, 70),
            (reason::TOO_LARGE, None, 71),
            (reason::DIGEST_MISMATCH, None, 72),
            (reason::UNAVAILABLE, None, 1),
            (reason::UNAVAILABLE, Some(3600), 64),
            (reason::RATE_LIMITED, None, 1),
            (reason::RATE_LIMITED, Some(3600), 67),
        ] {
            let outcome = Outcome::failed(String::new(), LoadError { retry_after, ..LoadError::new(reason, "x") });
            assert_eq!(outcome.exit_code(), code, "{reason}");
            assert_eq!(final_codes().any(|last| last == code), outcome.is_final(), "the Job's policy and the code of {reason}");
        }
    }

    #[test]
    fn codes_are_in_the_order_that_kubernetes_wants() {
        assert!(final_codes().is_sorted_by(|one, next| one < next));
        assert!(help("Examples:").ends_with("71 TooLarge, 72 DigestMismatch."));
    }
}
