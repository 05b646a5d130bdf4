//! The API types of `substratus.ai`: what a user may write and what the operator answers. No I/O, no client.
//!
//! `Model`, `Dataset`, `Server` and `Notebook` are compatible with the first Substratus operator: field names, defaults, condition types and
//! reasons are a contract that manifests and scripts rely on. What this project adds is optional everywhere.
//! [`crds`] makes the `CustomResourceDefinition`s; `crds/yaml` holds them as committed files and a test compares the two.

pub mod conditions;
mod dataset;
mod definition;
mod edits;
mod model;
mod notebook;
mod plugin;
mod plugin_source;
mod server;
mod shared;
mod status;

pub use dataset::{Dataset, DatasetSpec};
pub use definition::{MAX_DATASET_NAME, MAX_MODEL_NAME, MAX_NOTEBOOK_NAME, MAX_SERVER_NAME, crds, to_yaml};
pub use model::{FileFilter, Model, ModelSpec};
pub use notebook::{Notebook, NotebookSpec, NotebookStatus};
pub use plugin::{
    Activation, Claims, Grants, Plugin, PluginRevision, PluginRole, PluginSpec, PluginStatus, RevisionState, SecretGrant, Update,
    UpdateMode,
};
pub use plugin_source::{CaBundle, Ceiling, PluginSource, PluginSourceSpec, Unverified, Verify};
pub use server::{Server, ServerSpec, ServerStatus};
pub use shared::{
    Build, Capabilities, ClaimSource, EmptyDirSource, ExtraVolume, GitSource, Gpu, ObjectRef, Param, PodOptions, Resources,
    SeccompProfile, SecretSource, SecurityContext, UploadSource,
};
pub use status::{
    ArtifactStatus, Artifacts, BuildStatus, BuildUpload, Candidate, PlacementStatus, PlanRecord, PluginUsed, PublishStatus,
    SourceStatus, TransferStatus,
};

/// Status of a Model.
pub type ModelStatus = ArtifactStatus;
/// Status of a Dataset.
pub type DatasetStatus = ArtifactStatus;

/// API group of every kind.
pub const GROUP: &str = "substratus.ai";
