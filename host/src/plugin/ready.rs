//! Components ready to be called: compiled once, however many ask, and loaded here or in a sandbox. Keeps the queue before
//! each plugin. Knows nothing about what is asked.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use wasmtime::Engine;

use super::cache::Cache;
use super::call::Watcher;
use super::component::tier;
use super::remote::Sandbox;
use super::world::{Unfit, World};
use super::{Manifest, PluginError, Refusal, component};
use crate::limits::{self, Tier};

/// Where guests run.
pub(super) enum House {
    /// In this process.
    Here(Engine),
    /// In a process that holds nothing.
    There(Box<Sandbox>),
}

/// A component that can be called.
pub(super) struct Ready {
    pub(super) manifest: Manifest,
    /// The component itself; absent where it is in a sandbox.
    pub(super) world: Option<World>,
    turns: Semaphore,
    waiting: AtomicUsize,
}

/// Every component in memory, and the way to get there.
pub(super) struct Shelf {
    pub(super) house: House,
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
    pub(super) fn new(house: House, cache: Arc<Cache>, observer: Watcher) -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let compiling = Semaphore::new((cpus / 2).max(1));
        Self { house, cache, slots: Mutex::default(), uses: AtomicU64::new(0), compiling, observer }
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
        let (ready, found) = match &self.house {
            House::Here(engine) => {
                let (engine, cache, digest) = (engine.clone(), Arc::clone(&self.cache), digest.to_owned());
                blocking(move || load(&engine, &cache, &digest)).await?
            }
            House::There(sandbox) => {
                let (cache, name) = (Arc::clone(&self.cache), digest.to_owned());
                let manifest = blocking(move || Ok(component::check(&cache.blob(&name)?)?)).await?;
                let found = sandbox.prepare(digest, &manifest.name, manifest.role).await?;
                (Ready::new(manifest, None), found)
            }
        };
        if let Some(observer) = self.observer.get() {
            observer.code(found);
        }
        Ok(ready)
    }
}

/// Work on files and in the compiler, beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PluginError> + Send + 'static,
) -> Result<T, PluginError> {
    // A panic of the compiler: the process lives on.
    let died = |error: tokio::task::JoinError| PluginError::Engine { action: "compile a component", reason: error.to_string() };
    tokio::task::spawn_blocking(work).await.map_err(died)?
}

/// The component, and whether its native code was in the cache.
fn load(engine: &Engine, cache: &Cache, digest: &str) -> Result<(Ready, bool), PluginError> {
    let bytes = cache.blob(digest)?;
    let manifest = component::check(&bytes)?;
    if let Some(code) = cache.code(digest) {
        match World::load(engine, &code, manifest.role) {
            Ok(world) => return Ok((Ready::new(manifest, Some(world)), true)),
            Err(Unfit::Refused(refusal)) => return Err(refusal.into()),
            Err(Unfit::Code(error)) => {
                tracing::warn!(digest, %error, "compiled code does not fit this engine; it is compiled again");
                cache.forget_code(digest);
            }
        }
    }
    let invalid = |error: wasmtime::Error| Refusal::Invalid(format!("{error:#}"));
    let code = engine.precompile_component(&bytes).map_err(invalid)?;
    cache.keep_code(digest, &code);
    // Fresh code fits the engine: what it may not fit is the room that instances have.
    let world = World::load(engine, &code, manifest.role).map_err(|unfit| match unfit {
        Unfit::Code(error) => invalid(error),
        Unfit::Refused(refusal) => refusal,
    })?;
    Ok((Ready::new(manifest, Some(world)), false))
}

impl Ready {
    fn new(manifest: Manifest, world: Option<World>) -> Self {
        let turns = Semaphore::new(tier(manifest.role).concurrent);
        Self { manifest, world, turns, waiting: AtomicUsize::new(0) }
    }

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
