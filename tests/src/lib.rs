//! The harness of the tests, the demo and the benches: real peers to run against. It knows nothing of the operator's insides.

pub mod azurite;
pub mod bench;
pub mod bundle;
pub mod cluster;
pub mod demo;
pub mod engine;
pub mod files;
pub mod gcs;
pub mod git;
pub mod guests;
pub mod hub;
pub mod image;
pub mod install;
pub mod operator;
pub mod platform;
pub mod proxy;
pub mod registry;
pub mod s3;
pub mod seeds;
mod server;
pub mod signatures;
