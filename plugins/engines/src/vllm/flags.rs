//! Which flags of vLLM follow from parameters and hardware. Pure; it knows no image and no probe.

use substratus_plugin::{
    Failure,
    adapter::{Gpu, Request},
    invalid,
    params::Params,
};

use crate::{
    GIB, asked,
    model::{self, Hardware},
};

const CPU_CONTEXT: u32 = 4096;
const DTYPES: [&str; 6] = ["auto", "half", "float16", "bfloat16", "float", "float32"];

/// Weights are quantised while they load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// `fp8` where the GPU can.
    Eight,
    /// `bitsandbytes`.
    Four,
}

/// Parameters that [`serve`](super::serve) reads.
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

/// Flags that follow from parameters and hardware, in a fixed order.
pub(super) fn chosen(
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
