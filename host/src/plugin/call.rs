//! One call of a guest: a fresh store, the question, the answer or the reason why there is none. Knows nothing about where
//! components come from.

use std::sync::{Arc, OnceLock};

use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, bail};

use super::alarm::Tampered;
use super::calls::HostCalls;
use super::io::{Ended, Streams};
use super::meter::LimitHit;
use super::question::{Answer, Failed, Question};
use super::store::{self, State};
use super::text::clip;
use super::types::Failure;
use super::world::World;
use crate::limits::{self, Tier};

/// What happened in one call, for whoever counts.
#[derive(Clone, Copy, Debug)]
pub struct CallEvent<'a> {
    /// Name in the manifest.
    pub plugin: &'a str,
    /// `resolve`, `refresh`, `plan`, `transform`, `place`, `fit` or `serve`.
    pub function: &'static str,
    /// `ok`, or [`super::PluginError::category`].
    pub outcome: &'static str,
    /// From the question to the answer, waiting for a turn left out.
    pub duration: std::time::Duration,
}

/// Told of every call.
pub trait Observer: Send + Sync {
    /// A call ended.
    fn call(&self, event: &CallEvent<'_>);

    /// Native code was needed, and found in the cache or made.
    fn code(&self, found: bool);

    /// The process that runs guests was started again.
    fn sandbox_restarted(&self) {}

    /// So many components are not asked any more, for they ended that process too often.
    fn quarantined(&self, _components: usize) {}

    /// A file of the store was not what was put there.
    fn tampered(&self, _tampered: &Tampered) {}
}

/// Who is told, from the moment that somebody asks for it.
pub(super) type Watcher = Arc<OnceLock<Arc<dyn Observer>>>;

/// Asks: the guest sees a store that nobody used before, and nobody uses it again.
pub(super) async fn run(
    engine: &Engine,
    world: &World,
    question: &Question,
    streams: Option<Streams>,
    calls: Arc<dyn HostCalls>,
) -> Result<Answer, Failed> {
    let tier = question.tier();
    let mut store = store::open(engine, tier, calls);
    let asked = tokio::time::timeout(tier.wall, ask(&mut store, world, question, streams)).await;
    match asked {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(failure))) => Err(Failed::Failure(failure)),
        Ok(Err(error)) => Err(trapped(&error, store.data().last_error(), tier)),
        Err(_) => Err(Failed::wall(tier)),
    }
}

async fn ask(
    store: &mut Store<State>,
    world: &World,
    question: &Question,
    streams: Option<Streams>,
) -> wasmtime::Result<Result<Answer, Failure>> {
    Ok(match (world, question) {
        (World::Loader(world), Question::Resolve(request, cursor)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            let loading = guest.substratus_plugin_model_loading();
            loading.call_resolve(store, request, cursor.as_deref()).await?.map(Answer::Plan)
        }
        (World::Loader(world), Question::Refresh(request, path)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            guest.substratus_plugin_model_loading().call_refresh(store, request, path).await?.map(Answer::File)
        }
        (World::Importer(world), Question::Plan(request, cursor)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            let importing = guest.substratus_plugin_dataset_importing();
            importing.call_plan(store, request, cursor.as_deref()).await?.map(Answer::Import)
        }
        (World::Importer(world), Question::RefreshImport(request, path)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            guest.substratus_plugin_dataset_importing().call_refresh(store, request, path).await?.map(Answer::File)
        }
        (World::Importer(world), Question::Transform(request, shard)) => {
            let Some(streams) = streams else { bail!("a transform without streams") };
            let (inputs, outputs) = store.data_mut().lend(streams)?;
            let guest = world.instantiate_async(&mut *store).await?;
            let importing = guest.substratus_plugin_dataset_importing();
            importing.call_transform(store, request, shard, &inputs, outputs).await?.map(Answer::Report)
        }
        (World::Gpu(world), Question::Place(request, previous)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            let placing = guest.substratus_plugin_gpu_placing();
            placing.call_place(store, request, previous.as_ref()).await?.map(Answer::Placement)
        }
        (World::Adapter(world), Question::Fit(request)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            Ok(Answer::Fitness(guest.substratus_plugin_serving().call_fit(store, request).await?))
        }
        (World::Adapter(world), Question::Serve(request)) => {
            let guest = world.instantiate_async(&mut *store).await?;
            guest
                .substratus_plugin_serving()
                .call_serve(store, request)
                .await?
                .map(|container| Answer::Container(Box::new(container)))
        }
        _ => bail!("the question is for a plugin of another role"),
    })
}

/// Tells limits, the host's own lack of room and crashes apart. A crash is told in the guest's own last words, where it had
/// any: the SDK writes a panic's message to the log.
fn trapped(error: &wasmtime::Error, words: Option<&str>, tier: &Tier) -> Failed {
    if let Some(hit) = error.downcast_ref::<LimitHit>() {
        return Failed::limit(hit.limit, hit.value.clone());
    }
    if let Some(ended) = error.downcast_ref::<Ended>() {
        return Failed::Stream(ended.0.to_string());
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        return Failed::Busy;
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
        return Failed::limit("the guest's stack", format!("{} KiB", limits::GUEST_STACK >> 10));
    }
    let text = format!("{error:#}");
    for (sign, limit, value) in [
        // These errors of the engine have no public type; tests/it/hostile.rs watches over their words.
        ("fuel allocated for hostcalls", "data from guest to host", format!("{} KiB", tier.crossing >> 10)),
        ("resource handles", "live handles", tier.handles.to_string()),
        ("instance count too high", "instances", tier.instances.to_string()),
        ("memory count too high", "memories", tier.memories.to_string()),
        ("table count too high", "tables", tier.tables.to_string()),
    ] {
        if text.contains(sign) {
            return Failed::limit(limit, value);
        }
    }
    // Frames say nothing to a user, and in a stripped component little to its author.
    tracing::debug!("{text}");
    let cause = error.root_cause().to_string();
    let reason = words.map_or_else(|| cause.clone(), |words| format!("{words} ({cause})"));
    Failed::Trap(clip(&reason, 4 * limits::SENTENCE_BYTES))
}
