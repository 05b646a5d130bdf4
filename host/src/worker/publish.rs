//! `substratus publish`: a folder into a bucket, once the container that writes it has ended. Many files and many parts at the
//! same time, hashed in the same pass, and the manifest as the last write. Knows no plugin and no cluster.
//!
//! As a sidecar it waits for SIGTERM: Kubernetes sends it to sidecars after the last other container has ended, however it ended.
//! Whether that container did its work is for others to say; this one says, in its termination message, what lies in the bucket.
//! Killed before it has said so, it leaves no manifest, and nothing counts.

pub(super) mod tree;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;

use self::tree::Found;
use super::args::{self, RunArgs};
use super::counters::Counters;
use super::failure::LoadError;
use super::journal::{Journal, Leftovers};
use super::load::{clear, interrupted};
use super::manifest::{self, MANIFEST};
use super::plan::PlanFile;
use super::progress::Reporter;
use super::report::{self, Outcome};
use super::verify::{Hashing, Verifier};
use crate::bucket::sink::Verified;
use crate::bucket::{BucketUrl, Environment, Sink, SinkError};

/// Files at the same time.
const FILES: usize = 8;
/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;

const AFTER: &str = "\
Examples:
  substratus publish model --to s3://bucket/model
      every file below model, as s3://bucket/model/artifacts/…; what else lies there is removed
  substratus publish /content/artifacts --to s3://bucket/model --after-signal
      the same as a sidecar: waits for SIGTERM, which Kubernetes sends once the other containers have ended; the grace period of
      the pod is how long it may take

What the tools of a cloud read from the environment says how the bucket is reached: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, …. Plain http needs AWS_ALLOW_HTTP=true. Complete is what has .substratus/manifest.json, which is written last.";

/// Copy a folder into a bucket, the manifest last
#[derive(Debug, Args)]
#[command(after_long_help = report::help(AFTER))]
pub struct PublishArgs {
    /// Folder to copy
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// Bucket to copy into: `s3://BUCKET/PATH`, `gs://` or `az://`; the files go below PATH/artifacts
    #[arg(long, value_name = "URL")]
    to: BucketUrl,
    /// Wait for SIGTERM first
    #[arg(long)]
    after_signal: bool,
    /// Publish so often while it waits, too: what changed since
    #[arg(long, value_name = "SECONDS", requires = "after_signal", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: Option<u64>,
    /// What the outcome and the manifest say they belong to
    #[arg(long, value_name = "TEXT", default_value = "by-hand")]
    inputs: String,
    #[command(flatten)]
    run: RunArgs,
}

impl PublishArgs {
    /// Publishes; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.run.start_log()?;
        let told = CancellationToken::new();
        args::end_on_signal(told.clone())?;
        let env = self.run.effort.environment();
        let mut before = Before::default();
        let stop = if self.after_signal {
            tracing::info!("waiting until the other containers have ended");
            self.wait(&told, &env, &mut before).await;
            CancellationToken::new()
        } else {
            told
        };
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err(interrupted()),
            result = folder(&self.from, &self.to, (&self.inputs, None), &env, &mut before) => result,
        };
        let outcome = match result {
            Ok(source) => Outcome::Complete { inputs: self.inputs, source, reused: 0 },
            Err(error) => Outcome::failed(self.inputs, error),
        };
        self.run.tell(&outcome, "published")?;
        Ok(outcome.exit_code().into())
    }

    /// Waits to be told to end; a turn that is under way is finished.
    async fn wait(&self, told: &CancellationToken, env: &Environment, before: &mut Before) {
        let Some(every) = self.every else { return told.cancelled().await };
        while tokio::time::timeout(Duration::from_secs(every), told.cancelled()).await.is_err() {
            // What is written to at this moment comes with the next turn.
            match folder(&self.from, &self.to, (&self.inputs, None), env, before).await {
                Ok(source) => tracing::info!(files = source.files, "published so far"),
                Err(error) => tracing::warn!(error = error.message, "the next turn tries again"),
            }
        }
    }
}

/// The files of an earlier turn, with what they were: what is still the same lies in the bucket.
#[derive(Default)]
pub(super) struct Before(HashMap<String, (String, Verified)>);

impl Before {
    fn same(&self, found: &Found) -> Option<Verified> {
        self.0
            .get(&found.path)
            .filter(|(stamp, verified)| *stamp == found.stamp && verified.size == found.size)
            .map(|known| known.1)
    }
}

