//! Every `generate!` call. The records are generated from the WIT; this file holds no logic.

#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated code")]
#![allow(clippy::allow_attributes_without_reason, clippy::use_self, reason = "generated code")]

/// World `model-loader`, and the interfaces that all worlds share.
pub mod loader {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "model-loader",
        pub_export_macro: true,
        export_macro_name: "export_model_loader",
        generate_unused_types: true,
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// World `dataset-importer`.
pub mod importer {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "dataset-importer",
        pub_export_macro: true,
        export_macro_name: "export_dataset_importer",
        with: {
            "substratus:plugin/types@0.1.0": crate::bindings::loader::substratus::plugin::types,
            "substratus:plugin/files@0.1.0": crate::bindings::loader::substratus::plugin::files,
            "substratus:plugin/log@0.1.0": crate::bindings::loader::substratus::plugin::log,
            "substratus:plugin/http@0.1.0": crate::bindings::loader::substratus::plugin::http,
        },
        generate_unused_types: true,
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// World `gpu-policy`.
pub mod gpu {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "gpu-policy",
        pub_export_macro: true,
        export_macro_name: "export_gpu_policy",
        with: {
            "substratus:plugin/types@0.1.0": crate::bindings::loader::substratus::plugin::types,
            "substratus:plugin/log@0.1.0": crate::bindings::loader::substratus::plugin::log,
        },
        generate_unused_types: true,
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}

/// World `server-adapter`.
pub mod adapter {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "server-adapter",
        pub_export_macro: true,
        export_macro_name: "export_server_adapter",
        with: {
            "substratus:plugin/types@0.1.0": crate::bindings::loader::substratus::plugin::types,
            "substratus:plugin/log@0.1.0": crate::bindings::loader::substratus::plugin::log,
        },
        generate_unused_types: true,
        additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
    });
}
