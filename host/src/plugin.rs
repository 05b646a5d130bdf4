//! The plugin host: the only place that knows what a component is. Others ask [`Plugins`] typed questions and get typed answers;
//! it knows nothing about Kubernetes objects, buckets or secrets.
//!
//! A component's life: bytes by digest ([`cache`](self) on disk) → checked without running it → compiled once → linked to what its
//! role gets → for every call a fresh instance with the limits of its tier.
//!
//! Guests run where [`Isolation`] says: in a process of their own that holds nothing ([`remote`]), or in this one.

pub mod bindings;

mod alarm;
mod answers;
mod asked;
mod bundle;
mod cache;
mod call;
mod calls;
pub mod cases;
pub mod cli;
mod component;
mod docker;
mod engine;
mod error;
mod export;
mod fetch;
mod grant;
mod image;
mod import;
mod imports;
pub mod io;
mod layout;
mod manifest;
mod meter;
pub mod package;
mod push;
mod question;
mod ready;
mod registry;
pub mod remote;
mod schema;
mod signature;
mod store;
mod text;
pub mod types;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use self::alarm::Alarms;
use self::cache::Cache;
use self::io::Streams;
use self::question::{Answer, Question};
use self::ready::{House, Shelf};
use self::remote::Sandbox;
use self::types::{
    Container, File, Fitness, ImportPage, ImportRequest, PlaceRequest, Placement, PlanPage, ResolveRequest, ServeRequest, Shard,
    ShardReport,
};
use crate::limits;

pub use alarm::{Stored, Tampered};
pub use answers::check_file_path;
pub use cache::Swept;
pub(crate) use cache::{random, unique};
pub use call::{CallEvent, Observer};
pub use calls::{HostCalls, NoCalls, Offline};
pub use docker::DockerConfigError;
pub use error::{Blame, PluginError, Refusal, describe, describe_problems};
pub use export::{Exported, Origin, export};
pub use fetch::Named;
pub use grant::{Grant, GrantedSecret, SecretScheme};
pub use image::ImageName;
pub use import::{Imported, import};
pub use layout::LayoutError;
pub use manifest::{ImageClaim, Manifest, ManifestClaims, ManifestEndpoint, ManifestSecret};
pub use push::push;
pub use registry::{PlainHttp, RegistryAuth, RegistryError, Roots};
pub use remote::{Isolation, SandboxState};
pub use signature::{SignatureError, SignaturePolicy, Signed};
pub use text::sentence;

/// Our version of the package `substratus:plugin`.
pub const HOST_VERSION: &str = "0.1.0";

/// The custom section of a component that holds its manifest.
pub const MANIFEST_SECTION: &str = "substratus:manifest";

/// Where a [`Plugins`] keeps things, and what it brings along.
#[derive(Clone, Debug, Default)]
pub struct PluginOptions {
    /// Root of the store on disk: components, compiled code, the key that signs it.
    pub cache: PathBuf,
    /// Folders whose `*.wasm` files are offered as bundled plugins; or OCI layouts, as [`export`] writes them.
    pub bundled: Vec<PathBuf>,
}

/// A component that was checked and is in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// `sha256:…` of the component's bytes.
    pub digest: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Bytes.
    pub size: u64,
}

/// A component that came from a registry.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// `registry/repository@sha256:…` of the OCI manifest: pins what was pulled.
    pub reference_with_digest: String,
    /// `sha256:…` of the component's bytes.
    pub digest: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Bytes.
    pub size: u64,
}

/// The face of the plugin host. One per process; clones share everything.
#[derive(Clone)]
pub struct Plugins {
    inner: Arc<Inner>,
    roots: Roots,
}

struct Inner {
    cache: Arc<Cache>,
    shelf: Shelf,
    bundled: Vec<Loaded>,
    observer: call::Watcher,
}

impl Plugins {
    /// Opens the store and reads the bundled plugins; guests run in this process. A bad bundled file is logged and left out.
    pub fn open(options: PluginOptions) -> Result<Self, PluginError> {
        let PluginOptions { cache, bundled } = options;
        let engine = engine::open()?;
        let observer = call::Watcher::default();
        let alarms = Alarms::new(Arc::clone(&observer));
        let cache = Arc::new(Cache::open(&cache, engine::id(&engine), alarms)?);
        Ok(Self::with(House::Here(engine), cache, observer, bundled))
    }

    /// The same, with guests where `isolation` says. A sandbox is started with the first question.
    pub fn open_isolated(options: PluginOptions, isolation: Isolation) -> Result<Self, PluginError> {
        let Some(place) = isolation.place() else { return Self::open(options) };
        let observer = call::Watcher::default();
        let alarms = Alarms::new(Arc::clone(&observer));
        let cache = Arc::new(Cache::open(&options.cache, engine::id(&engine::compiler()?), alarms)?);
        let sandbox = Sandbox::new(place, Arc::clone(&cache), Arc::clone(&observer));
        Ok(Self::with(House::There(Box::new(sandbox)), cache, observer, options.bundled))
    }

