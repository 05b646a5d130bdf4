//! The records of the WIT under one roof: the vocabulary in which the host and plugins talk.

use super::bindings::{adapter, gpu, importer, loader};

pub use adapter::exports::substratus::plugin::serving::{
    Cache, Container, Fitness, Gpu as ServingGpu, Metrics, Model as ServingModel, Probe, Request as ServeRequest,
};
pub use gpu::exports::substratus::plugin::gpu_placing::{Claim, Node, Placement, Request as PlaceRequest, Toleration};
pub use importer::exports::substratus::plugin::dataset_importing::{
    DatasetFacts, Decoding, Parsing, PlanPage as ImportPage, Request as ImportRequest, Shard, ShardReport,
};
pub use loader::exports::substratus::plugin::model_loading::{ModelFacts, PlanPage, Request as ResolveRequest};
pub use loader::substratus::plugin::files::{File, FileFilter, HttpOrigin, OciOrigin, Origin, XetOrigin};
pub use loader::substratus::plugin::http::{
    Error as HttpError, Method as HttpMethod, Request as HttpRequest, Response as HttpResponse,
};
pub use loader::substratus::plugin::log::Level as LogLevel;
pub use loader::substratus::plugin::types::{Digest, Extensions, Failure, Problem, Subject};

/// Algorithm of a digest: SHA-256 of the bytes.
pub const SHA256: &str = "sha256";

/// Algorithm of a digest: the object id of the bytes as a Git blob, named as Git object identifiers are
/// (<https://www.iana.org/assignments/uri-schemes/prov/gitoid>).
pub const GITOID: &str = "gitoid:blob:sha1";
