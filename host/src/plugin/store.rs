//! The only place that makes a store, so that no guest is born without limits. Knows nothing about what the guest is asked.

use std::sync::Arc;

use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline, bail};

use super::bindings::loader::substratus::plugin::{files, http, log, types};
use super::calls::HostCalls;
use super::io::Traffic;
use super::meter::{LimitHit, Meter};
use super::text::sentence;
use super::types::{HttpError, HttpRequest, HttpResponse, LogLevel};
use crate::limits::{self, Tier};

/// What a guest may still use, and where its host calls go.
pub(super) struct State {
    pub(super) tier: &'static Tier,
    pub(super) traffic: Traffic,
    calls: Arc<dyn HostCalls>,
    meter: Meter,
    ticks: u128,
    memory: usize,
    table_elements: usize,
    /// The last line at level error: a panic's message, where the guest ends in a trap.
    last_error: Option<String>,
}

/// A store for one call, with every limit of its tier set.
///
/// Processor time is counted in ticks that find the guest running: a guest that waits for the host, or that the system has put
/// aside, is not charged for it. Between ticks it yields, so that the caller's timeout works.
#[expect(clippy::disallowed_methods, reason = "the one place where a store is made")]
pub(super) fn open(engine: &Engine, tier: &'static Tier, calls: Arc<dyn HostCalls>) -> Store<State> {
    let state = State {
        tier,
        traffic: Traffic::new(tier),
        calls,
        meter: Meter::new(tier),
        ticks: 0,
        memory: 0,
        table_elements: 0,
        last_error: None,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| state);
    store.set_hostcall_fuel(tier.crossing);
    store.set_max_component_handles(tier.handles);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        let state = context.data_mut();
        state.ticks += 1;
        if state.ticks * limits::TICK.as_millis() > state.tier.cpu.as_millis() {
            bail!(LimitHit { limit: "processor time", value: format!("{} ms", state.tier.cpu.as_millis()) });
        }
        state.traffic.idle += 1;
        if state.traffic.idle * limits::TICK.as_millis() > state.tier.idle.as_millis() {
            let value = format!("{} ms", state.tier.idle.as_millis());
            bail!(LimitHit { limit: "processor time without reading or writing", value });
        }
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

impl State {
    /// What the guest said last at level error, one clean line.
    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn grow(used: usize, current: usize, desired: usize, max: usize, limit: LimitHit) -> wasmtime::Result<usize> {
        let sum = used.saturating_sub(current).saturating_add(desired);
        if sum > max {
            bail!(limit);
        }
        Ok(sum)
    }
}

impl ResourceLimiter for State {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let limit = LimitHit { limit: "memory", value: format!("{} MiB", self.tier.memory >> 20) };
        self.memory = Self::grow(self.memory, current, desired, self.tier.memory, limit)?;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let limit = LimitHit { limit: "the size of tables", value: format!("{} elements", self.tier.table_elements) };
        self.table_elements = Self::grow(self.table_elements, current, desired, self.tier.table_elements, limit)?;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.tier.instances
    }

    fn tables(&self) -> usize {
        self.tier.tables
    }

    fn memories(&self) -> usize {
        self.tier.memories
    }
}

impl types::Host for State {}

impl files::Host for State {}

impl log::Host for State {
    async fn write(&mut self, level: LogLevel, message: String) -> wasmtime::Result<()> {
        if level == LogLevel::Error {
            // Also where the log is full: whoever floods it still says why it ended.
            self.last_error = Some(sentence(&message));
        }
        self.meter.log(&*self.calls, level, &message);
        Ok(())
    }
}

impl http::Host for State {
    async fn send(&mut self, request: HttpRequest) -> wasmtime::Result<Result<HttpResponse, HttpError>> {
        Ok(self.meter.http(&*self.calls, request).await)
    }
}
