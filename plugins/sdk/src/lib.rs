//! What a Substratus plugin is written with: the three worlds' records and a few helpers. It knows no hub, cloud or engine.
//!
//! A plugin implements one `Guest` trait and names its type to one macro:
//!
//! | role | trait | macro |
//! |---|---|---|
//! | `ModelLoader` | [`loader::Guest`] | [`export_model_loader!`] |
//! | `GpuPolicy` | [`gpu::Guest`] | [`export_gpu_policy!`] |
//! | `ServerAdapter` | [`adapter::Guest`] | [`export_server_adapter!`] |
//!
//! The records are plain structs, so everything behind the trait is tested natively; `testing` runs a plugin's case files.

mod bindings;
pub mod config;
pub mod glob;
pub mod http;
pub mod params;
pub mod placement;
#[cfg(feature = "testing")]
pub mod testing;

pub use bindings::loader::substratus::plugin::types::{Digest, Failure, Problem, Subject};
#[doc(hidden)]
pub use bindings::{adapter as adapter_bindings, gpu as gpu_bindings, loader as loader_bindings};

/// World `model-loader`: lists what to fetch from a hub.
pub mod loader {
    pub use crate::bindings::loader::exports::substratus::plugin::model_loading::{
        File, FileFilter, Guest, HttpOrigin, ModelFacts, OciOrigin, Origin, PlanPage, Request, XetOrigin,
    };
}

/// World `gpu-policy`: turns a GPU type into scheduling.
pub mod gpu {
    pub use crate::bindings::gpu::exports::substratus::plugin::gpu_placing::{
        Claim, Guest, Node, Placement, Request, Toleration,
    };
}

/// World `server-adapter`: turns a model into a serving container.
pub mod adapter {
    pub use crate::bindings::adapter::exports::substratus::plugin::serving::{
        Cache, Container, Fitness, Gpu, Guest, Metrics, Model, Probe, Request,
    };
}

/// Lines for the operator's or the worker's log.
pub mod log {
    pub use crate::bindings::loader::substratus::plugin::log::Level;

    /// Writes one line. Natively (in tests) there is no host, and nothing is written.
    pub fn write(level: Level, message: &str) {
        if cfg!(target_arch = "wasm32") {
            crate::bindings::loader::substratus::plugin::log::write(level, message);
        }
    }
}

/// The user can fix this one field.
pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Failure {
    Failure::Invalid(vec![Problem { field: field.into(), reason: reason.into() }])
}

/// A panic ends in a trap without a word; its message goes to the log first, from where the host repeats it to the user.
#[doc(hidden)]
pub fn panics_to_log() {
    if cfg!(target_arch = "wasm32") {
        std::panic::set_hook(Box::new(|info| log::write(log::Level::Error, &info.to_string())));
    }
}

/// Makes the crate a `model-loader` component: `export_model_loader!(Type)`.
#[macro_export]
macro_rules! export_model_loader {
    ($plugin:ident) => {
        const _: () = {
            struct Export;

            impl $crate::loader::Guest for Export {
                fn resolve(
                    request: $crate::loader::Request,
                    cursor: ::std::option::Option<::std::string::String>,
                ) -> ::std::result::Result<$crate::loader::PlanPage, $crate::Failure> {
                    $crate::panics_to_log();
                    <$plugin as $crate::loader::Guest>::resolve(request, cursor)
                }

                fn refresh(
                    request: $crate::loader::Request,
                    path: ::std::string::String,
                ) -> ::std::result::Result<$crate::loader::File, $crate::Failure> {
                    $crate::panics_to_log();
                    <$plugin as $crate::loader::Guest>::refresh(request, path)
                }
            }

    $crate::loader_bindings::export_model_loader!(Export with_types_in $crate::loader_bindings);
        };
    };
}

/// Makes the crate a `gpu-policy` component: `export_gpu_policy!(Type)`.
#[macro_export]
macro_rules! export_gpu_policy {
    ($plugin:ident) => {
        const _: () = {
            struct Export;

            impl $crate::gpu::Guest for Export {
                fn place(
                    request: $crate::gpu::Request,
                    previous: ::std::option::Option<$crate::gpu::Placement>,
                ) -> ::std::result::Result<$crate::gpu::Placement, $crate::Failure> {
                    $crate::panics_to_log();
                    <$plugin as $crate::gpu::Guest>::place(request, previous)
                }
            }

    $crate::gpu_bindings::export_gpu_policy!(Export with_types_in $crate::gpu_bindings);
        };
    };
}

/// Makes the crate a `server-adapter` component: `export_server_adapter!(Type)`.
#[macro_export]
macro_rules! export_server_adapter {
    ($plugin:ident) => {
        const _: () = {
            struct Export;

            impl $crate::adapter::Guest for Export {
                fn fit(request: $crate::adapter::Request) -> $crate::adapter::Fitness {
                    $crate::panics_to_log();
                    <$plugin as $crate::adapter::Guest>::fit(request)
                }

                fn serve(
                    request: $crate::adapter::Request,
                ) -> ::std::result::Result<$crate::adapter::Container, $crate::Failure> {
                    $crate::panics_to_log();
                    <$plugin as $crate::adapter::Guest>::serve(request)
                }
            }

    $crate::adapter_bindings::export_server_adapter!(Export with_types_in $crate::adapter_bindings);
        };
    };
}
