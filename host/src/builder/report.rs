//! How a step of a build ended: the termination message of its container, which the operator reads. Knows no program that runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use crate::worker::report::{EXIT_FINAL, MAX_TERMINATION_MESSAGE};

/// Where Kubernetes looks for a container's last words.
pub(super) const TERMINATION_LOG: &str = "/dev/termination-log";

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Report {
    /// The image is in the registry.
    Built {
        /// The build it belongs to.
        inputs: String,
        /// Digest of the image's manifest.
        digest: String,
        /// Commit that it was built from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    },
    /// It did not work.
    Failed {
        /// The build it belongs to.
        inputs: String,
        /// Reason of the condition.
        reason: String,
        /// What happened, what to do, and the last lines of the log.
        message: String,
        /// Another try may end otherwise, though nobody changes anything.
        #[serde(default)]
        passing: bool,
    },
}

impl Report {
    /// A failure of the build `inputs`.
    pub(super) fn failed(inputs: &str, failure: Failure) -> Self {
        let Failure { reason, message, passing } = failure;
        Self::Failed { inputs: inputs.to_owned(), reason: reason.to_owned(), message, passing }
    }

    /// The build it belongs to.
    pub fn inputs(&self) -> &str {
        match self {
            Self::Built { inputs, .. } | Self::Failed { inputs, .. } => inputs,
        }
    }

    /// 0, or whether another try may end otherwise.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Built { .. } => ExitCode::SUCCESS,
            Self::Failed { passing: true, .. } => ExitCode::FAILURE,
            Self::Failed { .. } => EXIT_FINAL.into(),
        }
    }

    /// Leaves it where Kubernetes looks, and says to whoever reads the log how it ended.
    #[expect(clippy::print_stderr, reason = "the last line of the log")]
    pub(super) fn leave(&self, file: Option<&Path>) -> anyhow::Result<()> {
        match self {
            Self::Built { digest, .. } => eprintln!("built and pushed: {digest}"),
            Self::Failed { reason, message, .. } => {
                let first = message.split("; the last lines of the log:").next().unwrap_or_default();
                eprintln!("error: {first} ({reason})");
            }
        }
        let usual = || Some(PathBuf::from(TERMINATION_LOG)).filter(|file| file.exists());
        let Some(file) = file.map(Path::to_owned).or_else(usual) else { return Ok(()) };
        std::fs::write(&file, self.bounded()?).with_context(|| format!("write the outcome to {}", file.display()))
    }

    /// As JSON within what Kubernetes keeps: the end of the message goes first.
    fn bounded(&self) -> anyhow::Result<String> {
        let mut report = self.clone();
        loop {
            let text = serde_json::to_string(&report)?;
            if text.len() <= MAX_TERMINATION_MESSAGE {
                return Ok(text);
            }
            let Self::Failed { message, .. } = &mut report else { anyhow::bail!("the outcome is too long") };
            anyhow::ensure!(!message.is_empty(), "the outcome is too long");
            message.truncate(message.floor_char_boundary(message.len() * 3 / 4));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_fits_a_termination_message_and_reads_back() {
        let failure = Failure::new("BuildFailed", "\"ü\n".repeat(3000));
        let text = Report::failed("i", failure).bounded().unwrap();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE);
        let Report::Failed { message, passing, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert!(message.len() > 1000 && !passing);
        // Pods of every kind are asked for their last words the same way.
        let words: crate::worker::report::Outcome = serde_json::from_str(&text).unwrap();
        assert!(matches!(words, crate::worker::report::Outcome::Failed { reason, .. } if reason == "BuildFailed"));
    }
}
