//! How vLLM is started: image, probes, caches; its flags are in `flags`. Pure; it knows no other engine.

mod flags;

use serde::{Deserialize, Serialize};
use substratus_plugin::{
    Failure,
    adapter::{Cache, Container, Fitness, Metrics, Request},
    params::Params,
};

pub use self::flags::{Bits, PARAMS};
use crate::{
    GIB, PORT, asked, fitness, liveness,
    model::{self, Hardware, Weights},
    pairs, readiness, startup, tmp, whole_gib,
};

/// Which images run, by hardware.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// NVIDIA.
    pub image: String,
    /// No GPU.
    pub cpu_image: String,
    /// AMD; none by default.
    pub rocm_image: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image: "docker.io/vllm/vllm-openai:v0.23.0".into(),
            cpu_image: "docker.io/vllm/vllm-openai-cpu:v0.23.0".into(),
            rocm_image: String::new(),
        }
    }
}

const HEALTH: &str = "/health";
const CACHE: &str = "/var/cache/vllm";
const CPU_KV_GIB: u64 = 4;

/// How well vLLM would serve it.
pub fn fit(request: &Request, config: &Config) -> Fitness {
    let hardware = Hardware::of(request);
    match (Weights::of(&request.model), hardware) {
        (Weights::Gguf, _) => fitness(0, "vLLM's support for GGUF is experimental; llama.cpp is made for it"),
        (Weights::Other(format), _) => fitness(0, format!("vLLM does not read {format}")),
        (_, Hardware::Other(vendor)) => fitness(0, format!("no vLLM image is known for GPUs of {vendor}")),
        (_, Hardware::Rocm(_)) if config.rocm_image.is_empty() => {
            fitness(0, "no vLLM image for AMD GPUs is configured (rocmImage)")
        }
        (_, Hardware::Cuda(gpu)) if model::capability(gpu).is_some_and(|capability| capability < 70) => {
            fitness(0, "vLLM needs compute capability 7.0 or later")
        }
        (Weights::Safetensors, Hardware::Cpu) => fitness(50, "safetensors without a GPU: vLLM's CPU image, slow"),
        (Weights::Safetensors, _) => fitness(100, "safetensors on GPUs: what vLLM is made for"),
        (Weights::Pytorch, Hardware::Cpu) => fitness(30, "pytorch pickles without a GPU: vLLM's CPU image, slow"),
        (Weights::Pytorch, _) => fitness(70, "vLLM reads pytorch pickles, safetensors would be better"),
        (Weights::Unknown, Hardware::Cpu) => fitness(20, "the format is unknown; vLLM's CPU image reads safetensors"),
        (Weights::Unknown, _) => fitness(40, "the format is unknown; vLLM reads safetensors"),
    }
}

/// The container that serves the model's folder.
pub fn serve(request: &Request, config: &Config, bits: Option<Bits>) -> Result<Container, Failure> {
    let mount = model::mount(&request.model)?;
    let weights = Weights::of(&request.model);
    let hardware = Hardware::of(request);
    let image = image(&weights, hardware, config)?;
    let mut warnings = Vec::new();
    warnings.extend(asked::unread(request, "vllm", PARAMS));
    if weights == Weights::Pytorch {
        warnings.push("the weights are pickles (pytorch): vLLM refuses those that would run code".into());
    }
    let mut args = vec![mount.to_owned()];
    let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
    flag("host", "0.0.0.0".into());
    flag("port", PORT.to_string());
    flag("served-model-name", request.model.name.clone());
    let chosen = flags::chosen(request, hardware, bits, &mut warnings)?;
    for (name, value) in chosen {
        flag(name, value);
    }
    if Params::new(&request.params).flag("trust_remote_code")? == Some(true) {
        args.push("--trust-remote-code".into());
        warnings.push("trust_remote_code: code from the model's repository runs in the engine".into());
    }
    let (cpu, memory) = needs(request, hardware);
    warnings.extend(asked::short_of_memory(request, memory));
    let gpus = hardware.gpu().map_or(0, |gpu| gpu.count);
    Ok(Container {
        image: image.to_owned(),
        command: vec!["vllm".into(), "serve".into()],
        args,
        env: env(hardware),
        port: PORT,
        startup: Some(startup(HEALTH, request.model.bytes)),
        readiness: readiness(HEALTH),
        liveness: Some(liveness(HEALTH)),
        // Workers of one engine talk through shared memory; 64 MiB, the default of container runtimes, is too little.
        shm: (gpus != 1).then_some(2 * GIB),
        caches: vec![Cache { name: "vllm".into(), mount_path: CACHE.into(), size: Some(10 * GIB) }, tmp()],
        cpu: Some(cpu),
        memory: Some(memory),
        metrics: Some(Metrics {
            path: "/metrics".into(),
            running: Some("vllm:num_requests_running".into()),
            waiting: Some("vllm:num_requests_waiting".into()),
        }),
        apis: apis(request.model.architecture.as_deref()),
        drain_seconds: 15,
        grace_seconds: 60,
        reason: reason(&weights, hardware),
        warnings,
        extensions: Vec::new(),
    })
}

