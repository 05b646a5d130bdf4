//! What a question says of the model and the hardware, in the terms that decide. Pure.

use substratus_plugin::{
    Failure,
    adapter::{Gpu, Model, Request},
};

/// How the weights are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// What vLLM is made for.
    Safetensors,
    /// Pickles: vLLM reads them too.
    Pytorch,
    /// What llama.cpp is made for.
    Gguf,
    /// Nobody said: the model was trained, or loaded by a container.
    Unknown,
    /// Neither engine reads it.
    Other(String),
}

impl Weights {
    /// By the loader's word, and where it gave none by the entrypoint.
    pub fn of(model: &Model) -> Self {
        let extension = model.entrypoint.as_deref().and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
        let is_gguf = extension.is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
        match model.format.as_deref() {
            Some("safetensors") => Self::Safetensors,
            Some("pytorch") => Self::Pytorch,
            Some("gguf") => Self::Gguf,
            None | Some("") if is_gguf => Self::Gguf,
            None | Some("") => Self::Unknown,
            Some(other) => Self::Other(other.to_owned()),
        }
    }

    /// For a sentence.
    pub fn phrase(&self) -> String {
        match self {
            Self::Unknown => "weights of unknown format".into(),
            known => format!("{} weights", known.name()),
        }
    }

    /// The format's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pytorch => "pytorch",
            Self::Gguf => "gguf",
            Self::Unknown => "unknown",
            Self::Other(name) => name,
        }
    }
}

/// What the engine computes on.
#[derive(Clone, Copy, Debug)]
pub enum Hardware<'a> {
    /// No GPU was asked for.
    Cpu,
    /// NVIDIA, also where nobody said.
    Cuda(&'a Gpu),
    /// AMD.
    Rocm(&'a Gpu),
    /// Another vendor.
    Other(&'a str),
}

impl<'a> Hardware<'a> {
    /// By what was asked for: a GPU object with a count of 0 is none.
    pub fn of(request: &'a Request) -> Self {
        let Some(gpu) = request.gpu.as_ref().filter(|gpu| gpu.count > 0) else { return Self::Cpu };
        match gpu.vendor.as_deref() {
            None | Some("" | "nvidia") => Self::Cuda(gpu),
            Some("amd") => Self::Rocm(gpu),
            Some(other) => Self::Other(other),
        }
    }

    /// The GPUs, where they are ones that engines run on.
    pub fn gpu(self) -> Option<&'a Gpu> {
        match self {
            Self::Cuda(gpu) | Self::Rocm(gpu) => Some(gpu),
            Self::Cpu | Self::Other(_) => None,
        }
    }
}

/// Where the pod sees the artifacts.
pub fn mount(model: &Model) -> Result<&str, Failure> {
    model.mount_path.as_deref().filter(|path| path.starts_with('/')).map(|path| path.trim_end_matches('/')).ok_or_else(|| {
        Failure::Unsupported(format!(
            "the engine reads files, and the artifacts of model {} are not mounted: use an artifact bucket that can be",
            model.name
        ))
    })
}

/// `8.9` as tenths, so that versions compare.
pub fn capability(gpu: &Gpu) -> Option<u32> {
    let (major, minor) = gpu.compute_capability.as_deref()?.split_once('.')?;
    Some(major.parse::<u32>().ok()?.saturating_mul(10).saturating_add(minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn a_file_name_speaks_where_nobody_else_does() {
        let of = |model| {
            let request: Request = testing::request("Server", json!({ "model": model }));
            Weights::of(&request.model)
        };
        assert_eq!(of(json!({"entrypoint": "m.Q4_K_M.gguf"})), Weights::Gguf);
        assert_eq!(of(json!({})), Weights::Unknown);
        assert_eq!(of(json!({"format": "onnx"})), Weights::Other("onnx".into()));
    }

    #[test]
    fn no_count_is_no_gpu() {
        let request: Request = testing::request("Server", json!({"gpu": {"count": 0, "vendor": "nvidia"}}));
        assert!(matches!(Hardware::of(&request), Hardware::Cpu));
    }
}
