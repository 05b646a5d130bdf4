//! A component linked to what its role gets, ready for an instance. The one place where native code is loaded. Knows nothing of
//! where the code comes from or what is asked.

use substratus_crds::PluginRole;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker};

use super::Refusal;
use super::bindings::adapter::{ServerAdapter, ServerAdapterPre};
use super::bindings::gpu::{GpuPolicy, GpuPolicyPre};
use super::bindings::importer::{DatasetImporter, DatasetImporterPre};
use super::bindings::loader::{ModelLoader, ModelLoaderPre};
use super::component::{self, tier};
use super::store::State;
use crate::limits::Tier;

/// A component of one role, linked.
pub(super) enum World {
    Loader(ModelLoaderPre<State>),
    Importer(DatasetImporterPre<State>),
    Gpu(GpuPolicyPre<State>),
    Adapter(ServerAdapterPre<State>),
}

/// Why code cannot be used.
pub(super) enum Unfit {
    /// The engine does not take it.
    Code(wasmtime::Error),
    /// The component is not one of its role.
    Refused(Refusal),
}

impl World {
    /// Loads native code. `code` must have been compiled by us: its signature was checked, or its hash is one that somebody gave
    /// us who checked it, or it is fresh.
    pub(super) fn load(engine: &Engine, code: &[u8], role: PluginRole) -> Result<Self, Unfit> {
        let native = deserialize(engine, code).map_err(Unfit::Code)?;
        check_resources(&native, tier(role)).and_then(|()| link(engine, &native, role)).map_err(Unfit::Refused)
    }
}

#[expect(unsafe_code, reason = "the bytes are machine code that we compiled, as every caller has made sure")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: see the reason above; the checked bytes are the ones loaded, not a second read of a file.
    unsafe { Component::deserialize(engine, code) }
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

fn link(engine: &Engine, native: &Component, role: PluginRole) -> Result<World, Refusal> {
    let mut linker: Linker<State> = Linker::new(engine);
    let fit = |error: wasmtime::Error| {
        let reason = super::text::sentence(&format!("{error:#}"));
        Refusal::World { world: component::world(role), reason }
    };
    match role {
        PluginRole::ModelLoader => {
            ModelLoader::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            ModelLoaderPre::new(pre(&linker, native).map_err(fit)?).map(World::Loader).map_err(fit)
        }
        PluginRole::DatasetImporter => {
            DatasetImporter::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            DatasetImporterPre::new(pre(&linker, native).map_err(fit)?).map(World::Importer).map_err(fit)
        }
        PluginRole::GpuPolicy => {
            GpuPolicy::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            GpuPolicyPre::new(pre(&linker, native).map_err(fit)?).map(World::Gpu).map_err(fit)
        }
        PluginRole::ServerAdapter => {
            ServerAdapter::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state).map_err(fit)?;
            ServerAdapterPre::new(pre(&linker, native).map_err(fit)?).map(World::Adapter).map_err(fit)
        }
    }
}

fn pre(linker: &Linker<State>, component: &Component) -> wasmtime::Result<InstancePre<State>> {
    linker.instantiate_pre(component)
}
