//! The API types of `substratus.ai`: what a user may write and what the operator answers. No I/O, no client.
//!
//! `Model` and `Server` are compatible with the first Substratus operator: field names, defaults, condition types and
//! reasons are a contract that manifests and scripts rely on. What this project adds is optional everywhere.
//! [`crds`] makes the `CustomResourceDefinition`s; `crds/yaml` holds them as committed files and a test compares the two.

pub mod conditions;
mod definition;
mod model;
mod plugin;
mod server;
mod shared;
mod status;

pub use definition::{MAX_MODEL_NAME, MAX_SERVER_NAME, crds, to_yaml};
pub use model::{FileFilter, Model, ModelSpec, ModelStatus};
pub use plugin::{Claims, Grants, Plugin, PluginRole, PluginSpec, PluginStatus, SecretGrant};
pub use server::{Server, ServerSpec, ServerStatus};
pub use shared::{Build, GitSource, Gpu, ObjectRef, Param, Resources, UploadSource};
pub use status::{Artifacts, BuildUpload, Candidate, PlacementStatus, PlanRecord, PluginUsed, SourceStatus, TransferStatus};

/// API group of every kind.
pub const GROUP: &str = "substratus.ai";
