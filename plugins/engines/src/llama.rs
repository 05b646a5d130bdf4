//! How llama.cpp's server is started: image, flags, probes. Pure; what the user asked for is read in `asked`.

use serde::{Deserialize, Serialize};
use substratus_plugin::{
    Failure,
    adapter::{Container, Fitness, Metrics, Request},
    invalid,
    params::Params,
};

use crate::{
    GIB, PORT, asked, fitness, liveness,
    model::{self, Hardware, Weights},
    pairs, readiness, startup, tmp, whole_gib,
};

/// Which images run, by hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// No GPU.
    pub image: String,
    /// NVIDIA.
    pub cuda_image: String,
    /// AMD.
    pub rocm_image: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: "ghcr.io/ggml-org/llama.cpp:server".into(),
            cuda_image: "ghcr.io/ggml-org/llama.cpp:server-cuda".into(),
            rocm_image: "ghcr.io/ggml-org/llama.cpp:server-rocm".into(),
        }
    }
}

/// Parameters that [`serve`] reads.
pub const PARAMS: &[&str] = &["context_length", "model_file", "n_ctx", "n_gpu_layers", "n_parallel", "n_threads"];

const HEALTH: &str = "/health";
/// A model's full context may take more memory than its weights.
const DEFAULT_CONTEXT: u32 = 8192;
const UNKNOWN_CONTEXT: u32 = 4096;
/// More than any model has: all layers go to the GPU.
const ALL_LAYERS: u32 = 999;

/// How well llama.cpp would serve it.
pub fn fit(request: &Request) -> Fitness {
    match (Weights::of(&request.model), Hardware::of(request)) {
        (_, Hardware::Other(vendor)) => fitness(0, format!("no llama.cpp image is known for GPUs of {vendor}")),
        (Weights::Gguf, Hardware::Cpu) => fitness(100, "GGUF without a GPU: what llama.cpp is made for"),
        (Weights::Gguf, _) => fitness(100, "GGUF: what llama.cpp is made for"),
        (Weights::Unknown, _) => fitness(0, "the format is unknown, and llama.cpp reads only GGUF"),
        (weights, _) => fitness(0, format!("llama.cpp reads only GGUF, not {}", weights.name())),
    }
}

/// The container that serves one GGUF file.
pub fn serve(request: &Request, config: &Config) -> Result<Container, Failure> {
    let file = file(request)?;
    let hardware = Hardware::of(request);
    let image = match hardware {
        Hardware::Cpu => &config.image,
        Hardware::Cuda(_) => &config.cuda_image,
        Hardware::Rocm(_) => &config.rocm_image,
        Hardware::Other(vendor) => {
            return Err(Failure::Unsupported(format!(
                "llama.cpp has no image for GPUs of {vendor} here: use nvidia or amd GPUs, or none"
            )));
        }
    };
    let mut warnings: Vec<String> = asked::unread(request, "llama.cpp", PARAMS).into_iter().collect();
    let mut args = args(request, hardware, &file, &mut warnings)?;
    let apis: &[&str] = if embeds(request) {
        args.push("--embeddings".into());
        &["openai/embeddings"]
    } else {
        &["openai/completions", "openai/chat"]
    };
    // The weights are mapped, the context is allocated; the rest is the server.
    let memory = request.model.bytes.map_or(8 * GIB, |bytes| whole_gib(bytes / 20 * 21)) + 2 * GIB;
    warnings.extend(asked::short_of_memory(request, memory));
    Ok(Container {
        image: image.clone(),
        command: vec!["/app/llama-server".into()],
        args,
        env: pairs(vec![("HOME", "/tmp"), ("LLAMA_CACHE", "/tmp")]),
        port: PORT,
        startup: Some(startup(HEALTH, request.model.bytes)),
        readiness: readiness(HEALTH),
        liveness: Some(liveness(HEALTH)),
        shm: None,
        caches: vec![tmp()],
        cpu: Some(if hardware.gpu().is_some() { 2 } else { 4 }),
        memory: Some(memory),
        metrics: Some(Metrics {
            path: "/metrics".into(),
            running: Some("llamacpp:requests_processing".into()),
            waiting: Some("llamacpp:requests_deferred".into()),
        }),
        apis: apis.iter().map(|api| (*api).to_owned()).collect(),
        drain_seconds: 5,
        grace_seconds: 30,
        reason: reason(request, hardware),
        warnings,
        extensions: Vec::new(),
    })
}

