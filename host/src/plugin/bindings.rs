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
