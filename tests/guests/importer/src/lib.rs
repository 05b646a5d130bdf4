//! A dataset importer that misbehaves as the parameter `do` says, one way at a time. Test material: it knows how, and nothing of who
//! stops it.

mod plans;
mod transforms;

use substratus_plugin::importer::{File, Guest, Outputs, PlanPage, Reader, Request, Shard, ShardReport};
use substratus_plugin::{Failure, io, params::Params};

fn parameter(request: &Request, name: &str) -> String {
    Params::new(&request.params).text(name).ok().flatten().unwrap_or_default()
}

struct Plugin;

impl Guest for Plugin {
    fn plan(request: Request, cursor: Option<String>) -> Result<PlanPage, Failure> {
        Ok(plans::plan(&parameter(&request, "do"), &parameter(&request, "url"), cursor.as_deref()))
    }

    fn refresh(_: Request, path: String) -> Result<File, Failure> {
        // Another file than the one asked for.
        Ok(plans::file(&format!("{path}.other"), "https://hub.example/x"))
    }

    fn transform(request: Request, _: Shard, inputs: Vec<Reader>, outputs: &Outputs) -> Result<ShardReport, Failure> {
        transforms::transform(&parameter(&request, "do"), &io::inputs(&inputs), outputs)
    }
}

substratus_plugin::export_dataset_importer!(Plugin);
