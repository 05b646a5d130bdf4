//! `substratus push`: an artifact into an OCI registry, in the layout of `ModelPack`. What the registry has is not sent again, and the
//! manifest is the last request: killed at any moment, a push leaves blobs that nobody speaks of, and nothing that counts. Knows no
//! plugin and no cluster.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::allow::AllowList;
use super::args::{self, Output, RunArgs};
use super::by_hand::rights::with_scheme;
use super::counters::Counters;
use super::egress::{Egress, Patience};
use super::failure::LoadError;
use super::journal::unhex;
use super::load::{Effort, interrupted};
use super::manifest::{MANIFEST, Manifest};
use super::oci::blob::{Content, PIECE, Sender};
use super::oci::layout::{self, Layer, Packed};
use super::oci::login::{Accounts, Logins};
use super::oci::reference::OciUrl;
use super::oci::registry::{Registry, USE};
use super::plan::{MAX_FILES, check_paths};
use super::progress::{Reporter, Store, human};
use super::publish::tree;
use super::report::{self, Outcome};
use super::secrets::Secrets;
use crate::bucket::{BucketUrl, Environment, SinkError, Source};
use crate::plugin::cli::RegistryArgs;

/// Files at the same time, as far as their pieces find room.
const FILES: usize = 16;
/// MiB of pieces in memory at the same time.
const ROOM: u32 = 64;
/// Files that are hashed at the same time, where no record says their digests.
const HASHED: usize = 2;
/// Bytes read at once for that.
const BLOCK: usize = 1024 * 1024;
const MIB: u64 = 1024 * 1024;
const A_DAY: Duration = Duration::from_hours(24);

const AFTER: &str = "\
Examples:
  substratus push model --to oci://registry.example/team/model:v1
      what `substratus load … --to model` left there, under this tag
  docker login ghcr.io && substratus push checkpoint --to oci://ghcr.io/team/tuned:2026-11
      any folder of files, with the account that docker keeps
  substratus push model --to oci://registry.example/team/model --grant auth.example
      with a registry whose tokens come from another host

One layer holds one file as it is, so a file that the registry has is not sent again; the same artifact gets the same digest. A push that was interrupted goes on with what lacks when it is run again, and one that is complete does nothing.
`substratus load oci://…` brings the model back, and so do `oras pull` and `modctl pull`.";

/// Push an artifact to an OCI registry, the manifest last
#[derive(Debug, Args)]
#[command(after_long_help = report::help(AFTER))]
pub struct PushArgs {
    /// Folder to push: an artifact as `substratus load` leaves it, or any folder of files
    #[arg(value_name = "DIR")]
    from: PathBuf,
    /// Place to push to; without a tag it is `latest`
    #[arg(long, value_name = "oci://REGISTRY/REPOSITORY[:TAG]")]
    to: OciUrl,
    /// Host that the registry may lead to, such as the one that gives its tokens: [scheme://]HOST[:PORT]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    grant: Vec<String>,
    /// What the outcome says it belongs to
    #[arg(long, value_name = "TEXT", default_value = "by-hand")]
    inputs: String,
    /// Where progress is reported to
    #[arg(long, value_name = "URL")]
    progress_url: Option<Url>,
    /// Token for reporting progress; read anew for each request
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// What was pushed.
struct Pushed {
    source: SourceStatus,
    /// Bytes that the registry had.
    there: u64,
}

impl PushArgs {
    /// Pushes; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        self.run.start_log()?;
        let stop = CancellationToken::new();
        args::end_on_signal(stop.clone())?;
        let env = self.run.effort.environment();
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err(interrupted()),
            result = self.push(&env) => result,
        };
        let outcome = match result {
            Ok(Pushed { source, there }) => Outcome::Complete { inputs: self.inputs.clone(), source, reused: there },
            Err(error) => Outcome::failed(self.inputs.clone(), error),
        };
        self.tell(&outcome)?;
        Ok(outcome.exit_code().into())
    }

    async fn push(&self, env: &Environment) -> Result<Pushed, LoadError> {
        let tag = self.to.tag().ok_or_else(|| {
            LoadError::new(reason::INVALID, format!("{} names a digest, which is the result of a push; name a tag", self.to))
        })?;
        let registry = self.open(env)?;
        let contents = Contents::open(&self.from).await?;
        let packed = layout::pack(contents.layers.clone(), &contents.known)?;
        let counters = Arc::new(Counters::default());
        let bytes = contents.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        counters.expect(contents.layers.len() as u64, bytes);
        let store = Store::new(self.token_file.clone()).map_err(|error| LoadError::new(reason::INVALID, error.to_string()))?;
        let progress = self.progress_url.clone().map(|url| (store, url));
        let _reporter = Reporter::start(Arc::clone(&counters), self.inputs.clone(), progress);
        let there = send(&registry, &contents, &packed, tag, &counters).await?;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let source = SourceStatus {
            revision: Some(packed.digest()),
            bytes: signed(bytes),
            files: signed(contents.layers.len() as u64),
            warnings: contents.warnings,
            ..SourceStatus::default()
        };
        tracing::info!(reference = self.to.at(&packed.digest()), tag, there, "pushed");
        Ok(Pushed { source, there })
    }

    /// The registry: named, and so granted, with its account.
    fn open(&self, env: &Environment) -> Result<Registry, LoadError> {
        let effort: Effort = self.run.effort.effort(env)?;
        let invalid = |error: String| LoadError::new(reason::INVALID, error);
        let (host, repository) = (self.to.host(), self.to.repository());
        let own = self.to.origins(!self.registry.plain().0.iter().any(|plain| plain == host));
        let auth = self.registry.auth(&format!("{host}/{repository}")).map_err(|error| invalid(format!("{error:#}")))?;
        let allowed = AllowList::parse(&own).map_err(|error| invalid(error.to_string()))?;
        let logins = Logins::to_push(USE, repository, allowed, Accounts::at(host, auth));
        let hosts: Vec<String> = own.into_iter().chain(self.grant.iter().map(|host| with_scheme(host))).collect();
        // A connection is silent while it sends, and while the registry looks through what it got.
        let patience = Patience { stall: A_DAY, ..effort.patience };
        let egress = Egress::through(&effort.network, &hosts, Secrets::default(), patience)
            .map_err(|error| invalid(format!("--grant: {error}")))?;
        Registry::new(self.to.clone(), egress.with_logins(Some(logins)), (effort.tuning, effort.patience.stall))
    }

    fn tell(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let (Output::Text, Outcome::Complete { source, reused, .. }) = (self.run.output, outcome) else {
            return self.run.tell(outcome, "pushed");
        };
        self.run.write_termination(outcome)?;
        let digest = source.revision.as_deref().unwrap_or_default();
        let there = i64::try_from(*reused).ok().filter(|bytes| *bytes > 0);
        let there = there.map(|bytes| format!(", {} of them were there", human(bytes))).unwrap_or_default();
        let mut out = std::io::stdout().lock();
        writeln!(out, "pushed: {} files, {}{there}\n{}", source.files, human(source.bytes), self.to.at(digest))?;
        source.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))?;
        Ok(())
    }
}

