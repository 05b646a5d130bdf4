//! `substratus stage`: an artifact out of a bucket into a folder, before a container that reads files starts. Many files and many
//! ranges at the same time, verified by the manifest where there is one, and gone on with when it was interrupted. Knows no
//! plugin; every file is fetched by a signed URL or with a token, by the same code that fetches from a hub.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Args;
use futures::future::BoxFuture;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::args::{self, RunArgs};
use super::by_hand::place;
use super::counters::Counters;
use super::egress::Egress;
use super::failure::LoadError;
use super::journal::{Journal, unhex};
use super::load::{clear, interrupted, keep_flushing};
use super::manifest::{self, Manifest};
use super::plan::{MAX_FILES, Origin, Plan, PlanFile, check_paths};
use super::progress::Reporter;
use super::report::{self, Outcome};
use super::secrets::Secrets;
use super::transfer::{Refresh, Transfer};
use crate::bucket::object::ObjectSink;
use crate::bucket::raw::Address;
use crate::bucket::{BucketUrl, Environment, Sink};

/// How long a signed URL can be used. One that the credentials do not outlive ends earlier, and is signed anew.
const VALID: Duration = Duration::from_hours(1);

const AFTER: &str = "\
Examples:
  substratus stage s3://bucket/model --to model
      the files below s3://bucket/model/artifacts, as model/artifacts/…

What the tools of a cloud read from the environment says how the bucket is reached: AWS_ENDPOINT_URL, AWS_REGION,
AWS_ACCESS_KEY_ID, …. Plain http needs AWS_ALLOW_HTTP=true. A stage that was interrupted goes on where it stopped when it is run
again; one that is complete does nothing.";

/// Copy an artifact from a bucket into a folder, verified
#[derive(Debug, Args)]
#[command(after_long_help = report::help(AFTER))]
pub struct StageArgs {
    /// Bucket to copy from: `s3://BUCKET/PATH`, `gs://` or `az://`
    #[arg(value_name = "URL")]
    from: BucketUrl,
    /// Folder to copy into: the files go below DIR/artifacts
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Take an artifact that is not there for an empty one
    #[arg(long)]
    or_empty: bool,
    #[command(flatten)]
    run: RunArgs,
}

impl StageArgs {
    /// Stages; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.run.start_log()?;
        // Whoever shares the folder may write to it: a pod's containers have a group in common, and it is the folder's.
        rustix::process::umask(rustix::fs::Mode::WOTH);
        let stop = CancellationToken::new();
        args::end_on_signal(stop.clone())?;
        let env = self.run.effort.environment();
        let outcome = stage(&self, &env, &stop).await;
        self.run.tell(&outcome, "staged")?;
        Ok(outcome.exit_code().into())
    }
}

/// Copies the artifact, and says how that ended.
async fn stage(wanted: &StageArgs, env: &Environment, stop: &CancellationToken) -> Outcome {
    let mut inputs = String::new();
    match run(wanted, env, stop, &mut inputs).await {
        Ok(source) => Outcome::Complete { inputs, source, reused: 0 },
        Err(error) => Outcome::failed(inputs, error),
    }
}

async fn run(
    wanted: &StageArgs,
    env: &Environment,
    stop: &CancellationToken,
    inputs: &mut String,
) -> Result<SourceStatus, LoadError> {
    let StageArgs { from, to, .. } = wanted;
    let effort = wanted.run.effort.effort(env)?;
    let Sink::Object(bucket) = Sink::connect(from, env).await? else {
        return Err(LoadError::new(reason::UNSUPPORTED, format!("`{from}` is a folder already; nothing has to be staged")));
    };
    let plan = plan(&bucket, from, wanted.or_empty, inputs).await?;
    let invalid = |error: anyhow::Error| LoadError::new(reason::INVALID, format!("{error:#}"));
    let sink = Sink::open(&place(to).map_err(invalid)?).await?;
    if let Some(there) = Manifest::read(sink.records()).await? {
        if there.inputs == *inputs && there.revision == plan.revision && there.holds(&sink).await? {
            tracing::info!(revision = there.revision, "the artifact is staged already");
            return Ok(there.source);
        }
        Journal::adopt(sink.records(), &there).await?;
        sink.records().remove(manifest::MANIFEST).await?;
    }
    let signed = Signed { bucket };
    let egress = Egress::through(&effort.network, &signed.host(&plan).await?, Secrets::default(), effort.patience)?;
    let counters = Arc::new(Counters::default());
    let _reporter = Reporter::start(Arc::clone(&counters), inputs.clone(), None);
    let (journal, left) = Journal::open(sink.records(), inputs, &plan).await?;
    clear(&sink, &journal, left).await?;
    counters.expect(plan.files.len() as u64, u64::try_from(plan.source.bytes).unwrap_or(0));
    let transfer = Arc::new(Transfer::new(egress, sink.clone(), journal, counters, Arc::new(signed), effort.tuning));
    let result = tokio::select! {
        result = Arc::clone(&transfer).run(&plan) => result,
        error = keep_flushing(&transfer) => Err(error),
        () = stop.cancelled() => Err(interrupted()),
    };
    transfer.journal.flush().await?;
    let verified = result?;
    // No wait for the disk: what is staged lives as long as its pod, and so does the node's memory.
    manifest::write(&sink, inputs, &plan, &plan.source, &verified).await?;
    transfer.journal.close().await?;
    Ok(plan.source)
}

