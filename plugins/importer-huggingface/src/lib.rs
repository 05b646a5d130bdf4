//! Dataset importer for the Hugging Face Hub: from `hf://datasets/org/name` to shards at a commit. It moves no bytes, holds no token and
//! knows nothing of Kubernetes.

mod asked;
mod hub;
mod plan;

use substratus_plugin::{Failure, http::HostHttp, importer, io};

pub use plan::{plan, refresh};

struct Plugin;

impl importer::Guest for Plugin {
    fn plan(request: importer::Request, _: Option<String>) -> Result<importer::PlanPage, Failure> {
        plan(&HostHttp, &request, None)
    }

    fn refresh(request: importer::Request, path: String) -> Result<importer::File, Failure> {
        refresh(&request, &path)
    }

    fn transform(
        request: importer::Request,
        shard: importer::Shard,
        inputs: Vec<importer::Reader>,
        outputs: &importer::Outputs,
    ) -> Result<importer::ShardReport, Failure> {
        transform(&request, &shard, &io::inputs(&inputs), outputs)
    }
}

/// Nothing is ever mapped.
pub fn transform(
    _: &importer::Request,
    shard: &importer::Shard,
    _: &[&dyn io::Input],
    _: &dyn io::Outputs,
) -> Result<importer::ShardReport, Failure> {
    Err(Failure::Internal(format!("shard {} has nothing to map", shard.name)))
}

substratus_plugin::export_dataset_importer!(Plugin);
