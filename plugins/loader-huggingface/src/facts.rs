//! What the hub and the model's own `config.json` say of a model. Lenient: what is missing or odd is left out.

use serde_json::Value;
use substratus_plugin::loader::ModelFacts;

use crate::{api, api::Info, format::Format, select::Decision};

const CONTEXT_KEYS: [&str; 6] =
    ["max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx"];

/// Puts together what is known. Multi-modal models keep their language model's settings in `text_config`.
pub(crate) fn facts(info: &Info, config: Option<&Value>, decision: &Decision) -> ModelFacts {
    let config = config.unwrap_or(&Value::Null);
    let is_gguf = decision.format == Some(Format::Gguf);
    let tensors = api::counts(info.safetensors.get("parameters").unwrap_or(&Value::Null));
    let either = |key: &str| config.get(key).or_else(|| config.get("text_config")?.get(key)).filter(|value| !value.is_null());
    let own_dtype = || either("torch_dtype").or_else(|| either("dtype")).and_then(text);
    let gguf = |key: &str| info.gguf.get(key).filter(|_| is_gguf);
    ModelFacts {
        format: decision.format.map(|format| format.name().to_owned()),
        architecture: gguf("architecture").and_then(text).or_else(|| {
            config.get("architectures").and_then(|list| list.get(0)).or_else(|| config.get("model_type")).and_then(text)
        }),
        parameters: gguf("total").and_then(Value::as_u64).or_else(|| parameters(info)),
        dtype: own_dtype().or_else(|| tensors.values().next().map(|name| dtype(name))).filter(|_| !is_gguf),
        quantization: decision
            .quantization
            .clone()
            .or_else(|| either("quantization_config").and_then(|config| config.get("quant_method")).and_then(text)),
        license: license(info),
        context_length: gguf("context_length")
            .and_then(small)
            .or_else(|| CONTEXT_KEYS.iter().find_map(|key| either(key).and_then(small))),
        entrypoint: decision.entrypoint.clone(),
    }
}

fn parameters(info: &Info) -> Option<u64> {
    let total = info.safetensors.get("total").and_then(Value::as_u64);
    total.or_else(|| {
        let counts = info.safetensors.get("parameters")?.as_object()?;
        counts.values().map(Value::as_u64).try_fold(0_u64, |sum, count| sum.checked_add(count?))
    })
}

/// The card's licence; `other` is explained by `license_name`. Repositories without a card often have the tag.
fn license(info: &Info) -> Option<String> {
    let card = |key: &str| info.card.get(key).and_then(|value| text(value).or_else(|| text(value.get(0)?)));
    let tag = || {
        let tags = info.tags.as_array()?;
        tags.iter().filter_map(Value::as_str).find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned)
    };
    match card("license").or_else(tag) {
        Some(license) if license == "other" => Some(card("license_name").unwrap_or(license)),
        license => license,
    }
}

/// The name that `config.json` would use.
fn dtype(tensor: &str) -> String {
    match tensor {
        "BF16" => "bfloat16".into(),
        "F16" => "float16".into(),
        "F32" => "float32".into(),
        other => other.to_ascii_lowercase(),
    }
}

/// A short text: the answer goes into a status.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?.trim();
    (!text.is_empty() && text.len() <= 128).then(|| text.to_owned())
}

fn small(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::select::Choice;

    fn decided(format: Format) -> Decision {
        Decision { choice: Choice::default(), format: Some(format), entrypoint: None, quantization: None, warnings: Vec::new() }
    }

    #[test]
    fn safetensors_with_a_configuration() {
        let info: Info = serde_json::from_value(json!({
            "cardData": {"license": "apache-2.0"}, "safetensors": {"parameters": {"BF16": 7, "F32": 1}, "total": 8},
        }))
        .unwrap();
        let config = json!({"architectures": ["FalconForCausalLM"], "max_position_embeddings": 2048,
            "quantization_config": {"quant_method": "awq"}});
        let facts = facts(&info, Some(&config), &decided(Format::Safetensors));
        assert_eq!(facts.architecture.as_deref(), Some("FalconForCausalLM"));
        assert_eq!((facts.parameters, facts.context_length), (Some(8), Some(2048)));
        assert_eq!(facts.dtype.as_deref(), Some("bfloat16"));
        assert_eq!(facts.quantization.as_deref(), Some("awq"));
        assert_eq!(facts.license.as_deref(), Some("apache-2.0"));
    }

    #[test]
    fn gguf_facts_come_from_the_hub() {
        let info: Info = serde_json::from_value(json!({
            "tags": ["gguf", "license:llama2"], "gguf": {"total": 13, "architecture": "llama", "context_length": 4096},
        }))
        .unwrap();
        let facts = facts(&info, None, &decided(Format::Gguf));
        assert_eq!((facts.parameters, facts.context_length), (Some(13), Some(4096)));
        assert_eq!((facts.architecture.as_deref(), facts.license.as_deref()), (Some("llama"), Some("llama2")));
    }

    #[test]
    fn odd_answers_are_left_out() {
        let info: Info = serde_json::from_value(json!({
            "cardData": {"license": ["mit", "x"]}, "tags": 7, "safetensors": {"parameters": {"BF16": "many"}},
        }))
        .unwrap();
        let config = json!({"architectures": "no list", "n_positions": -1, "torch_dtype": {"a": 1},
            "text_config": {"max_position_embeddings": 8192, "dtype": "float16"}});
        let facts = facts(&info, Some(&config), &decided(Format::Safetensors));
        assert_eq!((facts.architecture, facts.parameters, facts.context_length), (None, None, Some(8192)));
        assert_eq!(facts.license.as_deref(), Some("mit"));
        let named: Info = serde_json::from_value(json!({"cardData": {"license": "other", "license_name": "deepseek"}})).unwrap();
        assert_eq!(license(&named).as_deref(), Some("deepseek"));
    }
}
