//! How vLLM is started: image, flags, probes, caches. Pure; what the user asked for is read in `asked`.

use serde::{Deserialize, Serialize};
use substratus_plugin::{
    Failure,
    adapter::{Cache, Container, Fitness, Gpu, Metrics, Request},
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

/// Weights are quantised while they load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// `fp8` where the GPU can.
    Eight,
    /// `bitsandbytes`.
    Four,
}

/// Parameters that [`serve`] reads.
pub const PARAMS: &[&str] = &[
    "context_length",
    "dtype",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "quantization",
    "tensor_parallel_size",
    "trust_remote_code",
];

const HEALTH: &str = "/health";
const CACHE: &str = "/var/cache/vllm";
const CPU_KV_GIB: u64 = 4;
const CPU_CONTEXT: u32 = 4096;
const DTYPES: [&str; 6] = ["auto", "half", "float16", "bfloat16", "float", "float32"];

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
    let chosen = flags(request, hardware, bits, &mut warnings)?;
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
        (Weights::Other(format), _) => Err(Failure::Unsupported(format!(
            "vllm does not read {format}: load the model as safetensors (spec.files.format)"
        ))),
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

/// Flags that follow from parameters and hardware, in a fixed order.
fn flags(
    request: &Request,
    hardware: Hardware<'_>,
    bits: Option<Bits>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let params = Params::new(&request.params);
    let mut flags = Vec::new();
    let context = asked::context(request, "max_model_len")?;
    warnings.extend(context.warning);
    let length = match (context.tokens, hardware) {
        (Some(tokens), _) => tokens.to_string(),
        // As much as fits beside the weights: a model's full context rarely does.
        (None, Hardware::Cuda(_) | Hardware::Rocm(_)) => "auto".into(),
        (None, _) => request.model.context_length.unwrap_or(CPU_CONTEXT).min(CPU_CONTEXT).to_string(),
    };
    flags.push(("max-model-len", length));
    flags.extend(dtype(request, hardware)?.map(|dtype| ("dtype", dtype)));
    flags.extend(quantization(request, hardware, bits, warnings)?.map(|method| ("quantization", method)));
    if let Some(share) = params.parsed::<f64>("gpu_memory_utilization", "a share such as 0.9")? {
        if !(share > 0.0 && share <= 1.0) {
            return Err(invalid("spec.params.gpu_memory_utilization", format!("is {share}, must be above 0 and at most 1")));
        }
        flags.push(("gpu-memory-utilization", share.to_string()));
    }
    if let Some(count) = params.parsed::<u32>("max_num_seqs", "a number of requests")?.filter(|count| *count > 0) {
        flags.push(("max-num-seqs", count.to_string()));
    }
    if let Some(gpu) = hardware.gpu() {
        let parallel = params.parsed::<u32>("tensor_parallel_size", "a number of GPUs")?.unwrap_or(gpu.count);
        if parallel == 0 || parallel > gpu.count {
            let reason = format!("is {parallel}, must be between 1 and the {} GPUs asked for", gpu.count);
            return Err(invalid("spec.params.tensor_parallel_size", reason));
        }
        if parallel > 1 {
            flags.push(("tensor-parallel-size", parallel.to_string()));
        }
        warnings.extend(too_large(request, gpu, bits));
    } else {
        warnings.push("without a GPU vLLM is slow, and its image needs a CPU with AVX-512".into());
    }
    Ok(flags)
}

fn dtype(request: &Request, hardware: Hardware<'_>) -> Result<Option<String>, Failure> {
    if let Some(asked) = Params::new(&request.params).text("dtype")? {
        if DTYPES.contains(&asked.as_str()) {
            return Ok(Some(asked));
        }
        return Err(invalid("spec.params.dtype", format!("is {asked:?}, must be one of {}", DTYPES.join(", "))));
    }
    Ok(match hardware {
        Hardware::Cpu => Some("bfloat16".into()),
        Hardware::Cuda(gpu) if model::capability(gpu).is_some_and(|capability| capability < 80) => Some("half".into()),
        _ => None,
    })
}

/// The parameter `quantization` wins over the original's 8-bit and 4-bit switches.
fn quantization(
    request: &Request,
    hardware: Hardware<'_>,
    bits: Option<Bits>,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, Failure> {
    if let Some(asked) = Params::new(&request.params).text("quantization")? {
        let is_name = asked.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) && !asked.starts_with('-');
        let wrong = || invalid("spec.params.quantization", format!("is {asked:?}, must be a method of vLLM such as fp8"));
        return if is_name { Ok(Some(asked)) } else { Err(wrong()) };
    }
    let Some(bits) = bits else { return Ok(None) };
    if let Some(method) = &request.model.quantization {
        warnings.push(format!("the weights are already quantised ({method}); they are served as they are"));
        return Ok(None);
    }
    let Some(gpu) = hardware.gpu() else {
        warnings.push("without a GPU the weights are not quantised; they are served as they are".into());
        return Ok(None);
    };
    let can_fp8 = model::capability(gpu).is_none_or(|capability| capability >= 80);
    Ok(Some(match bits {
        Bits::Eight if can_fp8 => {
            warnings.push("8-bit weights are fp8 in vLLM".into());
            "fp8".into()
        }
        Bits::Eight => {
            warnings.push("this GPU has no 8-bit kernels in vLLM; the weights are loaded in 4 bits".into());
            "bitsandbytes".into()
        }
        Bits::Four => "bitsandbytes".into(),
    }))
}

/// Nine tenths of the memory are usable. Only a warning: quantised weights are smaller than their files.
fn too_large(request: &Request, gpu: &Gpu, bits: Option<Bits>) -> Option<String> {
    let weights = request.model.bytes?;
    let weights = match bits {
        None => weights,
        Some(Bits::Eight) => weights / 2,
        Some(Bits::Four) => weights / 4,
    };
    let each = gpu.memory? / 10 * 9;
    let (needed, usable) = (weights / 100 * 102, each.checked_mul(u64::from(gpu.count))?);
    (each > 0 && needed > usable).then(|| {
        format!(
            "the weights take about {} GiB, {} GPUs have {} GiB usable: {} such GPUs would do",
            needed.div_ceil(GIB),
            gpu.count,
            usable / GIB,
            needed.div_ceil(each)
        )
    })
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
