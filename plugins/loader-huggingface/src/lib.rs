//! Model loader for the Hugging Face Hub: from `hf://org/name@revision` to a list of files at a commit. It moves no bytes,
//! holds no token and knows nothing of Kubernetes.

mod access;
mod api;
mod cursor;
mod errors;
mod facts;
mod format;
mod gguf;
mod near;
mod reference;
mod resolve;
mod select;

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
