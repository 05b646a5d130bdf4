//! A load from request to manifest: the order of steps, and nothing of how each works.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::beside::Beside;
use super::counters::Counters;
use super::egress::{Egress, Patience};
use super::failure::LoadError;
use super::journal::{Journal, Leftovers};
use super::manifest::{self, MANIFEST, Manifest};
use super::network::Network;
use super::oci::login::{Accounts, Logins};
use super::plan::Plan;
use super::progress::{Reporter, Store};
use super::report::Outcome;
use super::request::LoadRequest;
use super::resolve::Loader;
use super::reuse;
use super::secrets::Secrets;
use super::transfer::{Transfer, Tuning};
use crate::bucket::{BucketUrl, Sink, SinkError};
use crate::plugin::Plugins;

/// Files of a plan that are listed in the log; the manifest lists all of them.
const LISTED: usize = 1000;

/// What a load needs beside its request.
pub struct Surroundings {
    /// Knows the loader by its digest.
    pub plugins: Plugins,
    /// The process's environment; only variables that the grant names are looked at.
    pub env: Vec<(OsString, OsString)>,
    /// Artifacts whose files are taken over where a digest of the plan is among theirs.
    pub reuse: Vec<BucketUrl>,
    /// Where progress is reported to.
    pub progress: Option<(Store, Url)>,
    /// How hard to try, and by which way.
    pub effort: Effort,
    /// Ends the load early; what is there stays for the next run.
    pub stop: CancellationToken,
}

/// How hard to try, and by which way.
#[derive(Clone, Debug, Default)]
pub struct Effort {
    /// How often to ask.
    pub tuning: Tuning,
    /// How long to wait.
    pub patience: Patience,
    /// Certificates and proxies.
    pub network: Network,
    /// Who we are at registries.
    pub accounts: Accounts,
}

