//! The questions that are asked while the time is taken: what the operator and the worker ask for a 40-billion-parameter model.
//! Must not know how long an answer takes.

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use substratus::plugin::HostCalls;
use substratus::plugin::types::{
    HttpError, HttpRequest, HttpResponse, ImportRequest, LogLevel, PlaceRequest, ResolveRequest, ServeRequest,
};

/// Four GPUs of a type.
pub(super) fn place() -> Result<PlaceRequest> {
    let subject = json!({"kind": "Server", "namespace": "default", "name": "falcon-40b"});
    let question = json!({"subject": subject, "gpu_type": "nvidia-l4", "count": 4, "cloud": "local", "nodes": [], "config": "{}", "extensions": []});
    serde_json::from_value(question).context("making the question of a GPU policy")
}

/// Weights of a format, on four GPUs. No adapter serves every format.
pub(super) fn serve(format: &str, entrypoint: Option<&str>) -> Result<ServeRequest> {
    let model = json!({"name": "falcon-40b", "format": format, "architecture": "FalconForCausalLM", "context_length": 2048,
        "bytes": 83_700_000_000_u64, "mount_path": "/content/model", "entrypoint": entrypoint});
    let gpu =
        json!({"count": 4, "gpu_type": "nvidia-l4", "vendor": "nvidia", "memory": 24_u64 << 30, "compute_capability": "8.9"});
    let subject = json!({"kind": "Server", "namespace": "default", "name": "falcon-40b"});
    let question =
        json!({"subject": subject, "model": model, "gpu": gpu, "params": [], "env": [], "config": "{}", "extensions": []});
    serde_json::from_value(question).context("making the question of a server adapter")
}

/// The first page of a repository.
pub(super) fn resolve() -> Result<ResolveRequest> {
    let subject = json!({"kind": "Model", "namespace": "default", "name": "falcon-40b"});
    let question = json!({"subject": subject, "source": "hf://tiiuae/falcon-40b", "params": [], "files": {"include": [], "exclude": []},
        "config": "{}", "extensions": []});
    serde_json::from_value(question).context("making the question of a loader")
}

/// A file of a data set.
pub(super) fn plan() -> Result<ImportRequest> {
    let subject = json!({"kind": "Dataset", "namespace": "default", "name": "squad"});
    let question = json!({"subject": subject, "source": "https://hub.example/rows.jsonl", "params": [],
        "files": {"include": [], "exclude": []}, "config": "{}", "extensions": []});
    serde_json::from_value(question).context("making the question of an importer")
}

/// A hub that answers at once.
#[derive(Debug)]
pub(super) struct Canned;

impl Canned {
    fn body(url: &str) -> String {
        const SHARDS: usize = 9;
        let shard = |number: usize| format!("model-{number:05}-of-{SHARDS:05}.safetensors");
        if url.contains("/revision/") {
            let siblings: Vec<_> = (1..=SHARDS).map(|number| json!({"rfilename": shard(number)})).collect();
            json!({"sha": "0".repeat(40), "siblings": siblings}).to_string()
        } else if url.contains("/tree/") {
            let file = |number: usize| {
                json!({"type": "file", "oid": "g", "size": 9_500_000_000_u64, "path": shard(number),
                    "lfs": {"oid": format!("{number:064x}"), "size": 9_500_000_000_u64, "pointerSize": 135}})
            };
            serde_json::Value::from((1..=SHARDS).map(file).collect::<Vec<_>>()).to_string()
        } else {
            json!({"architectures": ["FalconForCausalLM"]}).to_string()
        }
    }
}

impl HostCalls for Canned {
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let response = HttpResponse { status: 200, headers: Vec::new(), body: Self::body(&request.url).into_bytes() };
        std::future::ready(Ok(response)).boxed()
    }

    fn log(&self, _: LogLevel, _: &str) {}
}