    fn with(house: House, cache: Arc<Cache>, observer: call::Watcher, folders: Vec<PathBuf>) -> Self {
        let shelf = Shelf::new(house, Arc::clone(&cache), Arc::clone(&observer));
        let bundled = folders.iter().flat_map(|folder| bundle::load(&cache, folder)).collect();
        cache.lend(Box::new(move |digest| folders.iter().find_map(|folder| bundle::find(folder, digest))));
        Self { inner: Arc::new(Inner { cache, shelf, bundled, observer }), roots: Roots::default() }
    }

    /// How the process that runs guests fares; nothing where they run in this one.
    pub fn sandbox(&self) -> Option<SandboxState> {
        match &self.inner.shelf.house {
            House::Here(_) => None,
            House::There(sandbox) => Some(sandbox.state()),
        }
    }

    /// Tells somebody of every call from now on; the first one to ask for it stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        if self.inner.observer.set(observer).is_err() {
            tracing::warn!("calls of plugins are observed already");
        }
        self.inner.cache.alarms().tell_early();
    }

    /// Removes components and native code from the store so that it fits into `room` bytes, and what was not used for a week;
    /// the longest unused first, and never those of the digests in `needed` or of bundled plugins. Blocks.
    pub fn sweep(&self, mut needed: BTreeSet<String>, room: u64, now: SystemTime) -> Result<Swept, PluginError> {
        needed.extend(self.inner.bundled.iter().map(|loaded| loaded.digest.clone()));
        let failed = |source| PluginError::Store { action: "make room in the plugin store".to_owned(), source };
        self.inner.cache.sweep(&needed, room, now).map_err(failed)
    }

    /// Every valid bundled plugin, in order of file names.
    pub fn bundled(&self) -> Vec<Loaded> {
        self.inner.bundled.clone()
    }

    /// Checks a component without running it, and keeps it.
    pub fn add(&self, bytes: &[u8]) -> Result<Loaded, PluginError> {
        add(&self.inner.cache, bytes)
    }

    /// [`Plugins::add`] of a file.
    pub fn add_file(&self, path: &Path) -> Result<Loaded, PluginError> {
        add_file(&self.inner.cache, path)
    }

    /// What a component of the store says of itself.
    pub fn manifest(&self, digest: &str) -> Result<Manifest, PluginError> {
        Ok(component::check(&self.inner.cache.blob(digest)?)?)
    }

    /// The bytes of a component, hashed again.
    pub fn bytes(&self, digest: &str) -> Result<Vec<u8>, PluginError> {
        self.inner.cache.blob(digest)
    }

    /// Compiles a component, or finds it compiled, so that the first call need not wait for it.
    pub async fn prepare(&self, digest: &str) -> Result<(), PluginError> {
        self.inner.shelf.get(digest).await.map(drop)
    }

    /// Asks a loader for one page of what to fetch.
    pub async fn resolve(
        &self,
        digest: &str,
        request: &ResolveRequest,
        cursor: Option<&str>,
        calls: Arc<dyn HostCalls>,
    ) -> Result<PlanPage, PluginError> {
        let question = Question::Resolve(request.clone(), cursor.map(str::to_owned));
        let judge = |answer| match answer {
            Answer::Plan(page) => answers::plan_page(page, request, cursor),
            other => Err(another(&other)),
        };
        self.ask(digest, question, None, calls, judge).await
    }

    /// Asks a loader where a file of its plan is now.
    pub async fn refresh(
        &self,
        digest: &str,
        request: &ResolveRequest,
        path: &str,
        calls: Arc<dyn HostCalls>,
    ) -> Result<File, PluginError> {
        let question = Question::Refresh(request.clone(), path.to_owned());
        self.ask(digest, question, None, calls, |answer| file(answer, path)).await
    }

    /// Asks an importer for one page of its shards.
    pub async fn plan_import(
        &self,
        digest: &str,
        request: &ImportRequest,
        cursor: Option<&str>,
        calls: Arc<dyn HostCalls>,
    ) -> Result<ImportPage, PluginError> {
        let question = Question::Plan(request.clone(), cursor.map(str::to_owned));
        let judge = |answer| match answer {
            Answer::Import(page) => imports::plan_page(page, request, cursor),
            other => Err(another(&other)),
        };
        self.ask(digest, question, None, calls, judge).await
    }

    /// Asks an importer where an input of its plan is now.
    pub async fn refresh_import(
        &self,
        digest: &str,
        request: &ImportRequest,
        path: &str,
        calls: Arc<dyn HostCalls>,
    ) -> Result<File, PluginError> {
        let question = Question::RefreshImport(request.clone(), path.to_owned());
        self.ask(digest, question, None, calls, |answer| file(answer, path)).await
    }

    /// Has an importer map one shard. `inputs` and `outputs` end with the call.
    pub async fn transform(
        &self,
        digest: &str,
        request: &ImportRequest,
        shard: &Shard,
        streams: Streams,
        calls: Arc<dyn HostCalls>,
    ) -> Result<ShardReport, PluginError> {
        let question = Question::Transform(request.clone(), shard.clone());
        let judge = |answer| match answer {
            Answer::Report(report) => imports::shard_report(report),
            other => Err(another(&other)),
        };
        self.ask(digest, question, Some(streams), calls, judge).await
    }

    /// Asks a GPU policy what a pod needs.
    pub async fn place(
        &self,
        digest: &str,
        request: &PlaceRequest,
        previous: Option<&Placement>,
    ) -> Result<Placement, PluginError> {
        let question = Question::Place(request.clone(), previous.cloned());
        let judge = |answer| match answer {
            Answer::Placement(placement) => answers::placement(placement),
            other => Err(another(&other)),
        };
        self.ask(digest, question, None, Arc::new(Offline), judge).await
    }

    /// Asks a server adapter how well its engine fits.
    pub async fn fit(&self, digest: &str, request: &ServeRequest) -> Result<Fitness, PluginError> {
        let judge = |answer| match answer {
            Answer::Fitness(fitness) => answers::fitness(fitness),
            other => Err(another(&other)),
        };
        self.ask(digest, Question::Fit(request.clone()), None, Arc::new(Offline), judge).await
    }

    /// Asks a server adapter for the container that serves a model.
    pub async fn serve(&self, digest: &str, request: &ServeRequest) -> Result<Container, PluginError> {
        let judge = |answer| match answer {
            Answer::Container(container) => answers::container(*container),
            other => Err(another(&other)),
        };
        self.ask(digest, Question::Serve(request.clone()), None, Arc::new(Offline), judge).await
    }

    /// Asks, wherever the guest runs; what it answers is judged here.
    async fn ask<T>(
        &self,
        digest: &str,
        question: Question,
        streams: Option<Streams>,
        calls: Arc<dyn HostCalls>,
        judge: impl FnOnce(Answer) -> Result<T, String>,
    ) -> Result<T, PluginError> {
        let inner = &*self.inner;
        let ready = inner.shelf.get(digest).await?;
        let (plugin, role, function) = (ready.manifest.name.as_str(), ready.manifest.role, question.function());
        if question.role() != role {
            return Err(PluginError::WrongRole { plugin: plugin.to_owned(), role, function });
        }
        question.check_size(plugin)?;
        let _turn = ready.turn().await?;
        let start = Instant::now();
        let answer = match (&inner.shelf.house, &ready.world) {
            (House::Here(engine), Some(world)) => {
                call::run(engine, world, &question, streams, calls).await.map_err(|failed| failed.of(plugin, &question))
            }
            (House::There(sandbox), _) => sandbox.ask(digest, plugin, &question, streams, calls).await,
            (House::Here(_), None) => Err(PluginError::Unknown { digest: digest.to_owned() }),
        };
        let bad = |reason| PluginError::BadAnswer { plugin: plugin.to_owned(), function, reason };
        let result = answer.and_then(|answer| judge(answer).map_err(bad));
        if let Some(observer) = inner.observer.get() {
            let outcome = result.as_ref().err().map_or("ok", PluginError::category);
            observer.call(&CallEvent { plugin, function, outcome, duration: start.elapsed() });
        }
        result
    }
}

