//! `substratus load`: in a Job's pod with a request file, by hand with a source and a folder. Turns arguments into a load and
//! its outcome into an exit code; moves no byte.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;

use super::args::{self, Output, WorkerArgs, cut};
use super::by_hand::ByHand;
use super::failure::LoadError;
use super::load::{Surroundings, load};
use super::progress::human;
use super::report::{EXIT_FINAL, MAX_TERMINATION_MESSAGE, Outcome};
use super::request::LoadRequest;

/// Fetch a model into a folder or bucket, verified
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// The request of a Job's pod; everything about the source is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "to"])]
    request: Option<PathBuf>,
    #[command(flatten)]
    by_hand: ByHand,
    #[command(flatten)]
    worker: WorkerArgs,
}

impl LoadArgs {
    /// Runs the load; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.worker.start_log()?;
        let stop = CancellationToken::new();
        args::end_on_signal(stop.clone())?;
        let outcome = match self.prepare(stop).await {
            Ok((request, around)) => load(&request, around).await,
            Err((inputs, error)) => failed(inputs, error),
        };
        self.tell(&outcome)?;
        Ok(exit_code(&outcome))
    }

    async fn prepare(&self, stop: CancellationToken) -> Result<(LoadRequest, Surroundings), (String, LoadError)> {
        let named =
            |inputs: &str, error: anyhow::Error| (inputs.to_owned(), LoadError::new(reason::INVALID, format!("{error:#}")));
        // Read first: a failure belongs to the load that it names.
        let asked = self.request.as_deref().map(read_request).transpose().map_err(|error| named("", error))?;
        let inputs = asked.as_ref().map_or("", |request| request.inputs.as_str());
        // The only place where a worker reads its environment.
        let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let plugins = self.worker.open_plugins(&env).map_err(|error| named(inputs, error))?;
        let store = self.worker.store().map_err(|error| named(inputs, error.into()))?;
        let request = match asked {
            Some(request) => request,
            None => self.by_hand.request(&plugins).map_err(|error| named("", error))?,
        };
        if let Err(error) = self.worker.find_plugin(&plugins, &request.plugin.digest, &store).await {
            return Err((request.inputs, error));
        }
        let around = Surroundings {
            plugins,
            env,
            progress: self.worker.progress_to(store),
            tuning: self.worker.tuning(),
            patience: self.worker.patience(),
            stop,
        };
        Ok((request, around))
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        self.worker.write_termination(|| bounded(outcome))?;
        let mut out = std::io::stdout().lock();
        match (self.worker.output, outcome) {
            (Output::Json, outcome) => writeln!(out, "{}", serde_json::to_string(outcome)?)?,
            (Output::Text, Outcome::Complete { source, .. }) => {
                let revision = source.revision.as_deref().unwrap_or("unknown");
                writeln!(out, "complete: {} files, {}, revision {revision}", source.files, human(source.bytes))?;
                for warning in &source.warnings {
                    writeln!(out, "warning: {warning}")?;
                }
            }
            (Output::Text, Outcome::Failed { reason, message, .. }) => {
                writeln!(std::io::stderr(), "error: {message} ({reason})")?
            }
        }
        Ok(())
    }
}

fn read_request(file: &Path) -> anyhow::Result<LoadRequest> {
    let text = std::fs::read(file).with_context(|| format!("cannot read the request {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("the request {} is no load request of this version", file.display()))
}

fn failed(inputs: String, error: LoadError) -> Outcome {
    Outcome::Failed { inputs, reason: error.reason.to_owned(), message: error.message, retry_after: error.retry_after }
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    match outcome {
        Outcome::Complete { .. } => ExitCode::SUCCESS,
        Outcome::Failed { reason, .. } if LoadError::reason_is_final(reason) => ExitCode::from(EXIT_FINAL),
        Outcome::Failed { .. } => ExitCode::FAILURE,
    }
}

/// The outcome as JSON within what Kubernetes keeps: texts are cut, numbers never.
fn bounded(outcome: &Outcome) -> anyhow::Result<String> {
    let mut outcome = outcome.clone();
    loop {
        let text = serde_json::to_string(&outcome)?;
        if text.len() <= MAX_TERMINATION_MESSAGE {
            return Ok(text);
        }
        match &mut outcome {
            Outcome::Complete { source, .. } => {
                if source.warnings.pop().is_none() {
                    let revision = source.revision.take().map(|text| cut(text, 512));
                    *source = SourceStatus { revision, bytes: source.bytes, files: source.files, ..SourceStatus::default() };
                }
            }
            Outcome::Failed { message, .. } => {
                let half = message.len() / 2;
                anyhow::ensure!(half > 0, "the outcome does not fit a termination message");
                *message = cut(std::mem::take(message), half);
            }
        }
    }
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
        let text = bounded(&long).unwrap();
        assert!(text.len() <= MAX_TERMINATION_MESSAGE);
        let Outcome::Failed { reason, message, retry_after, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert_eq!((reason.as_str(), retry_after), (reason::NOT_FOUND, Some(7)));
        assert!(message.len() > 500);

        let source = SourceStatus { files: 7, bytes: 9, warnings: vec!["w".repeat(400); 20], ..SourceStatus::default() };
        let text = bounded(&Outcome::Complete { inputs: "i".into(), source }).unwrap();
        let Outcome::Complete { source, .. } = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
        assert!((source.files, source.bytes) == (7, 9) && !source.warnings.is_empty());
    }

    #[test]
    fn what_another_run_would_meet_again_is_final() {
        for (reason, code) in
            [(reason::NOT_FOUND, EXIT_FINAL), (reason::GATED, EXIT_FINAL), (reason::UNAVAILABLE, 1), (reason::RATE_LIMITED, 1)]
        {
            let outcome = failed(String::new(), LoadError::new(reason, "x"));
            assert_eq!(exit_code(&outcome), ExitCode::from(code), "{reason}");
        }
    }
}