fn args(request: &Request, hardware: Hardware<'_>, file: &str, warnings: &mut Vec<String>) -> Result<Vec<String>, Failure> {
    let params = Params::new(&request.params);
    let context = asked::context(request, "n_ctx")?;
    warnings.extend(context.warning);
    let known = request.model.context_length.map_or(UNKNOWN_CONTEXT, |most| most.min(DEFAULT_CONTEXT));
    let mut args = Vec::new();
    let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
    flag("--model", file.to_owned());
    flag("--host", "0.0.0.0".into());
    flag("--port", PORT.to_string());
    flag("--alias", request.model.name.clone());
    flag("--ctx-size", context.tokens.unwrap_or(known).to_string());
    if let Some(gpu) = hardware.gpu() {
        flag("--n-gpu-layers", layers(request)?.unwrap_or(ALL_LAYERS).to_string());
        if gpu.count > 1 {
            flag("--split-mode", "layer".into());
        }
    }
    let threads = params.parsed::<u32>("n_threads", "a number of threads")?.or(request.cpu);
    if let Some(threads) = threads.filter(|threads| *threads > 0) {
        flag("--threads", threads.to_string());
    }
    if let Some(slots) = params.parsed::<u32>("n_parallel", "a number of requests")?.filter(|slots| *slots > 0) {
        flag("--parallel", slots.to_string());
    }
    args.push("--metrics".into());
    Ok(args)
}

/// Encoders make vectors, not text: `bert`, `nomic-bert`, `gemma-embedding`.
fn embeds(request: &Request) -> bool {
    request.model.architecture.as_deref().is_some_and(|name| name.contains("bert") || name.contains("embedding"))
}

/// The parameter, or the stock image's variable. Negative means all, as in the stock image.
fn layers(request: &Request) -> Result<Option<u32>, Failure> {
    let expected = "a number of layers";
    let by_param = Params::new(&request.params).parsed::<i64>("n_gpu_layers", expected)?;
    let number = match (by_param, asked::env(request, "N_GPU_LAYERS")) {
        (Some(number), _) => Some(number),
        (None, Some(text)) => {
            let wrong = || invalid("spec.env.N_GPU_LAYERS", format!("is {text:?}, must be {expected}"));
            Some(text.parse::<i64>().map_err(|_| wrong())?)
        }
        (None, None) => None,
    };
    Ok(number.map(|number| u32::try_from(number).unwrap_or(ALL_LAYERS)))
}

/// The file to open: the user's word, the stock image's `MODEL`, the loader's word.
fn file(request: &Request) -> Result<String, Failure> {
    let mount = model::mount(&request.model)?;
    let param = Params::new(&request.params).text("model_file")?;
    let (name, field) = match (param, asked::env(request, "MODEL"), &request.model.entrypoint) {
        (Some(name), _, _) => (name, "spec.params.model_file"),
        (None, Some(name), _) => (name.to_owned(), "spec.env.MODEL"),
        (None, None, Some(name)) => (name.clone(), "status.source.entrypoint"),
        (None, None, None) => return Err(unnamed(request)),
    };
    let below = name.strip_prefix(mount).unwrap_or(&name).trim_start_matches('/');
    let is_inside = !below.is_empty() && below.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if is_inside && (name == below || name.starts_with(&format!("{mount}/"))) {
        return Ok(format!("{mount}/{below}"));
    }
    Err(invalid(field, format!("is {name:?}, must be a file below {mount}")))
}

fn unnamed(request: &Request) -> Failure {
    match Weights::of(&request.model) {
        Weights::Safetensors | Weights::Pytorch => Failure::Unsupported(
            "llama.cpp reads only gguf: use the engine vllm, or load the model as gguf (spec.files.format)".into(),
        ),
        Weights::Other(format) => {
            Failure::Unsupported(format!("llama.cpp reads only gguf, not {format}: load the model as gguf (spec.files.format)"))
        }
        Weights::Gguf | Weights::Unknown => {
            invalid("spec.params.model_file", "is missing: nobody said which file of the model is the GGUF to open")
        }
    }
}