fn file(answer: Answer, path: &str) -> Result<File, String> {
    match answer {
        Answer::File(file) => answers::file(file, path),
        other => Err(another(&other)),
    }
}

/// Only a process that is not what we started answers so.
fn another(answer: &Answer) -> String {
    let kind = match answer {
        Answer::Plan(_) => "plan",
        Answer::File(_) => "file",
        Answer::Import(_) => "plan of an import",
        Answer::Report(_) => "report",
        Answer::Placement(_) => "placement",
        Answer::Fitness(_) => "fitness",
        Answer::Container(_) => "container",
    };
    format!("it is a {kind}, which was not asked for")
}

fn add(cache: &Cache, bytes: &[u8]) -> Result<Loaded, PluginError> {
    let manifest = component::check(bytes)?;
    Ok(Loaded { digest: cache.keep(bytes)?, manifest, size: bytes.len() as u64 })
}

fn add_file(cache: &Cache, path: &Path) -> Result<Loaded, PluginError> {
    let failed = |source| PluginError::Store { action: format!("read component {}", path.display()), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > limits::COMPONENT_BYTES {
        return Err(Refusal::TooLarge { size, max: limits::COMPONENT_BYTES }.into());
    }
    add(cache, &std::fs::read(path).map_err(failed)?)
}
