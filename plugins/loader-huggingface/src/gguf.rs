//! GGUF files: what a file name says of its quantisation and shards, and which of several to take. Pure.

/// Best compromise first; what stands further down is taken only where nothing above is there. The first is what other GGUF
/// tools default to as well.
const PREFERENCE: &[&str] = &[
    "Q4_K_M",
    "Q4_K_XL",
    "Q4_K_L",
    "Q4_K_S",
    "Q5_K_M",
    "Q5_K_S",
    "MXFP4",
    "MXFP4_MOE",
    "Q4_0",
    "Q4_1",
    "IQ4_NL",
    "IQ4_XS",
    "Q6_K",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q3_K_L",
    "Q3_K_M",
    "Q3_K_S",
    "BF16",
    "F16",
    "FP16",
    "F32",
    "FP32",
];

/// Vision projectors are small: precision first.
const PROJECTOR_PREFERENCE: &[&str] = &["F16", "FP16", "BF16", "F32", "FP32", "Q8_0"];

/// Which GGUF of a repository to fetch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    /// Its name without shard numbers: all files with this name belong to it.
    pub(crate) model: String,
    /// The file an engine opens: the first shard.
    pub(crate) entrypoint: String,
    pub(crate) quantization: Option<String>,
    pub(crate) projector: Option<String>,
    /// What else there would have been.
    pub(crate) others: Vec<String>,
}

/// Chooses among GGUF paths; `None` where none is a model.
pub(crate) fn pick(paths: &[&str]) -> Option<Pick> {
    let mut sorted: Vec<&str> = paths.to_vec();
    sorted.sort_unstable();
    let is_model = |path: &&&str| !is_projector(path) && !is_matrix(path);
    let models: Vec<&str> = sorted.iter().filter(is_model).copied().collect();
    let best = best(&models, PREFERENCE)?;
    let model = model_name(best);
    let entrypoint = models.iter().find(|path| model_name(path) == model)?;
    let mut others: Vec<String> = Vec::new();
    for other in models.iter().filter(|path| model_name(path) != model) {
        let name = quantization(other).unwrap_or_else(|| model_name(other));
        if !others.contains(&name) {
            others.push(name);
        }
    }
    let projectors: Vec<&str> = sorted.iter().filter(|path| is_projector(path)).copied().collect();
    Some(Pick {
        entrypoint: (*entrypoint).to_owned(),
        quantization: quantization(best),
        projector: self::best(&projectors, PROJECTOR_PREFERENCE).map(str::to_owned),
        model,
        others,
    })
}

/// The path without `-00001-of-00003`.
pub(crate) fn model_name(path: &str) -> String {
    let Some(stem) = strip_gguf(path) else { return path.to_owned() };
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((rest, total)) = stem.rsplit_once("-of-")
        && let Some((name, part)) = rest.rsplit_once('-')
        && is_number(total)
        && is_number(part)
    {
        return format!("{name}.gguf");
    }
    path.to_owned()
}

/// Whether it is a vision projector, which goes along with a model.
pub(crate) fn is_projector(path: &str) -> bool {
    file_name(path).to_ascii_lowercase().contains("mmproj")
}

/// `Q4_K_M` of `llama-2-13b.q4_k_m.gguf`; folders count too.
pub(crate) fn quantization(path: &str) -> Option<String> {
    let model = model_name(path);
    let stem = strip_gguf(&model).unwrap_or(&model);
    let upper = stem.to_ascii_uppercase();
    upper.rsplit(['-', '.', '/', ' ']).find_map(|token| {
        let after_underscores = token.match_indices('_').filter_map(|(at, _)| token.get(at + 1..));
        std::iter::once(token).chain(after_underscores).find(|name| is_quantization(name)).map(str::to_owned)
    })
}

fn is_quantization(name: &str) -> bool {
    if ["F16", "FP16", "BF16", "F32", "FP32", "MXFP4", "MXFP4_MOE"].contains(&name) {
        return true;
    }
    let bits = name.strip_prefix('I').or_else(|| name.strip_prefix('T')).unwrap_or(name).strip_prefix('Q');
    let Some(rest) = bits.and_then(|bits| bits.strip_prefix(|c: char| ('1'..='8').contains(&c))) else { return false };
    rest.is_empty() || rest.starts_with('_')
}

fn best<'a>(sorted: &[&'a str], preference: &[&str]) -> Option<&'a str> {
    let rank = |path: &str| {
        let quantization = quantization(path);
        preference.iter().position(|name| Some(*name) == quantization.as_deref()).unwrap_or(preference.len())
    };
    sorted.iter().min_by_key(|path| rank(path)).copied()
}

fn is_matrix(path: &str) -> bool {
    file_name(path).to_ascii_lowercase().contains("imatrix")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn strip_gguf(path: &str) -> Option<&str> {
    path.strip_suffix(".gguf").or_else(|| path.strip_suffix(".GGUF"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_quantisation() {
        for (path, expected) in [
            ("llama-2-13b-chat.Q4_K_M.gguf", Some("Q4_K_M")),
            ("llama-2-13b-chat.q4_0.gguf", Some("Q4_0")),
            ("Qwen3-8B-UD-Q4_K_XL.gguf", Some("Q4_K_XL")),
            ("model_iq4_xs.gguf", Some("IQ4_XS")),
            ("BF16/model-00001-of-00002.gguf", Some("BF16")),
            ("gpt-oss-20b-mxfp4.gguf", Some("MXFP4")),
            ("tinyllama-f16.gguf", Some("F16")),
            ("Q-model.gguf", None),
            ("qwen2-7b.gguf", None),
            ("model.bin", None),
        ] {
            assert_eq!(quantization(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_documented_choice() {
        let pick = pick(&["m.Q8_0.gguf", "m.Q4_K_M.gguf", "m.Q2_K.gguf", "mmproj-f32.gguf", "mmproj-f16.gguf"]).unwrap();
        assert_eq!(pick.entrypoint, "m.Q4_K_M.gguf");
        assert_eq!(pick.projector.as_deref(), Some("mmproj-f16.gguf"));
        assert_eq!(pick.others, ["Q2_K", "Q8_0"]);
    }

    #[test]
    fn shards_belong_together() {
        let paths = ["Q4_K_M/m-Q4_K_M-00002-of-00002.gguf", "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf", "m-Q8_0.gguf"];
        let pick = pick(&paths).unwrap();
        assert_eq!(pick.entrypoint, "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf");
        assert_eq!(pick.model, "Q4_K_M/m-Q4_K_M.gguf");
        assert_eq!(model_name(paths[0]), pick.model);
        assert_eq!(model_name("m-1-of-2.gguf"), "m-1-of-2.gguf");
    }

    #[test]
    fn a_projector_alone_is_no_model() {
        assert_eq!(pick(&["mmproj-f16.gguf", "imatrix.gguf"]), None);
    }
}
