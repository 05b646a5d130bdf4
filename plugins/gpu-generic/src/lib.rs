//! GPU policy for clusters of any origin. It knows labels that nodes carry, and no cloud's price list.

mod labels;
mod policy;

use substratus_plugin::{Failure, gpu};

pub use policy::place;

struct Plugin;

impl gpu::Guest for Plugin {
    fn place(request: gpu::Request, previous: Option<gpu::Placement>) -> Result<gpu::Placement, Failure> {
        place(&request, previous)
    }
}

substratus_plugin::export_gpu_policy!(Plugin);
