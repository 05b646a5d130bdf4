//! What is known of a model: `ModelPack`'s config and our own annotation, else the names of the files. Pure.

use serde_json::Value;
use substratus_plugin::loader::{File, ModelFacts};

/// Longest text that is taken over.
const MAX_TEXT: usize = 200;
/// Ways to store weights, by the ending of a name.
const FORMATS: [(&str, &str); 8] = [
    ("safetensors", "safetensors"),
    ("gguf", "gguf"),
    ("bin", "pytorch"),
    ("pt", "pytorch"),
    ("pth", "pytorch"),
    ("ckpt", "pytorch"),
    ("onnx", "onnx"),
    ("msgpack", "flax"),
];

/// The format of a file that holds weights.
pub(crate) fn format_of(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    FORMATS.iter().find(|(known, _)| ending.eq_ignore_ascii_case(known)).map(|(_, format)| *format)
}

/// From the config, the annotation `ai.substratus.model` and the files.
pub(crate) fn facts(config: Option<&Value>, annotation: Option<&str>, files: &[File]) -> ModelFacts {
    let ours: Value = annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let text = |value: Option<&Value>| Some(value?.as_str()?.chars().take(MAX_TEXT).collect::<String>());
    let technical = |name: &str| text(config.and_then(|config| config.pointer(&format!("/config/{name}"))));
    let format = technical("format").or_else(|| by_names(files).map(str::to_owned));
    let entrypoint =
        text(ours.get("entrypoint")).or_else(|| if format.as_deref() == Some("gguf") { first_gguf(files) } else { None });
    ModelFacts {
        architecture: technical("architecture"),
        parameters: ours.get("parameters").and_then(Value::as_u64).or_else(|| parameters(&technical("paramSize")?)),
        dtype: technical("precision"),
        quantization: technical("quantization"),
        license: text(config.and_then(|config| config.pointer("/descriptor/licenses/0"))),
        context_length: ours.get("contextLength").and_then(Value::as_u64).and_then(|length| u32::try_from(length).ok()),
        entrypoint: entrypoint.filter(|entrypoint| files.iter().any(|file| file.path == *entrypoint)),
        format,
    }
}

/// In the order of the table: what is safe before pickles.
fn by_names(files: &[File]) -> Option<&'static str> {
    let found: Vec<&str> = files.iter().filter_map(|file| format_of(&file.path)).collect();
    FORMATS.iter().map(|(_, format)| *format).find(|format| found.contains(format))
}

/// The only one, or the first shard.
fn first_gguf(files: &[File]) -> Option<String> {
    let found: Vec<&str> = files.iter().map(|file| file.path.as_str()).filter(|path| format_of(path) == Some("gguf")).collect();
    match found.as_slice() {
        [only] => Some((*only).to_owned()),
        several => several.iter().find(|path| path.contains("-00001-of-")).map(|path| (*path).to_owned()),
    }
}

/// `6.7b` as a number.
fn parameters(text: &str) -> Option<u64> {
    let split = text.len().checked_sub(1)?;
    let (count, letter) = (text.get(..split)?, text.get(split..)?);
    let scale: u64 = match letter.to_ascii_lowercase().as_str() {
        "k" => 1_000,
        "m" => 1_000_000,
        "b" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        _ => return None,
    };
    let (whole, tenth) = count.split_once('.').unwrap_or((count, "0"));
    let tenth = tenth.get(..1)?.parse::<u64>().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(tenth * (scale / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, number) in [
            ("6.7b", Some(6_700_000_000)),
            ("1.0T", Some(1_000_000_000_000)),
            ("100m", Some(100_000_000)),
            ("b", None),
            ("", None),
            ("7", None),
            ("99999999999999t", None),
            ("1.üb", None),
        ] {
            assert_eq!(parameters(text), number, "{text}");
        }
    }
}
