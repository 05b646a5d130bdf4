//! One call of a guest: a fresh store, the question, the answer or the reason why there is none. Knows nothing about where
//! components come from.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::Serialize;
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap};

use super::calls::HostCalls;
use super::io::Ended;
use super::ready::Ready;
use super::store::{self, LimitHit, State};
use super::text::clip;
use super::types::Failure;
use super::{PluginError, answers};
use crate::limits::Tier;

/// What happened in one call, for whoever counts.
#[derive(Clone, Copy, Debug)]
pub struct CallEvent<'a> {
    /// Name in the manifest.
    pub plugin: &'a str,
    /// `resolve`, `refresh`, `plan`, `transform`, `place`, `fit` or `serve`.
    pub function: &'static str,
    /// `ok`, or [`PluginError::category`].
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
}

/// Who is told, from the moment that somebody asks for it.
pub(super) type Watcher = Arc<OnceLock<Arc<dyn Observer>>>;

/// A question about to be asked.
pub(super) struct Call<'a> {
    pub(super) engine: &'a Engine,
    pub(super) ready: &'a Ready,
    pub(super) function: &'static str,
    pub(super) tier: &'static Tier,
    pub(super) calls: Arc<dyn HostCalls>,
    pub(super) observer: Option<&'a dyn Observer>,
}

impl Call<'_> {
    /// Asks: the guest sees a store that nobody used before, and nobody uses it again.
    pub(super) async fn ask<Q: Serialize, A, T>(
        self,
        question: &Q,
        guest: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<Result<A, Failure>>,
        judge: impl FnOnce(A) -> Result<T, String>,
    ) -> Result<T, PluginError> {
        self.check_question(question)?;
        let _turn = self.ready.turn().await?;
        let start = Instant::now();
        let tier = self.tier;
        let mut store = store::open(self.engine, tier, Arc::clone(&self.calls));
        let result = match tokio::time::timeout(tier.wall, guest(&mut store)).await {
            Ok(Ok(Ok(answer))) => judge(answer).map_err(|reason| self.bad_answer(reason)),
            Ok(Ok(Err(failure))) => Err(PluginError::Failure(answers::failure(failure))),
            Ok(Err(error)) => Err(self.trapped(&error, store.data().last_error())),
            Err(_) => Err(self.limit("wall-clock time", format!("{} ms", tier.wall.as_millis()))),
        };
        if let Some(observer) = self.observer {
            let outcome = result.as_ref().err().map_or("ok", PluginError::category);
            observer.call(&CallEvent {
                plugin: &self.ready.manifest.name,
                function: self.function,
                outcome,
                duration: start.elapsed(),
            });
        }
        result
    }

    /// Asks within another tier than the role's own.
    pub(super) fn within(self, tier: &'static Tier) -> Self {
        Self { tier, ..self }
    }

    fn check_question<Q: Serialize>(&self, question: &Q) -> Result<(), PluginError> {
        let tier = self.tier;
        let mut size = Counter(0);
        serde_json::to_writer(&mut size, question)
            .map_err(|error| PluginError::Engine { action: "measure a question", reason: error.to_string() })?;
        if size.0 > tier.question {
            return Err(PluginError::QuestionTooLarge {
                plugin: self.ready.manifest.name.clone(),
                function: self.function,
                size: size.0,
                max: tier.question,
                tier: tier.name,
            });
        }
        Ok(())
    }

    fn bad_answer(&self, reason: String) -> PluginError {
        PluginError::BadAnswer { plugin: self.ready.manifest.name.clone(), function: self.function, reason }
    }

    fn limit(&self, limit: &'static str, value: String) -> PluginError {
        PluginError::Limit {
            plugin: self.ready.manifest.name.clone(),
            function: self.function,
            limit,
            value,
            tier: self.tier.name,
        }
    }

    /// Tells limits, the host's own lack of room and crashes apart. A crash is told in the guest's own last words, where it had
    /// any: the SDK writes a panic's message to the log.
    fn trapped(&self, error: &wasmtime::Error, words: Option<&str>) -> PluginError {
        let tier = self.tier;
        if let Some(hit) = error.downcast_ref::<LimitHit>() {
            return self.limit(hit.limit, hit.value.clone());
        }
        if let Some(ended) = error.downcast_ref::<Ended>() {
            return PluginError::Stream {
                plugin: self.ready.manifest.name.clone(),
                function: self.function,
                reason: ended.0.to_string(),
            };
        }
        if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
            return PluginError::Busy { plugin: self.ready.manifest.name.clone(), running: tier.concurrent, queued: tier.queue };
        }
        if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
            return self.limit("the guest's stack", format!("{} KiB", crate::limits::GUEST_STACK >> 10));
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
                return self.limit(limit, value);
            }
        }
        // Frames say nothing to a user, and in a stripped component little to its author.
        let plugin = self.ready.manifest.name.clone();
        tracing::debug!(plugin, function = self.function, "{text}");
        let cause = error.root_cause().to_string();
        let reason = words.map_or_else(|| cause.clone(), |words| format!("{words} ({cause})"));
        PluginError::Trap { plugin, function: self.function, reason: clip(&reason, 4 * crate::limits::SENTENCE_BYTES) }
    }
}

/// Counts what would be written.
struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