/// Every blob that lacks, and the manifest as the last request; answers with the bytes that were there.
async fn send(
    registry: &Registry,
    contents: &Contents,
    packed: &Packed,
    tag: &str,
    counters: &Counters,
) -> Result<u64, LoadError> {
    let mut attempts = registry.attempts();
    let tagged = loop {
        match registry.tagged(tag).await {
            Ok(tagged) => break tagged,
            Err(trouble) => attempts.after(trouble).await?,
        }
    };
    if tagged.is_some_and(|tagged| tagged == packed.digest()) {
        // No registry takes a manifest before what it names.
        for layer in &contents.layers {
            counters.found(layer.size);
            counters.file();
        }
        tracing::info!("the registry has all of it already");
        return Ok(contents.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add));
    }
    let (sender, room) = (Sender::new(registry, counters), Semaphore::new(ROOM as usize));
    let mut seen = HashSet::new();
    let (once, again): (Vec<&Layer>, Vec<&Layer>) = contents.layers.iter().partition(|layer| seen.insert(layer.sha256));
    let sent = stream::iter(once).map(|layer| one(&sender, contents, layer, &room, counters)).buffer_unordered(FILES);
    let there: u64 = sent.try_fold(0_u64, async |sum, there| Ok(sum.saturating_add(there))).await?;
    for layer in again {
        counters.found(layer.size);
        counters.file();
    }
    let config =
        Layer { path: "the config".to_owned(), size: packed.config.len() as u64, sha256: Sha256::digest(&packed.config).into() };
    // Beside the files, and not counted among them.
    Sender::new(registry, &Counters::default()).blob(&config, Content::Bytes(packed.config.clone().into())).await?;
    let mut attempts = registry.attempts();
    while let Err(trouble) = registry.tag(tag, &packed.manifest).await {
        attempts.after(trouble).await?;
    }
    Ok(there)
}

/// One file; answers with its bytes where they were there.
async fn one(
    sender: &Sender<'_>,
    contents: &Contents,
    layer: &Layer,
    room: &Semaphore,
    counters: &Counters,
) -> Result<u64, LoadError> {
    let needed = u32::try_from(layer.size.min(PIECE).div_ceil(MIB).max(1)).unwrap_or(ROOM).min(ROOM);
    let _room = room.acquire_many(needed).await.map_err(|error| LoadError::new(reason::JOB_FAILED, error.to_string()))?;
    let _working = counters.working(&layer.path);
    let file = contents.file(layer).await?;
    let was_there = sender.blob(layer, Content::File(file)).await?;
    if was_there {
        counters.found(layer.size);
    }
    counters.file();
    tracing::info!(path = %layer.path, bytes = layer.size, digest = layer.digest(), was_there, "file pushed");
    Ok(if was_there { layer.size } else { 0 })
}

