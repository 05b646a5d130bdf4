//! `substratus import`: in a Job's pod with a request file, by hand with a source and a folder. Turns arguments into an import and
//! its outcome into an exit code; moves no byte.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;

use super::by_hand::ByHand;
use super::import;
use super::share::{Part, Share};
use crate::worker::args::{self, Output, WorkerArgs};
use crate::worker::failure::LoadError;
use crate::worker::load::Surroundings;
use crate::worker::progress::human;
use crate::worker::report::{self, Outcome};
use crate::worker::request::LoadRequest;

const AFTER: &str = "\
Examples:
  substratus import hf://datasets/org/name --to data
      rows of a data set on the hub, as JSON Lines: data/artifacts/train-00000-of-00002.jsonl, …
  substratus import https://host/rows.csv.gz --to data
      the file, unpacked; with --param format=jsonl its rows as JSON Lines
  substratus import --image substratusai/dataset-squad --to data
      what a Dataset with this image would import
  substratus import hf://datasets/org/name --to data --param split=train -o json
      one split, and the outcome as JSON
  substratus import hf://datasets/org/name --to data --share 0/2 &
  substratus import hf://datasets/org/name --to data --share 1/2 &
  substratus import hf://datasets/org/name --to data --lead
      the same files, by three processes: two do shards, one plans and puts together

What may be given with --param is in each importer's README; HF_TOKEN opens what is private or gated. An import that was
interrupted goes on where it stopped when it is run again; one that is complete does nothing.";

/// Import a data set into a folder or bucket
#[derive(Debug, Args)]
#[command(after_long_help = report::help(AFTER))]
pub struct ImportArgs {
    /// The request of a Job's pod; everything about the source is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "to", "image"])]
    request: Option<PathBuf>,
    /// Plan, wait until others did the shards (--share), and put the parts together
    #[arg(long, conflicts_with = "share")]
    lead: bool,
    /// Do one shard in COUNT, from the one at INDEX on, of a plan that another process makes (--lead) for the same target
    #[arg(long, value_name = "INDEX/COUNT")]
    share: Option<Share>,
    #[command(flatten)]
    by_hand: ByHand,
    #[command(flatten)]
    worker: WorkerArgs,
}

impl ImportArgs {
    /// Runs the import; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.worker.run.start_log()?;
        let stop = CancellationToken::new();
        args::end_on_signal(stop.clone())?;
        let outcome = match self.prepare(stop).await {
            Ok((request, around)) => import(&request, around, self.part()).await,
            Err((inputs, error)) => Outcome::failed(inputs, error),
        };
        self.tell(&outcome)?;
        Ok(outcome.exit_code().into())
    }

    fn part(&self) -> Part {
        match self.share {
            Some(share) => Part::Share(share),
            None if self.lead => Part::Lead,
            None => Part::Whole,
        }
    }

    async fn prepare(&self, stop: CancellationToken) -> Result<(LoadRequest, Surroundings), (String, LoadError)> {
        let named =
            |inputs: &str, error: anyhow::Error| (inputs.to_owned(), LoadError::new(reason::INVALID, format!("{error:#}")));
        let asked = self.request.as_deref().map(args::read_request).transpose().map_err(|error| named("", error))?;
        let inputs = asked.as_ref().map_or("", |request| request.inputs.as_str());
        let env = self.worker.run.effort.environment();
        let plugins = self.worker.plugins.open(&env).map_err(|error| named(inputs, error))?;
        let effort = self.worker.run.effort.effort(&env).map_err(|error| (inputs.to_owned(), error))?;
        let store = self.worker.store().map_err(|error| named(inputs, error.into()))?;
        let request = match asked {
            Some(request) => request,
            None => self.by_hand.request(&plugins, &env).await.map_err(|error| (String::new(), error))?,
        };
        if let Err(error) = self.worker.find_plugin(&plugins, &request.plugin.digest, &store).await {
            return Err((request.inputs, error));
        }
        let reuse = Vec::new();
        let around = Surroundings { plugins, env, reuse, progress: self.worker.progress_to(store), effort, stop };
        Ok((request, around))
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        self.worker.run.write_termination(outcome)?;
        let mut out = std::io::stdout().lock();
        match (self.worker.run.output, outcome) {
            (Output::Json, outcome) => writeln!(out, "{}", serde_json::to_string(outcome)?)?,
            (Output::Text, Outcome::Complete { source, .. }) => describe(&mut out, source)?,
            (Output::Text, Outcome::Failed { reason, message, .. }) => {
                writeln!(std::io::stderr(), "error: {message} ({reason})")?;
            }
        }
        Ok(())
    }
}

/// What a person wants to know of a data set.
fn describe(out: &mut impl Write, source: &SourceStatus) -> std::io::Result<()> {
    let rows = source.rows.map(|rows| format!("{rows} rows, ")).unwrap_or_default();
    let revision = source.revision.as_deref().unwrap_or("unknown");
    writeln!(out, "complete: {rows}{} files, {}, revision {revision}", source.files, human(source.bytes))?;
    for (name, values) in [("splits", &source.splits), ("columns", &source.schema)] {
        if !values.is_empty() {
            writeln!(out, "{name}: {}", values.join(", "))?;
        }
    }
    for (name, value) in [("license", &source.license), ("partial", &source.partial)] {
        if let Some(value) = value {
            writeln!(out, "{name}: {value}")?;
        }
    }
    source.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}
