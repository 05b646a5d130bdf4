//! The ways to store weights, told apart by file names. It chooses nothing.

use serde::{Deserialize, Serialize};

/// A way to store weights. In the order of our preference: safe and streamable first, pickles after anything safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Safetensors,
    Gguf,
    Pytorch,
    Onnx,
    Flax,
    Tensorflow,
    Openvino,
    Coreml,
    Rust,
}

impl Format {
    pub(crate) const ALL: [Self; 9] = [
        Self::Safetensors,
        Self::Gguf,
        Self::Pytorch,
        Self::Onnx,
        Self::Flax,
        Self::Tensorflow,
        Self::Openvino,
        Self::Coreml,
        Self::Rust,
    ];

    /// As in `spec.files.format` and in the facts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Pytorch => "pytorch",
            Self::Onnx => "onnx",
            Self::Flax => "flax",
            Self::Tensorflow => "tensorflow",
            Self::Openvino => "openvino",
            Self::Coreml => "coreml",
            Self::Rust => "rust",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// What the name of a file says; `None` for everything that is not weights. `bin_is_gguf`: see [`Filter`](crate::select::Filter).
    pub(crate) fn of(path: &str, bin_is_gguf: bool) -> Option<Self> {
        let lower = path.to_ascii_lowercase();
        let name = lower.rsplit('/').next().unwrap_or_default();
        let name = name.strip_suffix(".index.json").unwrap_or(name);
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "safetensors" => Some(Self::Safetensors),
            "gguf" => Some(Self::Gguf),
            "bin" | "xml" if name.starts_with("openvino") => Some(Self::Openvino),
            "bin" if bin_is_gguf => Some(Self::Gguf),
            "bin" | "pt" | "pth" | "ckpt" => Some(Self::Pytorch),
            "onnx" | "onnx_data" => Some(Self::Onnx),
            "msgpack" => Some(Self::Flax),
            "h5" | "tflite" | "pb" => Some(Self::Tensorflow),
            "mlmodel" => Some(Self::Coreml),
            "ot" => Some(Self::Rust),
            _ if lower.contains(".mlpackage/") => Some(Self::Coreml),
            _ if name.contains(".onnx_data") => Some(Self::Onnx),
            _ => None,
        }
    }
}