/// Copies the folder `from` to the artifact `to`. `known` is what the artifact is made from, and what is known of it besides.
pub(super) async fn folder(
    from: &Path,
    to: &BucketUrl,
    known: (&str, Option<SourceStatus>),
    env: &Environment,
    before: &mut Before,
) -> Result<SourceStatus, LoadError> {
    let (inputs, source) = known;
    let found = tree::find(from)?;
    let mut plan = tree::plan(&found, from)?;
    if let Some(source) = source {
        let warnings = source.warnings.iter().chain(&plan.source.warnings).cloned().collect();
        plan.source = SourceStatus { bytes: plan.source.bytes, files: plan.source.files, warnings, ..source };
    }
    let Sink::Object(bucket) = Sink::connect(to, env).await? else {
        return Err(LoadError::new(reason::UNSUPPORTED, format!("`{to}` is a folder; nothing has to be published to it")));
    };
    let sink = Sink::Object(Arc::clone(&bucket));
    // From here on the artifact is not complete, whatever lay there.
    sink.records().remove(MANIFEST).await?;
    let (journal, left) = Journal::open(sink.records(), inputs, &plan).await?;
    let planned: std::collections::HashSet<&str> = plan.files.iter().map(|file| file.path.as_str()).collect();
    let others = bucket.files().into_iter().map(|(path, _)| path).filter(|path| !planned.contains(path.as_str()));
    clear(&sink, &journal, Leftovers { paths: others.collect(), ..left }).await?;
    let counters = Arc::new(Counters::default());
    counters.expect(plan.files.len() as u64, u64::try_from(plan.source.bytes).unwrap_or(0));
    let _reporter = Reporter::start(Arc::clone(&counters), inputs.to_owned(), None);
    let work = Work { sink: &sink, journal: &journal, counters: &counters, before };
    let files = stream::iter(found.files.iter().zip(&plan.files)).map(|(found, file)| work.file(found, file));
    let verified: Vec<Verified> = tokio::select! {
        verified = files.buffered(FILES).try_collect() => verified,
        error = keep_flushing(&journal) => Err(error),
    }?;
    sink.settle().await?;
    manifest::write(&sink, inputs, &plan, &plan.source, &verified).await?;
    journal.close().await?;
    let now = found.files.into_iter().zip(verified).map(|(found, verified)| (found.path, (found.stamp, verified)));
    before.0 = now.collect();
    Ok(plan.source)
}

/// Ends with an error only.
async fn keep_flushing(journal: &Journal) -> LoadError {
    loop {
        tokio::time::sleep(journal.pace()).await;
        if let Err(error) = journal.flush().await {
            return error.into();
        }
    }
}

/// What the files share.
struct Work<'a> {
    sink: &'a Sink,
    journal: &'a Journal,
    counters: &'a Counters,
    before: &'a Before,
}

impl Work<'_> {
    async fn file(&self, found: &Found, file: &PlanFile) -> Result<Verified, LoadError> {
        if let Some(verified) = self.before.same(found).or_else(|| self.journal.finished(file))
            && self.sink.finished(&file.path).await? == Some(verified.size)
        {
            self.counters.found(verified.size);
            self.counters.file();
            return Ok(verified);
        }
        let to = self.sink.create(&file.path, file.size, self.journal.held(&file.path)).await?;
        let hash = Verifier::start(to.clone(), Hashing::default());
        let done = self.journal.begin(&file.path, found.size, None, to.record());
        if to.piece().is_some_and(|piece| found.size > piece) {
            // Nobody could give up an upload that no record speaks of.
            self.journal.flush().await?;
        }
        self.counters.found(done.len());
        let front = hash.front();
        front.is_at(done.front());
        let from = File::open(&found.place).map_err(SinkError::io("open", &file.path))?;
        for range in done.missing(found.size, to.piece().unwrap_or(crate::bucket::upload::PIECE)) {
            to.reserve(&range).await?;
            let mut at = range.start;
            let mut block = vec![0; BLOCK];
            while at < range.end {
                let wanted = usize::try_from(range.end - at).map_or(BLOCK, |left| left.min(BLOCK));
                let read = from.read_at(block.get_mut(..wanted).unwrap_or_default(), at);
                let bytes = match read {
                    Ok(0) => {
                        return Err(LoadError::unavailable(format!("`{}` became shorter while it was published", file.path)));
                    }
                    Ok(read) => block.get(..read).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(SinkError::io("read", &file.path)(error).into()),
                };
                to.write_at(at, bytes).await?;
                let written = at..at + bytes.len() as u64;
                at = written.end;
                self.counters.arrived(bytes.len() as u64);
                front.is_at(self.journal.wrote(&file.path, written));
            }
        }
        drop(front);
        let verified = hash.finish(found.size).await?.verified;
        to.finish(verified).await?;
        self.journal.finish(&file.path, verified)?;
        self.counters.file();
        tracing::info!(path = %file.path, bytes = verified.size, "file published");
        Ok(verified)
    }
}
