//! The plugin host: the only place that knows what a component is. Others ask [`Plugins`] typed questions and get typed answers;
//! it knows nothing about Kubernetes objects, buckets or secrets.
//!
//! A component's life: bytes by digest ([`cache`](self) on disk) → checked without running it → compiled once → linked to what its
//! role gets → for every call a fresh instance with the limits of its tier.

pub mod bindings;

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
pub mod package;
mod push;
mod ready;
mod registry;
mod schema;
mod signature;
mod store;
mod text;
pub mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::Engine;

use self::cache::Cache;
use self::call::Call;
use self::io::Streams;
use self::ready::{Ready, Shelf, World};
use self::types::{
    Container, File, Fitness, ImportPage, ImportRequest, PlaceRequest, Placement, PlanPage, ResolveRequest, ServeRequest, Shard,
    ShardReport,
};
use crate::limits;

pub use answers::check_file_path;
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
    engine: Engine,
    cache: Arc<Cache>,
    shelf: Shelf,
    bundled: Vec<Loaded>,
    observer: call::Watcher,
}

impl Plugins {
    /// Starts the engine, opens the store and reads the bundled plugins. A bad bundled file is logged and left out.
    pub fn open(options: PluginOptions) -> Result<Self, PluginError> {
        let PluginOptions { cache, bundled: folders } = options;
        let engine = engine::open()?;
        let cache = Arc::new(Cache::open(&cache, &engine)?);
        let observer = call::Watcher::default();
        let shelf = Shelf::new(engine.clone(), Arc::clone(&cache), Arc::clone(&observer));
        let bundled = folders.iter().flat_map(|folder| bundled(&cache, folder)).collect();
        Ok(Self { inner: Arc::new(Inner { engine, cache, shelf, bundled, observer }), roots: Roots::default() })
    }

