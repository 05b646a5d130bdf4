//! A model loader that never ends to start: instantiating it must be stopped, too. Were it stopped too late, its answer is good.

use substratus_plugin::{
    Failure,
    loader::{File, Guest, PlanPage, Request},
};

struct Plugin;

impl Guest for Plugin {
    fn resolve(_: Request, _: Option<String>) -> Result<PlanPage, Failure> {
        Err(Failure::Internal("started after all".into()))
    }

    fn refresh(_: Request, _: String) -> Result<File, Failure> {
        Err(Failure::Internal("started after all".into()))
    }
}

substratus_plugin::export_model_loader!(Plugin);

/// Component encoding calls a function of this name while the component is instantiated.
#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, reason = "the name is what makes it the start function")]
#[unsafe(export_name = "_initialize")]
extern "C" fn start() {
    let mut count: u64 = 0;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}
