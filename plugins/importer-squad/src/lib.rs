//! Dataset importer for `SQuAD` 2.0: two files of articles become rows of prompt and completion. Native code fetches and parses; it knows
//! nothing of Kubernetes.

mod plan;
mod rows;

use substratus_plugin::{Failure, http::HostHttp, importer, io};

pub use plan::{plan, refresh};
pub use rows::transform;

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

substratus_plugin::export_dataset_importer!(Plugin);
