//! Model loader for OCI registries: from `oci://registry/repository[:tag|@digest]` to files whose digests are those of their blobs.
//! It moves no bytes of a model, holds no token and knows nothing of Kubernetes.

mod facts;
mod manifest;
mod reference;
mod registry;
mod resolve;

use substratus_plugin::{Failure, http::HostHttp, loader};

pub use resolve::{refresh, resolve};

struct Plugin;

impl loader::Guest for Plugin {
    fn resolve(request: loader::Request, cursor: Option<String>) -> Result<loader::PlanPage, Failure> {
        resolve(&HostHttp, &request, cursor.as_deref())
    }

    fn refresh(request: loader::Request, path: String) -> Result<loader::File, Failure> {
        refresh(&request, &path)
    }
}

substratus_plugin::export_model_loader!(Plugin);