fn image<'a>(weights: &Weights, hardware: Hardware<'_>, config: &'a Config) -> Result<&'a str, Failure> {
    match (weights, hardware) {
        (Weights::Gguf, _) => Err(Failure::Unsupported("vllm does not serve gguf well: use the engine llama.cpp".into())),
        (Weights::Other(format), _) => {
            Err(Failure::Unsupported(format!("vllm does not read {format}: load the model as safetensors (spec.files.format)")))
        }
        (_, Hardware::Other(vendor)) => {
            Err(Failure::Unsupported(format!("vllm has no image for GPUs of {vendor}: use nvidia or amd GPUs, or none")))
        }
        (_, Hardware::Rocm(_)) if config.rocm_image.is_empty() => Err(Failure::Unsupported(
            "vllm on AMD GPUs needs an image: set rocmImage in the Plugin's spec.config and grant it in images".into(),
        )),
        (_, Hardware::Rocm(_)) => Ok(&config.rocm_image),
        (_, Hardware::Cuda(_)) => Ok(&config.image),
        (_, Hardware::Cpu) => Ok(&config.cpu_image),
    }
}

/// Cores and bytes of the pod, beside what lies in GPUs.
fn needs(request: &Request, hardware: Hardware<'_>) -> (u32, u64) {
    match hardware.gpu() {
        Some(gpu) => (4, (6 + 4 * u64::from(gpu.count)) * GIB),
        None => (4, request.model.bytes.map_or(9 * GIB, |bytes| whole_gib(bytes / 4 * 5)) + (CPU_KV_GIB + 3) * GIB),
    }
}