impl Effort {
    /// The way out for `request`, with credentials from `env`.
    pub(super) fn egress(
        &self,
        request: &LoadRequest,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Egress, LoadError> {
        let secrets =
            Secrets::from_env(&request.grant, env).map_err(|error| LoadError::new(reason::INVALID, error.to_string()))?;
        let logins = Logins::to_pull(&request.grant, self.accounts.clone())?;
        Ok(Egress::through(&self.network, &request.grant.hosts, secrets, self.patience)?.with_logins(logins))
    }
}

/// What a load would fetch: the loader's plan, checked, and no byte of a file. Credentials come from `env`. Whoever asks for
/// `access` gets a plan that may not be fetched too, and is told so in it.
pub async fn look(
    plugins: &Plugins,
    request: &LoadRequest,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    effort: &Effort,
    access: bool,
) -> Result<Plan, LoadError> {
    let loader = Loader::new(plugins.clone(), request, effort.egress(request, env)?, effort.tuning);
    let (plan, _) = if access { loader.only_looking() } else { loader }.resolve().await?;
    Ok(plan)
}

/// Runs a load and says how it ended.
pub async fn load(request: &LoadRequest, around: Surroundings) -> Outcome {
    match run(request, around).await {
        Ok((source, reused)) => Outcome::Complete { inputs: request.inputs.clone(), source, reused },
        Err(error) => Outcome::failed(request.inputs.clone(), error),
    }
}

/// What was loaded, and how many bytes of it were taken over.
async fn run(request: &LoadRequest, around: Surroundings) -> Result<(SourceStatus, u64), LoadError> {
    let target: BucketUrl = request.target.parse().map_err(|error| LoadError::new(reason::INVALID, format!("{error}")))?;
    let sink = Sink::connect(&target, &around.env).await?;
    if let Some(manifest) = Manifest::read(sink.records()).await? {
        if manifest.inputs == request.inputs && manifest.holds(&sink).await? {
            tracing::info!(revision = manifest.revision, "the artifact is complete already");
            return Ok((manifest.source, 0));
        }
        set_aside(&sink, &manifest).await?;
    }
    let egress = around.effort.egress(request, around.env.clone())?;
    let tuning = around.effort.tuning;
    let loader = Loader::new(around.plugins, request, egress.clone(), tuning);
    let counters = Arc::new(Counters::default());
    let _reporter = Reporter::start(Arc::clone(&counters), request.inputs.clone(), around.progress);
    let work = async {
        let (plan, loader) = loader.resolve().await?;
        tracing::info!(revision = plan.revision, files = plan.files.len(), bytes = plan.source.bytes, "the plan is made");
        for file in plan.files.iter().take(LISTED) {
            let sha256 = file.sha256.map(hex::encode);
            tracing::info!(path = %file.path, bytes = file.size, sha256, "planned");
        }
        let (journal, left) = Journal::open(sink.records(), &request.inputs, &plan).await?;
        clear(&sink, &journal, left).await?;
        counters.expect(plan.files.len() as u64, u64::try_from(plan.source.bytes).unwrap_or(0));
        let mut transfer = Transfer::new(egress, sink, journal, counters, Arc::new(loader), tuning);
        let others: Vec<_> = around.reuse.into_iter().filter(|place| *place != target).take(reuse::MAX_PLACES).collect();
        transfer.taken = reuse::take_over(&transfer, &plan, &others, &around.env, &around.stop).await?;
        if !others.is_empty() {
            let stall = around.effort.patience.stall;
            transfer.beside = Some(Beside::new(others, around.env, stall, around.stop.clone()));
        }
        let transfer = Arc::new(transfer);
        let source = fetch(request, &plan, &transfer, &around.stop).await?;
        Ok((source, transfer.counters.snapshot().reused))
    };
    tokio::select! {
        biased;
        result = work => result,
        () = stopped_for_good(&around.stop) => Err(interrupted()),
    }
}

/// The files of an earlier load may be what this one needs: they become finished files of an unfinished load.
async fn set_aside(sink: &Sink, manifest: &Manifest) -> Result<(), LoadError> {
    Journal::adopt(sink.records(), manifest).await?;
    Ok(sink.records().remove(MANIFEST).await?)
}

/// Removes what earlier runs left and nobody goes on with, their records or none speaking of it.
pub(super) async fn clear(sink: &Sink, journal: &Journal, left: Leftovers) -> Result<(), SinkError> {
    for (path, upload) in left.uploads {
        sink.abort(&path, &upload).await?;
    }
    if let Sink::Object(sink) = sink {
        sink.give_up_others(&journal.uploads()).await;
    }
    for path in left.paths {
        sink.remove(&path).await?;
    }
    Ok(())
}

/// Every file, and the manifest as the last write.
async fn fetch(
    request: &LoadRequest,
    plan: &Plan,
    transfer: &Arc<Transfer>,
    stop: &CancellationToken,
) -> Result<SourceStatus, LoadError> {
    let result = tokio::select! {
        result = Arc::clone(transfer).run(plan) => result,
        error = keep_flushing(transfer) => Err(error),
        () = stop.cancelled() => Err(interrupted()),
    };
    transfer.journal.flush().await?;
    let verified = result?;
    let bytes = verified.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let source = SourceStatus { bytes: i64::try_from(bytes).unwrap_or(i64::MAX), ..plan.source.clone() };
    transfer.sink.settle().await?;
    manifest::write(&transfer.sink, &request.inputs, plan, &source, &verified).await?;
    transfer.journal.close().await?;
    Ok(source)
}

/// Ends with an error only.
pub(super) async fn keep_flushing(transfer: &Arc<Transfer>) -> LoadError {
    // A killed load fetches again what came after the last time.
    loop {
        tokio::time::sleep(transfer.journal.pace()).await;
        if let Err(error) = transfer.journal.flush().await {
            return error.into();
        }
    }
}

/// A transfer that is told to stop flushes first; a load that stops before has nothing to flush.
pub(super) async fn stopped_for_good(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
}

pub(super) fn interrupted() -> LoadError {
    LoadError::unavailable("the load was interrupted; the next run goes on where it stopped")
}
