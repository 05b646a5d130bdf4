//! GPU policy for Google Kubernetes Engine. It knows GKE's accelerator names, no node and no other cloud.

mod policy;
mod table;

use substratus_plugin::{Failure, gpu};

pub use policy::place;

struct Plugin;

impl gpu::Guest for Plugin {
    fn place(request: gpu::Request, previous: Option<gpu::Placement>) -> Result<gpu::Placement, Failure> {
        place(&request, previous)
    }
}

substratus_plugin::export_gpu_policy!(Plugin);