/// What is to be copied: by the manifest, else what lies there.
async fn plan(bucket: &ObjectSink, from: &BucketUrl, or_empty: bool, inputs: &mut String) -> Result<Plan, LoadError> {
    let manifest = Manifest::read(bucket.records()).await?;
    let nowhere = Url::parse("unsigned:/").map_err(|error| LoadError::new(reason::JOB_FAILED, error.to_string()))?;
    let files: Vec<PlanFile> = match &manifest {
        Some(manifest) => {
            manifest.files.iter().map(|file| planned(&nowhere, &file.path, file.size, unhex(&file.sha256))).collect()
        }
        None => bucket.files().iter().map(|(path, size)| planned(&nowhere, path, *size, None)).collect(),
    };
    if files.is_empty() && manifest.is_none() && !or_empty {
        return Err(LoadError::new(reason::NOT_FOUND, format!("there is no artifact at `{from}`; check the URL")));
    }
    if files.len() > MAX_FILES {
        return Err(LoadError::new(reason::TOO_LARGE, format!("`{from}` has more than {MAX_FILES} files")));
    }
    check_paths(files.iter().map(|file| file.path.as_str()))
        .map_err(|error| LoadError::new(reason::REFUSED, format!("`{from}`: {error}")))?;
    let bytes = files.iter().filter_map(|file| file.size).fold(0, u64::saturating_add);
    let revision = manifest.as_ref().map_or_else(|| listed(&files), |manifest| manifest.revision.clone());
    let source = SourceStatus {
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        files: i64::try_from(files.len()).unwrap_or(i64::MAX),
        ..manifest.as_ref().map(|manifest| manifest.source.clone()).unwrap_or_default()
    };
    *inputs = manifest.map_or_else(|| from.to_string(), |manifest| manifest.inputs);
    Ok(Plan { revision, files, source, ..Plan::default() })
}

/// Signed when it is its turn: a million signed URLs need more memory than all else.
fn planned(nowhere: &Url, path: &str, size: u64, sha256: Option<[u8; 32]>) -> PlanFile {
    let origin = Origin { url: nowhere.clone(), headers: HeaderMap::new(), auth: None, expires: Some(0) };
    PlanFile { path: path.to_owned(), size: Some(size), sha256, gitoid: None, origin }
}

/// Names and sizes stand for a revision where nothing else does.
fn listed(files: &[PlanFile]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.path.as_bytes());
        hash.update([0]);
        hash.update(file.size.unwrap_or(0).to_be_bytes());
    }
    format!("listed-{}", hex::encode(hash.finalize()))
}

/// Knows how the bucket's files are read.
struct Signed {
    bucket: Arc<ObjectSink>,
}

impl Signed {
    async fn sign(&self, path: &str) -> Result<Origin, LoadError> {
        let Address { url, headers, valid } = self.bucket.address(path, VALID).await?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Origin { url, headers, auth: None, expires: Some(now + valid.as_secs()) })
    }

    /// The one host that is asked, as a grant names it.
    async fn host(&self, plan: &Plan) -> Result<Vec<String>, LoadError> {
        let Some(file) = plan.files.first() else { return Ok(Vec::new()) };
        Ok(vec![self.sign(&file.path).await?.url.origin().ascii_serialization()])
    }
}

impl Refresh for Signed {
    fn refresh<'a>(&'a self, file: &'a PlanFile) -> BoxFuture<'a, Result<Origin, LoadError>> {
        Box::pin(self.sign(&file.path))
    }
}