fn env(hardware: Hardware<'_>) -> Vec<(String, String)> {
    // A user without a home or an entry in /etc/passwd is the rule in a restricted pod, and the compilers ask for both.
    let mut env = vec![
        ("DO_NOT_TRACK", "1"),
        ("HF_HOME", "/var/cache/vllm/huggingface"),
        ("HF_HUB_OFFLINE", "1"),
        ("HOME", CACHE),
        ("TORCHINDUCTOR_CACHE_DIR", "/var/cache/vllm/inductor"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("TRITON_CACHE_DIR", "/var/cache/vllm/triton"),
        ("USER", "vllm"),
        ("VLLM_CACHE_ROOT", CACHE),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("XDG_CACHE_HOME", CACHE),
    ];
    if matches!(hardware, Hardware::Cpu) {
        env.push(("VLLM_CPU_KVCACHE_SPACE", "4"));
    }
    pairs(env)
}

fn apis(architecture: Option<&str>) -> Vec<String> {
    let name = architecture.unwrap_or_default();
    let embeds = (name.ends_with("Model") && !name.ends_with("LMHeadModel")) || name.ends_with("ForMaskedLM");
    let apis: &[&str] = if embeds { &["openai/embeddings"] } else { &["openai/completions", "openai/chat"] };
    apis.iter().map(|api| (*api).to_owned()).collect()
}

fn reason(weights: &Weights, hardware: Hardware<'_>) -> String {
    match hardware.gpu() {
        Some(gpu) => {
            let name = gpu.gpu_type.as_deref().filter(|name| !name.is_empty()).unwrap_or("GPU");
            format!("vLLM: {} on {} × {name}", weights.phrase(), gpu.count)
        }
        None => format!("vLLM: {} without a GPU", weights.phrase()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use substratus_plugin::testing;

    use super::*;

    fn served(members: Value, bits: Option<Bits>) -> Result<Container, Failure> {
        serve(&testing::request("Server", members), &Config::default(), bits)
    }

    fn value(container: &Container, flag: &str) -> Option<String> {
        let at = container.args.iter().position(|arg| arg == flag)?;
        container.args.get(at + 1).cloned()
    }

    #[test]
    fn host_port_and_name_are_always_said() {
        for gpu in [json!(null), json!({"count": 1}), json!({"count": 4, "gpu_type": "nvidia-l4"})] {
            let container = served(json!({"gpu": gpu, "model": {"name": "falcon", "format": "safetensors"}}), None).unwrap();
            assert_eq!(container.args[0], "/content/model");
            assert_eq!(value(&container, "--host").as_deref(), Some("0.0.0.0"));
            assert_eq!(value(&container, "--port").as_deref(), Some("8080"));
            assert_eq!(value(&container, "--served-model-name").as_deref(), Some("falcon"));
        }
    }

    #[test]
    fn several_gpus_work_as_one() {
        let container = served(json!({"gpu": {"count": 4}}), None).unwrap();
        assert_eq!(value(&container, "--tensor-parallel-size").as_deref(), Some("4"));
        assert_eq!(container.shm, Some(2 * GIB));
        assert_eq!(served(json!({"gpu": {"count": 1}}), None).unwrap().shm, None);
        let too_many = json!({"gpu": {"count": 2}, "params": [["tensor_parallel_size", "4"]]});
        assert!(matches!(served(too_many, None), Err(Failure::Invalid(_))));
    }

    #[test]
    fn the_originals_bits_become_methods_that_the_gpu_has() {
        let of = |capability: &str, bits| {
            let container = served(json!({"gpu": {"compute_capability": capability}}), Some(bits)).unwrap();
            value(&container, "--quantization")
        };
        assert_eq!(of("8.9", Bits::Eight).as_deref(), Some("fp8"));
        assert_eq!(of("7.5", Bits::Eight).as_deref(), Some("bitsandbytes"));
        assert_eq!(of("8.9", Bits::Four).as_deref(), Some("bitsandbytes"));
        let awq = served(json!({"gpu": {}, "model": {"quantization": "awq"}}), Some(Bits::Four)).unwrap();
        assert_eq!(value(&awq, "--quantization"), None);
        assert!(awq.warnings.iter().any(|warning| warning.contains("already quantised (awq)")), "{:?}", awq.warnings);
    }

    #[test]
    fn weights_that_do_not_fit_are_said() {
        let gpu = json!({"count": 1, "memory": 24 * GIB});
        let model = json!({"format": "safetensors", "bytes": 83 * GIB});
        let container = served(json!({"gpu": gpu, "model": model}), None).unwrap();
        assert!(container.warnings.iter().any(|warning| warning.contains("4 such GPUs")), "{:?}", container.warnings);
        assert!(served(json!({"gpu": gpu, "model": model}), Some(Bits::Four)).unwrap().warnings.is_empty());
    }

    #[test]
    fn parameters_never_become_flags_of_their_own() {
        for (name, text) in [("dtype", "--api-key"), ("quantization", "--x"), ("quantization", "a b"), ("max_num_seqs", "-1")] {
            let members = json!({"gpu": {}, "params": [[name, json!(text).to_string()]]});
            assert!(matches!(served(members, None), Err(Failure::Invalid(_))), "{name}={text}");
        }
    }

    #[test]
    fn what_cannot_be_served_names_what_could() {
        for (members, hint) in [
            (json!({"model": {"format": "gguf"}}), "llama.cpp"),
            (json!({"model": {"format": "onnx"}}), "safetensors"),
            (json!({"gpu": {"vendor": "amd"}}), "rocmImage"),
            (json!({"gpu": {"vendor": "intel"}}), "nvidia or amd"),
            (json!({"model": {"mount_path": "relative"}}), "mounted"),
        ] {
            match served(members, None) {
                Err(Failure::Unsupported(text)) => assert!(text.contains(hint), "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
