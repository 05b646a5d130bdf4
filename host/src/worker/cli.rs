//! `substratus load`: in a Job's pod with a request file, by hand with a source and a folder. Turns arguments into a load and
//! its outcome into an exit code; moves no byte.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;

use super::args::{self, Output, WorkerArgs};
use super::by_hand::{ByHand, place};
use super::failure::LoadError;
use super::load::{Effort, Surroundings, load};
use super::oci::login::Accounts;
use super::progress::human;
use super::report::{self, Outcome};
use super::request::LoadRequest;

const AFTER: &str = "\
Examples:
  substratus load hf://org/name --to model
      the files of a model on the hub: model/artifacts/config.json, …
  substratus load hf://org/name@v1.0 --to s3://bucket/model --include '*Q8_0*'
      some files of a revision, into a bucket
  HF_ENDPOINT=https://mirror.example substratus load hf://org/name --to model --grant cdn.mirror.example
      from a mirror, which serves large files from another host
  substratus load oci://registry.example/team/model:v1 --to model
      out of an OCI registry, as `substratus push` or `oras push` left it, with the account that `docker login` keeps

HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) opens what is private or gated; HF_ENDPOINT names a mirror. `substratus plan` shows what would
be fetched. A load that was interrupted goes on where it stopped when it is run again; one that is complete does nothing.";

/// Fetch a model into a folder or bucket, verified
#[derive(Debug, Args)]
#[command(after_long_help = report::help(AFTER))]
pub struct LoadArgs {
    /// The request of a Job's pod; everything about the source is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "to"])]
    request: Option<PathBuf>,
    /// Artifact whose files are taken over where they are the same by digest, instead of fetched; may be given several times.
    /// A folder for a folder, a place in the same bucket for a bucket
    #[arg(long, value_name = "DIR|s3://BUCKET/PATH")]
    reuse: Vec<PathBuf>,
    /// Folder of docker configurations (`*.json`), the content of pull Secrets, with accounts at registries
    #[arg(long, value_name = "DIR")]
    pull_secrets: Option<PathBuf>,
    #[command(flatten)]
    by_hand: ByHand,
    #[command(flatten)]
    worker: WorkerArgs,
}

impl LoadArgs {
    /// Runs the load; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.worker.run.start_log()?;
        let stop = CancellationToken::new();
        args::end_on_signal(stop.clone())?;
        let outcome = match self.prepare(stop).await {
            Ok((request, around)) => load(&request, around).await,
            Err((inputs, error)) => Outcome::failed(inputs, error),
        };
        self.tell(&outcome)?;
        Ok(outcome.exit_code().into())
    }

    async fn prepare(&self, stop: CancellationToken) -> Result<(LoadRequest, Surroundings), (String, LoadError)> {
        let named =
            |inputs: &str, error: anyhow::Error| (inputs.to_owned(), LoadError::new(reason::INVALID, format!("{error:#}")));
        // Read first: a failure belongs to the load that it names.
        let asked = self.request.as_deref().map(args::read_request).transpose().map_err(|error| named("", error))?;
        let inputs = asked.as_ref().map_or("", |request| request.inputs.as_str());
        let env = self.worker.run.effort.environment();
        let plugins = self.worker.plugins.open(&env).map_err(|error| named(inputs, error))?;
        let effort = self.worker.run.effort.effort(&env).map_err(|error| (inputs.to_owned(), error))?;
        let accounts = match &self.pull_secrets {
            Some(folder) => Accounts::read(folder),
            None => self.by_hand.accounts(),
        };
        let effort = Effort { accounts: accounts.map_err(|error| (inputs.to_owned(), error))?, ..effort };
        let store = self.worker.store().map_err(|error| named(inputs, error.into()))?;
        let request = match asked {
            Some(request) => request,
            None => self.by_hand.request(&plugins, &env).await.map_err(|error| (String::new(), error))?,
        };
        if let Err(error) = self.worker.find_plugin(&plugins, &request.plugin.digest, &store).await {
            return Err((request.inputs, error));
        }
        let reuse = self.reuse.iter().map(|artifact| place(artifact)).collect::<Result<_, _>>();
        let reuse = reuse.map_err(|error| named(&request.inputs, error.context("--reuse")))?;
        let around = Surroundings { plugins, env, reuse, progress: self.worker.progress_to(store), effort, stop };
        Ok((request, around))
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        self.worker.run.write_termination(outcome)?;
        let mut out = std::io::stdout().lock();
        match (self.worker.run.output, outcome) {
            (Output::Json, outcome) => writeln!(out, "{}", serde_json::to_string(outcome)?)?,
            (Output::Text, Outcome::Complete { source, reused, .. }) => {
                let revision = source.revision.as_deref().unwrap_or("unknown");
                let bytes = i64::try_from(*reused).ok().filter(|bytes| *bytes > 0);
                let reused = bytes.map(|bytes| format!(", {} of them taken over", human(bytes))).unwrap_or_default();
                writeln!(out, "complete: {} files, {}{reused}, revision {revision}", source.files, human(source.bytes))?;
                for warning in &source.warnings {
                    writeln!(out, "warning: {warning}")?;
                }
            }
            (Output::Text, Outcome::Failed { reason, message, .. }) => {
                writeln!(std::io::stderr(), "error: {message} ({reason})")?;
            }
        }
        Ok(())
    }
}