fn reason(request: &Request, hardware: Hardware<'_>) -> String {
    let quantization = request.model.quantization.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
    match hardware.gpu() {
        Some(gpu) => {
            let name = gpu.gpu_type.as_deref().filter(|name| !name.is_empty()).unwrap_or("GPU");
            format!("llama.cpp: GGUF{quantization} on {} × {name}", gpu.count)
        }
        None => format!("llama.cpp: GGUF{quantization} without a GPU"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use substratus_plugin::testing;

    use super::*;

    fn served(members: Value) -> Result<Container, Failure> {
        serve(&testing::request("Server", members), &Config::default())
    }

    fn value(container: &Container, flag: &str) -> Option<String> {
        let at = container.args.iter().position(|arg| arg == flag)?;
        container.args.get(at + 1).cloned()
    }

    #[test]
    fn the_first_shard_is_opened_and_the_address_said() {
        let container = served(json!({"model": {"entrypoint": "q/m-00001-of-00002.gguf", "name": "llama"}})).unwrap();
        assert_eq!(value(&container, "--model").as_deref(), Some("/content/model/q/m-00001-of-00002.gguf"));
        assert_eq!(value(&container, "--host").as_deref(), Some("0.0.0.0"));
        assert_eq!(value(&container, "--port").as_deref(), Some("8080"));
        assert_eq!(value(&container, "--alias").as_deref(), Some("llama"));
        assert_eq!(value(&container, "--n-gpu-layers"), None);
        assert_eq!(container.image, Config::default().image);
    }

    #[test]
    fn the_stock_images_switches_still_work() {
        let members = json!({"gpu": {"count": 2}, "cpu": 8, "env": [["MODEL", "/content/model/model.bin"]],
            "params": [["n_gpu_layers", "30"]]});
        let container = served(members).unwrap();
        assert_eq!(value(&container, "--model").as_deref(), Some("/content/model/model.bin"));
        assert_eq!(value(&container, "--n-gpu-layers").as_deref(), Some("30"));
        assert_eq!(value(&container, "--split-mode").as_deref(), Some("layer"));
        assert_eq!(value(&container, "--threads").as_deref(), Some("8"));
        let all = served(json!({"gpu": {}, "model": {"entrypoint": "m.gguf"}, "env": [["N_GPU_LAYERS", "-1"]]})).unwrap();
        assert_eq!(value(&all, "--n-gpu-layers").as_deref(), Some("999"));
    }

    #[test]
    fn context_is_bounded_where_nobody_asked() {
        let context = |model: Value| {
            let container = served(json!({ "model": model })).unwrap();
            value(&container, "--ctx-size").unwrap()
        };
        assert_eq!(context(json!({"entrypoint": "m.gguf", "context_length": 131_072})), "8192");
        assert_eq!(context(json!({"entrypoint": "m.gguf", "context_length": 2048})), "2048");
        assert_eq!(context(json!({"entrypoint": "m.gguf"})), "4096");
    }

    #[test]
    fn encoders_offer_embeddings() {
        let of = |name: &str| served(json!({"model": {"entrypoint": "m.gguf", "architecture": name}})).unwrap();
        assert_eq!(of("nomic-bert").apis, ["openai/embeddings"]);
        assert!(of("nomic-bert").args.contains(&"--embeddings".to_owned()));
        assert!(!of("llama").args.contains(&"--embeddings".to_owned()));
    }

    #[test]
    fn no_file_outside_the_model_is_opened() {
        for file in ["../x.gguf", "/etc/passwd", "/content/model", "/content/model/../x", "/content/model2/x", "a//b"] {
            let result = served(json!({"params": [["model_file", json!(file).to_string()]]}));
            assert!(matches!(result, Err(Failure::Invalid(_))), "{file}: {result:?}");
        }
    }

    #[test]
    fn what_cannot_be_served_names_what_could() {
        match served(json!({"model": {"format": "safetensors"}})) {
            Err(Failure::Unsupported(text)) => assert!(text.contains("engine vllm"), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(served(json!({})), Err(Failure::Invalid(_))));
    }
}
