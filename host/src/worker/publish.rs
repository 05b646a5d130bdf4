//! `substratus publish`: a folder into a bucket, once the container that writes it has ended. Many files and many parts at the
//! same time, hashed in the same pass, and the manifest as the last write. Knows no plugin and no cluster.
//!
//! As a sidecar it waits for SIGTERM: Kubernetes sends it to sidecars after the last other container has ended, however it ended.
//! Whether that container did its work is for others to say; this one says, in its termination message, what lies in the bucket.
//! Killed before it has said so, it leaves no manifest, and nothing counts.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use http::HeaderMap;
use sha2::{Digest, Sha256};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::args::{self, RunArgs};
use super::counters::Counters;
use super::failure::LoadError;
use super::journal::{Journal, Leftovers};
use super::load::{clear, interrupted};
use super::manifest::{self, MANIFEST};
use super::plan::{MAX_FILES, Origin, Plan, PlanFile, check_paths};
use super::progress::Reporter;
use super::report::Outcome;
use super::verify::Verifier;
use crate::bucket::sink::Verified;
use crate::bucket::{BucketUrl, Environment, Sink, SinkError};

/// Files at the same time.
const FILES: usize = 8;
/// Bytes read at once.
const BLOCK: usize = 1024 * 1024;
/// Most warnings that are kept.
const MAX_WARNINGS: usize = 20;

const AFTER: &str = "\
Examples:
  substratus publish model --to s3://bucket/model
      every file below model, as s3://bucket/model/artifacts/…; what else lies there is removed
  substratus publish /content/artifacts --to s3://bucket/model --after-signal
      the same as a sidecar: waits for SIGTERM, which Kubernetes sends once the other containers have ended; the grace period of
      the pod is how long it may take

What the tools of a cloud read from the environment says how the bucket is reached: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, …. Plain http needs AWS_ALLOW_HTTP=true. Complete is what has .substratus/manifest.json, which is written last.

Exit codes: 0 complete; 1 may work when run again; 64 somebody has to change something first.";

/// Copy a folder into a bucket, the manifest last
#[derive(Debug, Args)]
#[command(after_long_help = AFTER)]
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
        let stop = if self.after_signal {
            tracing::info!("waiting until the other containers have ended");
            told.cancelled().await;
            CancellationToken::new()
        } else {
            told
        };
        let env: Vec<_> = std::env::vars_os().collect();
        let outcome = publish(&self.from, &self.to, &self.inputs, &env, &stop).await;
        self.run.tell(&outcome, "published")?;
        Ok(outcome.exit_code())
    }
}

/// Copies the folder `from` to the artifact `to`, and says how that ended.
pub async fn publish(from: &Path, to: &BucketUrl, inputs: &str, env: &Environment, stop: &CancellationToken) -> Outcome {
    let result = tokio::select! {
        biased;
        () = stop.cancelled() => Err(interrupted()),
        result = folder(from, to, inputs, None, env) => result,
    };
    match result {
        Ok(source) => Outcome::Complete { inputs: inputs.to_owned(), source, reused: 0 },
        Err(error) => Outcome::failed(inputs.to_owned(), error),
    }
}

/// The same, and what went wrong. `source` says what is known of the files besides.
pub(super) async fn folder(
    from: &Path,
    to: &BucketUrl,
    inputs: &str,
    source: Option<SourceStatus>,
    env: &Environment,
) -> Result<SourceStatus, LoadError> {
    let found = find(from)?;
    let mut plan = plan(&found, from)?;
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
    clear(&sink, Leftovers { paths: others.collect(), ..left }).await?;
    let counters = Arc::new(Counters::default());
    counters.expect(plan.files.len() as u64, u64::try_from(plan.source.bytes).unwrap_or(0));
    let _reporter = Reporter::start(Arc::clone(&counters), inputs.to_owned(), None);
    let work = Work { sink: &sink, journal: &journal, counters: &counters };
    let files = stream::iter(found.files.iter().zip(&plan.files)).map(|(found, file)| work.file(found, file));
    let verified: Vec<Verified> = tokio::select! {
        verified = files.buffered(FILES).try_collect() => verified,
        error = keep_flushing(&journal) => Err(error),
    }?;
    manifest::write(&sink, inputs, &plan, &plan.source, &verified).await?;
    journal.close().await?;
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
}

