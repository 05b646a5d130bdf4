//! The engine: what of WebAssembly is switched on, how memory is laid out, and the clock that interrupts guests. Knows nothing
//! about plugins.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::thread;

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::PluginError;
use crate::limits;

/// Address space kept for each memory, so that a guard page does the work of a bounds check.
const RESERVATION: u64 = 4 << 30;
const GUARD: u64 = 32 << 20;

/// The engine of this process: pooled memory where the system has the address space, else memory on demand.
pub(super) fn open() -> Result<Engine, PluginError> {
    let engine = match Engine::new(config().allocation_strategy(pool())) {
        Ok(engine) => engine,
        Err(error) => {
            tracing::warn!(%error, "no address space for the pooling allocator; instances are allocated on demand");
            Engine::new(&config()).map_err(|error| failed(&error))?
        }
    };
    start_clock(&engine)?;
    Ok(engine)
}

/// An engine that compiles and says what its code depends on, and never runs a guest: no pool, no clock.
pub(super) fn compiler() -> Result<Engine, PluginError> {
    Engine::new(&config()).map_err(|error| failed(&error))
}

fn failed(error: &wasmtime::Error) -> PluginError {
    PluginError::Engine { action: "start the WebAssembly engine", reason: format!("{error:#}") }
}

/// Names everything that compiled code depends on: code of another engine is never looked at.
pub(super) fn id(engine: &Engine) -> String {
    struct Sha(Sha256);
    impl Hasher for Sha {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut sha = Sha(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut sha);
    sha.0.update(std::env::consts::ARCH);
    sha.0.update(std::env::consts::OS);
    hex::encode(sha.0.finalize())
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(limits::GUEST_STACK)
        .async_stack_size(limits::CALL_STACK)
        .memory_reservation(RESERVATION)
        .memory_guard_size(GUARD)
        // The pool refuses heaps of another shape, though there are none.
        .gc_heap_reservation(RESERVATION)
        .gc_heap_guard_size(GUARD)
        .wasm_backtrace_max_frames(NonZeroUsize::new(limits::BACKTRACE_FRAMES))
        // Off: everything that no guest language of ours needs. Multi-memory stays on: adapter modules use it.
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .concurrency_support(false)
        .gc_support(false);
    config
}

fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(256)
        .total_core_instances(1_280)
        .total_memories(512)
        .total_tables(1_024)
        .total_stacks(256)
        .max_component_instance_size(8 << 20)
        .max_core_instance_size(8 << 20)
        .max_memories_per_module(count(limits::BULK.memories))
        .max_tables_per_module(count(limits::BULK.tables))
        .max_memory_size(limits::BULK.memory)
        .table_elements(limits::BULK.table_elements)
        .linear_memory_keep_resident(0)
        .table_keep_resident(0);
    InstanceAllocationStrategy::Pooling(pool)
}

/// A number of the table of limits, as the pool takes it.
fn count(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

/// Ticks as long as the engine lives. Its own thread, so that a busy executor never stops the clock.
fn start_clock(engine: &Engine) -> Result<(), PluginError> {
    let engine = engine.weak();
    thread::Builder::new()
        .name("plugin-clock".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(limits::TICK);
            }
        })
        .map(drop)
        .map_err(|source| PluginError::Store { action: "start the thread of the plugin clock".to_owned(), source })
}