    /// Tells somebody of every call from now on; the first one to ask for it stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        if self.inner.observer.set(observer).is_err() {
            tracing::warn!("calls of plugins are observed already");
        }
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
        let ready = self.inner.shelf.get(digest).await?;
        let World::Loader(world) = &ready.world else { return Err(wrong_role(&ready, "resolve")) };
        self.call(&ready, "resolve", calls)
            .ask(
                &(request, cursor),
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_model_loading().call_resolve(store, request, cursor).await
                },
                |page| answers::plan_page(page, request, cursor),
            )
            .await
    }

    /// Asks a loader where a file of its plan is now.
    pub async fn refresh(
        &self,
        digest: &str,
        request: &ResolveRequest,
        path: &str,
        calls: Arc<dyn HostCalls>,
    ) -> Result<File, PluginError> {
        let ready = self.inner.shelf.get(digest).await?;
        let World::Loader(world) = &ready.world else { return Err(wrong_role(&ready, "refresh")) };
        self.call(&ready, "refresh", calls)
            .ask(
                &(request, path),
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_model_loading().call_refresh(store, request, path).await
                },
                |file| answers::file(file, path),
            )
            .await
    }

    /// Asks an importer for one page of its shards.
    pub async fn plan_import(
        &self,
        digest: &str,
        request: &ImportRequest,
        cursor: Option<&str>,
        calls: Arc<dyn HostCalls>,
    ) -> Result<ImportPage, PluginError> {
        let ready = self.inner.shelf.get(digest).await?;
        let World::Importer(world) = &ready.world else { return Err(wrong_role(&ready, "plan")) };
        self.call(&ready, "plan", calls)
            .within(&limits::STANDARD)
            .ask(
                &(request, cursor),
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_dataset_importing().call_plan(store, request, cursor).await
                },
                |page| imports::plan_page(page, request, cursor),
            )
            .await
    }

    /// Asks an importer where an input of its plan is now.
    pub async fn refresh_import(
        &self,
        digest: &str,
        request: &ImportRequest,
        path: &str,
        calls: Arc<dyn HostCalls>,
    ) -> Result<File, PluginError> {
        let ready = self.inner.shelf.get(digest).await?;
        let World::Importer(world) = &ready.world else { return Err(wrong_role(&ready, "refresh")) };
        self.call(&ready, "refresh", calls)
            .within(&limits::STANDARD)
            .ask(
                &(request, path),
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_dataset_importing().call_refresh(store, request, path).await
                },
                |file| answers::file(file, path),
            )
            .await
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
        let ready = self.inner.shelf.get(digest).await?;
        let World::Importer(world) = &ready.world else { return Err(wrong_role(&ready, "transform")) };
        self.call(&ready, "transform", calls)
            .ask(
                &(request, shard),
                async |store| {
                    let (inputs, outputs) = store.data_mut().lend(streams)?;
                    let guest = world.instantiate_async(&mut *store).await?;
                    let importing = guest.substratus_plugin_dataset_importing();
                    importing.call_transform(store, request, shard, &inputs, outputs).await
                },
                imports::shard_report,
            )
            .await
    }

    /// Asks a GPU policy what a pod needs.
    pub async fn place(
        &self,
        digest: &str,
        request: &PlaceRequest,
        previous: Option<&Placement>,
    ) -> Result<Placement, PluginError> {
        let ready = self.inner.shelf.get(digest).await?;
        let World::Gpu(world) = &ready.world else { return Err(wrong_role(&ready, "place")) };
        self.call(&ready, "place", Arc::new(Offline))
            .ask(
                &(request, previous),
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_gpu_placing().call_place(store, request, previous).await
                },
                answers::placement,
            )
            .await
    }

    /// Asks a server adapter how well its engine fits.
    pub async fn fit(&self, digest: &str, request: &ServeRequest) -> Result<Fitness, PluginError> {
        let ready = self.inner.shelf.get(digest).await?;
        let World::Adapter(world) = &ready.world else { return Err(wrong_role(&ready, "fit")) };
        self.call(&ready, "fit", Arc::new(Offline))
            .ask(
                request,
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_serving().call_fit(store, request).await.map(Ok)
                },
                answers::fitness,
            )
            .await
    }

    /// Asks a server adapter for the container that serves a model.
    pub async fn serve(&self, digest: &str, request: &ServeRequest) -> Result<Container, PluginError> {
        let ready = self.inner.shelf.get(digest).await?;
        let World::Adapter(world) = &ready.world else { return Err(wrong_role(&ready, "serve")) };
        self.call(&ready, "serve", Arc::new(Offline))
            .ask(
                request,
                async |store| {
                    let guest = world.instantiate_async(&mut *store).await?;
                    guest.substratus_plugin_serving().call_serve(store, request).await
                },
                answers::container,
            )
            .await
    }

    fn call<'a>(&'a self, ready: &'a Ready, function: &'static str, calls: Arc<dyn HostCalls>) -> Call<'a> {
        let observer = self.inner.observer.get().map(|observer| &**observer as &dyn Observer);
        Call { engine: &self.inner.engine, ready, function, tier: component::tier(ready.manifest.role), calls, observer }
    }
}

fn wrong_role(ready: &Ready, function: &'static str) -> PluginError {
    PluginError::WrongRole { plugin: ready.manifest.name.clone(), role: ready.manifest.role, function }
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

fn bundled(cache: &Cache, folder: &Path) -> Vec<Loaded> {
    if bundle::is_layout(folder) {
        return bundle::load(cache, folder);
    }
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(error) => {
            tracing::error!(folder = %folder.display(), %error, "cannot read a folder of bundled plugins");
            return Vec::new();
        }
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "wasm"));
    files.sort();
    let loaded = files.iter().filter_map(|file| match add_file(cache, file) {
        Ok(loaded) => Some(loaded),
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "a bundled plugin is left out");
            None
        }
    });
    loaded.collect()
}