impl Work<'_> {
    async fn file(&self, found: &Found, file: &PlanFile) -> Result<Verified, LoadError> {
        if let Some(verified) = self.journal.finished(file)
            && self.sink.finished(&file.path).await? == Some(verified.size)
        {
            self.counters.found(verified.size);
            self.counters.file();
            return Ok(verified);
        }
        let to = self.sink.create(&file.path, file.size, self.journal.held(&file.path)).await?;
        let hash = Verifier::start(to.clone());
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
        let verified = hash.finish(found.size).await?;
        to.finish(verified).await?;
        self.journal.finish(&file.path, verified)?;
        self.counters.file();
        tracing::info!(path = %file.path, bytes = verified.size, "file published");
        Ok(verified)
    }
}

/// A file that was written, and where.
struct Found {
    path: String,
    place: PathBuf,
    size: u64,
    /// Changes when the file does.
    stamp: String,
}

/// The files of a folder, in order of their paths.
#[derive(Default)]
struct Tree {
    files: Vec<Found>,
    warnings: Vec<String>,
}

impl Tree {
    fn warn(&mut self, path: &str, why: &str) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(format!("`{path}` is not published: {why}"));
        }
    }

    /// What a link leads to counts where it is a file below `root`: whoever wrote the folder must not choose files of ours.
    fn add(&mut self, root: &Path, path: String, place: &Path) -> io::Result<()> {
        let real = match place.canonicalize() {
            Ok(real) if real.starts_with(root) => real,
            Ok(_) => {
                self.warn(&path, "it is a link that leads out of the folder");
                return Ok(());
            }
            Err(_) => {
                self.warn(&path, "it is a link that leads nowhere");
                return Ok(());
            }
        };
        let metadata = fs::metadata(&real)?;
        if !metadata.is_file() {
            self.warn(&path, "it is neither a file nor a folder");
            return Ok(());
        }
        let stamp = format!("{}.{}.{}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        self.files.push(Found { path, place: real, size: metadata.len(), stamp });
        Ok(())
    }

    fn walk(&mut self, root: &Path) -> io::Result<()> {
        let mut folders = vec![(root.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    self.warn(&format!("{prefix}{}", name.to_string_lossy()), "its name is no UTF-8");
                    continue;
                };
                let path = format!("{prefix}{name}");
                if entry.file_type()?.is_dir() {
                    folders.push((entry.path(), format!("{path}/")));
                } else {
                    self.add(root, path, &entry.path())?;
                }
            }
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }
}

fn find(from: &Path) -> Result<Tree, LoadError> {
    let name = from.display().to_string();
    let root = from.canonicalize().map_err(SinkError::io("open folder", &name))?;
    let mut tree = Tree::default();
    tree.walk(&root).map_err(SinkError::io("look into", &name))?;
    Ok(tree)
}

fn plan(found: &Tree, from: &Path) -> Result<Plan, LoadError> {
    if found.files.len() > MAX_FILES {
        let message = format!("`{}` has more than {MAX_FILES} files; pack them together", from.display());
        return Err(LoadError::new(reason::TOO_LARGE, message));
    }
    check_paths(found.files.iter().map(|file| file.path.as_str()))
        .map_err(|error| LoadError::new(reason::REFUSED, format!("`{}`: {error}", from.display())))?;
    let here = Url::parse("file:///").map_err(|error| LoadError::new(reason::JOB_FAILED, error.to_string()))?;
    let mut revision = Sha256::new();
    let mut files = Vec::with_capacity(found.files.len());
    for Found { path, size, stamp, .. } in &found.files {
        revision.update(format!("{path}\0{size}\0{stamp}\n"));
        let origin = Origin { url: here.clone(), headers: HeaderMap::new(), auth: None, expires: None };
        files.push(PlanFile { path: path.clone(), size: Some(*size), sha256: None, origin });
    }
    let bytes = found.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let source = SourceStatus {
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        files: i64::try_from(files.len()).unwrap_or(i64::MAX),
        warnings: found.warnings.clone(),
        ..SourceStatus::default()
    };
    Ok(Plan { revision: format!("written-{}", hex::encode(revision.finalize())), files, source })
}