/// What is pushed.
struct Contents {
    layers: Vec<Layer>,
    known: SourceStatus,
    warnings: Vec<String>,
    place: Place,
}

/// Where the files are.
enum Place {
    /// An artifact with a record of its files.
    Recorded(Source),
    /// Files that were found, by their paths.
    Found(HashMap<String, PathBuf>),
}

impl Contents {
    /// By the record beside the artifact where there is one, else what lies there, hashed.
    async fn open(from: &Path) -> Result<Self, LoadError> {
        let name = from.display().to_string();
        let invalid = |error: String| LoadError::new(reason::INVALID, format!("`{name}`: {error}"));
        let folder = std::path::absolute(from).map_err(|error| invalid(error.to_string()))?;
        let url = BucketUrl::of_folder(&folder).map_err(|error| invalid(error.to_string()))?;
        let none = || LoadError::new(reason::NOT_FOUND, format!("there is no folder `{name}`; check the path"));
        let source = Source::open(&url, &Vec::new()).await?.ok_or_else(none)?;
        let contents = match source.record(MANIFEST).await?.as_deref().and_then(Manifest::parse) {
            Some(manifest) => Self::recorded(source, manifest).map_err(|error| invalid(error.message))?,
            None => Self::found(&folder).await?,
        };
        if contents.layers.is_empty() {
            return Err(LoadError::new(reason::NOT_FOUND, format!("there is no file in `{name}`; nothing can be pushed")));
        }
        let fits = contents.layers.len() <= MAX_FILES;
        check_paths(contents.layers.iter().map(|layer| layer.path.as_str())).map_err(|error| invalid(error.to_string()))?;
        if fits { Ok(contents) } else { Err(invalid(format!("it has more than {MAX_FILES} files"))) }
    }

    fn recorded(source: Source, manifest: Manifest) -> Result<Self, LoadError> {
        let layers = manifest.files.into_iter().map(|entry| {
            let sha256 = unhex(&entry.sha256);
            let broken = || LoadError::new(reason::INVALID, format!("the record of `{}` has no sha256", entry.path));
            Ok(Layer { sha256: sha256.ok_or_else(broken)?, size: entry.size, path: entry.path.clone() })
        });
        let layers = layers.collect::<Result<_, LoadError>>()?;
        Ok(Self { layers, known: manifest.source, warnings: Vec::new(), place: Place::Recorded(source) })
    }

    async fn found(folder: &Path) -> Result<Self, LoadError> {
        let below = folder.join(crate::bucket::url::ARTIFACTS);
        let tree = tree::find(if below.is_dir() { &below } else { folder })?;
        tracing::info!(files = tree.files.len(), "no record says what the files are; they are hashed first");
        let hashed = stream::iter(tree.files.iter().map(|found| hashed(found.path.clone(), found.place.clone())));
        let layers = hashed.buffered(HASHED).try_collect().await?;
        let places = tree.files.into_iter().map(|found| (found.path, found.place)).collect();
        Ok(Self { layers, known: SourceStatus::default(), warnings: tree.warnings, place: Place::Found(places) })
    }

    /// The file of a layer, if it is as large as it should be.
    async fn file(&self, layer: &Layer) -> Result<File, LoadError> {
        let path = &layer.path;
        let file = match &self.place {
            Place::Recorded(source) => source.file(path, layer.size).await?,
            Place::Found(places) => {
                places.get(path).map(|place| File::open(place).map_err(SinkError::io("open", path))).transpose()?
            }
        };
        let gone = || format!("`{path}` is not there with the size that its record says: load or train the artifact again");
        file.ok_or_else(|| LoadError::new(reason::DIGEST_MISMATCH, gone()))
    }
}

async fn hashed(path: String, place: PathBuf) -> Result<Layer, LoadError> {
    let name = path.clone();
    let work = tokio::task::spawn_blocking(move || {
        let (mut file, mut hash, mut size) = (File::open(&place)?, Sha256::new(), 0);
        let mut block = vec![0; BLOCK];
        loop {
            let read = file.read(&mut block)?;
            let Some(bytes) = block.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            hash.update(bytes);
            size += read as u64;
        }
        Ok::<_, std::io::Error>(Layer { path, size, sha256: hash.finalize().into() })
    });
    let read = work.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    Ok(read.map_err(SinkError::io("read", &name))?)
}
