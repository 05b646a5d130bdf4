//! Components ready to be called: compiled once, however many ask, and linked to what their role gets. Keeps the queue before
//! each plugin. Knows nothing about what is asked.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use substratus_crds::PluginRole;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::bindings::adapter::{ServerAdapter, ServerAdapterPre};
use super::bindings::gpu::{GpuPolicy, GpuPolicyPre};
use super::bindings::importer::{DatasetImporter, DatasetImporterPre};
use super::bindings::loader::{ModelLoader, ModelLoaderPre};
use super::cache::Cache;
use super::call::Watcher;
use super::component::tier;
use super::store::State;
use super::{Manifest, PluginError, Refusal, component};
use crate::limits::{self, Tier};

/// A component of one role, linked.
pub(super) enum World {
    Loader(ModelLoaderPre<State>),
    Importer(DatasetImporterPre<State>),
    Gpu(GpuPolicyPre<State>),
    Adapter(ServerAdapterPre<State>),
}

/// A component that can be called.
pub(super) struct Ready {
    pub(super) manifest: Manifest,
    pub(super) world: World,
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// Every component in memory, and the way to get there.
pub(super) struct Shelf {
    engine: Engine,
    cache: Arc<Cache>,
    slots: Mutex<HashMap<String, Slot>>,
    uses: AtomicU64,
    compiling: Semaphore,
    observer: Watcher,
}

#[derive(Clone, Default)]
struct Slot {
    /// A refusal is kept too: the same bytes will be refused again.
    cell: Arc<OnceCell<Result<Arc<Ready>, Refusal>>>,
    last_use: u64,
}

impl Shelf {
    pub(super) fn new(engine: Engine, cache: Arc<Cache>, observer: Watcher) -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let compiling = Semaphore::new((cpus / 2).max(1));
        Self { engine, cache, slots: Mutex::default(), uses: AtomicU64::new(0), compiling, observer }
    }

    /// The component of a digest, from memory, from the cache of compiled code, or compiled now.
    pub(super) async fn get(&self, digest: &str) -> Result<Arc<Ready>, PluginError> {
        let cell = self.slot(digest);
        let ready = cell
            .get_or_try_init(async || match self.load(digest).await {
                Ok(ready) => Ok(Ok(Arc::new(ready))),
                Err(PluginError::Refused(refusal)) => Ok(Err(refusal)),
                Err(error) => Err(error),
            })
            .await?;
        Ok(ready.clone()?)
    }

    fn slot(&self, digest: &str) -> Arc<OnceCell<Result<Arc<Ready>, Refusal>>> {
        let now = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if !slots.contains_key(digest) && slots.len() >= limits::READY_COMPONENTS {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.last_use).map(|(digest, _)| digest.clone());
            oldest.map(|digest| slots.remove(&digest));
        }
        let slot = slots.entry(digest.to_owned()).or_default();
        slot.last_use = now;
        Arc::clone(&slot.cell)
    }

    async fn load(&self, digest: &str) -> Result<Ready, PluginError> {
        let stopped = |_| PluginError::Engine { action: "compile a component", reason: "the host is stopping".to_owned() };
        let _turn = self.compiling.acquire().await.map_err(stopped)?;
        let (engine, cache, digest) = (self.engine.clone(), Arc::clone(&self.cache), digest.to_owned());
        let loaded = tokio::task::spawn_blocking(move || load(&engine, &cache, &digest)).await;
        let (ready, found) = loaded.map_err(|error| PluginError::Engine {
            action: "compile a component",
            // A panic of the compiler: the process lives on.
            reason: error.to_string(),
        })??;
        if let Some(observer) = self.observer.get() {
            observer.code(found);
        }
        Ok(ready)
    }
}

/// The component, and whether its native code was in the cache.
fn load(engine: &Engine, cache: &Cache, digest: &str) -> Result<(Ready, bool), PluginError> {
    let bytes = cache.blob(digest)?;
    let manifest = component::check(&bytes)?;
    let (component, found) = if let Some(component) = cache.code(engine, digest) {
        (component, true)
    } else {
        let code = engine.precompile_component(&bytes).map_err(|error| Refusal::Invalid(format!("{error:#}")))?;
        (cache.keep_code(engine, digest, &code)?, false)
    };
    let tier = tier(manifest.role);
    check_resources(&component, tier)?;
    let ready = Ready {
        world: link(engine, &component, manifest.role)?,
        manifest,
        turns: Semaphore::new(tier.concurrent),
        waiting: AtomicUsize::new(0),
    };
    Ok((ready, found))
}

/// Refuses what could not even start, before it ever runs: all instances of all modules together.
fn check_resources(component: &Component, tier: &'static Tier) -> Result<(), Refusal> {
    let Some(needed) = component.resources_required() else { return Ok(()) };
    let needs = component::Needs {
        memories: u64::from(needed.num_memories),
        tables: u64::from(needed.num_tables),
        // The largest of each: the sums of one module were looked at before it was compiled.
        pages: needed.max_initial_memory_size.unwrap_or_default(),
        elements: needed.max_initial_table_size.unwrap_or_default(),
    };
    needs.check(tier)
}

fn link(engine: &Engine, component: &Component, role: PluginRole) -> Result<World, Refusal> {
    let mut linker: Linker<State> = Linker::new(engine);
    match role {
        PluginRole::ModelLoader => {
            let fit = |error| world_error("model-loader", &error);
            ModelLoader::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            ModelLoaderPre::new(pre(&linker, component).map_err(fit)?).map(World::Loader).map_err(fit)
        }
        PluginRole::DatasetImporter => {
            let fit = |error| world_error("dataset-importer", &error);
            DatasetImporter::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            DatasetImporterPre::new(pre(&linker, component).map_err(fit)?).map(World::Importer).map_err(fit)
        }
        PluginRole::GpuPolicy => {
            let fit = |error| world_error("gpu-policy", &error);
            GpuPolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            GpuPolicyPre::new(pre(&linker, component).map_err(fit)?).map(World::Gpu).map_err(fit)
        }
        PluginRole::ServerAdapter => {
            let fit = |error| world_error("server-adapter", &error);
            ServerAdapter::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            ServerAdapterPre::new(pre(&linker, component).map_err(fit)?).map(World::Adapter).map_err(fit)
        }
    }
}

fn pre(linker: &Linker<State>, component: &Component) -> wasmtime::Result<InstancePre<State>> {
    linker.instantiate_pre(component)
}

fn world_error(world: &'static str, error: &wasmtime::Error) -> Refusal {
    Refusal::World { world, reason: super::text::sentence(&format!("{error:#}")) }
}

impl Ready {
    /// Waits for a turn: so many calls at once, so many more in the queue, and no longer than the tier says.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, PluginError> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let tier = tier(self.manifest.role);
        let place = Place::take(&self.waiting);
        if place.number > tier.queue {
            return Err(self.busy(tier));
        }
        match tokio::time::timeout(tier.queue_wait, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(self.busy(tier)),
        }
    }

    fn busy(&self, tier: &Tier) -> PluginError {
        PluginError::Busy { plugin: self.manifest.name.clone(), running: tier.concurrent, queued: tier.queue }
    }
}

/// A place in the queue; given back even where the caller goes away.
struct Place<'a> {
    waiting: &'a AtomicUsize,
    number: usize,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Self {
        Self { number: waiting.fetch_add(1, Ordering::Relaxed) + 1, waiting }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
