//! The integration tests: one binary, so that they share one cluster. Each module is about one thing that must hold.

#![expect(clippy::indexing_slicing, reason = "a JSON value reads as null where it has no such key, and a panic fails a test")]

mod anywhere;
mod badinput;
mod bucket;
mod builder;
mod cluster;
mod e2e;
mod engine;
mod examples;
mod hostile;
mod hub;
mod image;
mod import;
mod kubectl_explain;
mod load;
mod manners;
mod modes;
mod operator;
mod plugin_author;
mod plugin_cache;
mod plugin_cases;
mod plugin_json;
mod plugin_offline;
mod plugin_registry;
mod plugin_signatures;
mod plugins;
mod registry;
mod relay;
mod rollouts;
mod sandbox;
mod tidy;
