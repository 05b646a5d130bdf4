//! `substratus import`: in a Job's pod with a request file, by hand with a source and a folder. Turns arguments into an import and
//! its outcome into an exit code; moves no byte.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;

use super::by_hand::ByHand;
use super::report::{ImportOutcome, ImportedDataset, bounded};
use super::{Share, failed, import};
use crate::worker::args::{self, Output, WorkerArgs};
use crate::worker::failure::LoadError;
use crate::worker::load::Surroundings;
use crate::worker::progress::human;
use crate::worker::report::EXIT_FINAL;
use crate::worker::request::LoadRequest;

const AFTER: &str = "\
Examples:
  substratus import hf://datasets/org/name --to data
      rows of a data set on the hub, as JSON Lines: data/artifacts/train-00000-of-00002.jsonl, …
  substratus import https://host/rows.csv.gz --to data
      the file, unpacked; with --param format=jsonl its rows as JSON Lines
  substratus import --image substratusai/dataset-squad --to data
      what a Dataset with this image would import
  substratus import hf://datasets/org/name --to data --param split=train --param columns=prompt,completion -o json
      one split, two columns, and the outcome as JSON

What may be given with --param is in each importer's README; HF_TOKEN opens what is private or gated. An import that was
interrupted goes on where it stopped when it is run again; one that is complete does nothing.

Several workers that see the same folder may share the work, as the pods of an Indexed Job do:
  substratus import --request FILE --shards 4                       plans, waits for the others, puts the parts together
  substratus import --request FILE --shards 4 --shard-index 0       does the shards 0, 4, 8, …

Exit codes: 0 complete; 1 may work when run again; 64 somebody has to change something first.";

/// Import a data set into a folder or bucket
#[derive(Debug, Args)]
#[command(after_long_help = AFTER)]
pub struct ImportArgs {
    /// The request of a Job's pod; everything about the source is in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "to", "image"])]
    request: Option<PathBuf>,
    #[command(flatten)]
    by_hand: ByHand,
    /// Workers that do shards; one does everything by itself
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    shards: u32,
    /// Do the shards of this worker only [in an Indexed Job: JOB_COMPLETION_INDEX]
    #[arg(long, value_name = "K", env = "JOB_COMPLETION_INDEX")]
    shard_index: Option<u32>,
    #[command(flatten)]
    worker: WorkerArgs,
}

impl ImportArgs {
    /// Runs the import; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.worker.start_log()?;
        let stop = CancellationToken::new();
        args::end_on_signal(stop.clone())?;
        let outcome = match self.prepare(stop).await {
            Ok((request, share, around)) => import(&request, share, around).await,
            Err((inputs, error)) => failed(inputs, error),
        };
        self.tell(&outcome)?;
        Ok(exit_code(&outcome))
    }

    async fn prepare(&self, stop: CancellationToken) -> Result<(LoadRequest, Share, Surroundings), (String, LoadError)> {
        let named =
            |inputs: &str, error: anyhow::Error| (inputs.to_owned(), LoadError::new(reason::INVALID, format!("{error:#}")));
        let asked = self.request.as_deref().map(read_request).transpose().map_err(|error| named("", error))?;
        let inputs = asked.as_ref().map_or("", |request| request.inputs.as_str());
        let share = self.share().map_err(|error| named(inputs, error))?;
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
        Ok((request, share, around))
    }

    fn share(&self) -> anyhow::Result<Share> {
        if let Some(index) = self.shard_index {
            ensure!(index < self.shards, "--shard-index {index} is not below --shards {}", self.shards);
        }
        let number = |number: u32| usize::try_from(number).context("a number of workers");
        Ok(Share { index: self.shard_index.map(number).transpose()?, workers: number(self.shards)? })
    }

    fn tell(&self, outcome: &ImportOutcome) -> anyhow::Result<()> {
        self.worker.write_termination(|| bounded(outcome))?;
        let mut out = std::io::stdout().lock();
        match (self.worker.output, outcome) {
            (Output::Json, outcome) => writeln!(out, "{}", serde_json::to_string(outcome)?)?,
            (Output::Text, ImportOutcome::Complete { dataset, .. }) => describe(&mut out, dataset)?,
            (Output::Text, ImportOutcome::Shards { shards, .. }) => writeln!(out, "complete: {shards} shards of this worker")?,
            (Output::Text, ImportOutcome::Failed { reason, message, .. }) => {
                writeln!(std::io::stderr(), "error: {message} ({reason})")?
            }
        }
        Ok(())
    }
}

/// What a person wants to know of a data set.
fn describe(out: &mut impl Write, dataset: &ImportedDataset) -> std::io::Result<()> {
    let rows = dataset.rows.map(|rows| format!("{rows} rows, ")).unwrap_or_default();
    writeln!(out, "complete: {rows}{} files, {}, revision {}", dataset.files, human(dataset.bytes), dataset.revision)?;
    for split in &dataset.splits {
        let rows = split.rows.map(|rows| format!("{rows} rows, ")).unwrap_or_default();
        writeln!(out, "split {}: {rows}{}", split.name, human(split.bytes))?;
    }
    if !dataset.schema.is_empty() {
        let columns: Vec<_> = dataset.schema.iter().map(|column| format!("{} ({})", column.name, column.kind)).collect();
        writeln!(out, "columns: {}", columns.join(", "))?;
    }
    if let Some(license) = &dataset.license {
        writeln!(out, "license: {license}")?;
    }
    if let Some(partial) = &dataset.partial {
        writeln!(out, "partial: {partial}")?;
    }
    dataset.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

fn read_request(file: &Path) -> anyhow::Result<LoadRequest> {
    let text = std::fs::read(file).with_context(|| format!("cannot read the request {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("the request {} is no request of this version", file.display()))
}

fn exit_code(outcome: &ImportOutcome) -> ExitCode {
    match outcome {
        ImportOutcome::Complete { .. } | ImportOutcome::Shards { .. } => ExitCode::SUCCESS,
        ImportOutcome::Failed { reason, .. } if LoadError::reason_is_final(reason) => ExitCode::from(EXIT_FINAL),
        ImportOutcome::Failed { .. } => ExitCode::FAILURE,
    }
}
