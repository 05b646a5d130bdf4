//! Every `bindgen!` call. The records of the WIT are the vocabulary of the whole host: questions and answers are these types.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]

/// World `model-loader`, and the interfaces all worlds share.
pub mod loader {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "model-loader",
        imports: { default: async | trappable },
        exports: { default: async },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// World `dataset-importer`.
pub mod importer {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "dataset-importer",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "substratus:plugin/types": super::loader::substratus::plugin::types,
            "substratus:plugin/files": super::loader::substratus::plugin::files,
            "substratus:plugin/log": super::loader::substratus::plugin::log,
            "substratus:plugin/http": super::loader::substratus::plugin::http,
            "substratus:plugin/io.reader": crate::plugin::io::GuestReader,
            "substratus:plugin/io.writer": crate::plugin::io::GuestWriter,
            "substratus:plugin/io.outputs": crate::plugin::io::GuestOutputs,
        },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// World `gpu-policy`.
pub mod gpu {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "gpu-policy",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "substratus:plugin/types": super::loader::substratus::plugin::types,
            "substratus:plugin/log": super::loader::substratus::plugin::log,
        },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// World `server-adapter`.
pub mod adapter {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "server-adapter",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "substratus:plugin/types": super::loader::substratus::plugin::types,
            "substratus:plugin/log": super::loader::substratus::plugin::log,
        },
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}
