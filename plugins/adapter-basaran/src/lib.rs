//! Server adapter that stands in for basaran, the original's server image. Its engine is gone: it plans vLLM or llama.cpp, which
//! serve the same API. How they are started is in `substratus_engines`.

use serde::{Deserialize, Serialize};
use substratus_engines::{asked, fitness, llama, model::Weights, vllm};
use substratus_plugin::{
    Failure,
    adapter::{Container, Fitness, Guest, Request},
    config,
};

const IMAGE: &str = "substratusai/model-server-basaran";

/// `Plugin.spec.config`: the images of the two engines.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Config {
    vllm: vllm::Config,
    llama_cpp: llama::Config,
}

/// Never chosen by itself: only for who asks for the image.
pub fn fit(request: &Request) -> Fitness {
    if request.image.as_deref().is_some_and(is_basaran) {
        fitness(100, format!("the image {IMAGE} was asked for"))
    } else {
        fitness(0, format!("stands in for the image {IMAGE} only"))
    }
}

/// llama.cpp for GGUF, vLLM for everything else.
pub fn serve(request: &Request) -> Result<Container, Failure> {
    let config: Config = config::parse(&request.config)?;
    let four = asked::env_flag(request, "MODEL_LOAD_IN_4BIT")?;
    let eight = asked::env_flag(request, "MODEL_LOAD_IN_8BIT")?;
    let gone = "basaran is no longer developed, this engine serves the same API in its place";
    if Weights::of(&request.model) == Weights::Gguf {
        let mut container = llama::serve(request, &config.llama_cpp)?;
        if four || eight {
            container.warnings.push("GGUF weights are already quantised; MODEL_LOAD_IN_4BIT and _8BIT change nothing".into());
        }
        container.reason = format!("{} ({gone})", container.reason);
        return Ok(container);
    }
    // As in the original, four bits win where both are set.
    let bits = match (four, eight) {
        (true, _) => Some(vllm::Bits::Four),
        (false, true) => Some(vllm::Bits::Eight),
        (false, false) => None,
    };
    let mut container = vllm::serve(request, &config.vllm, bits)?;
    container.reason = format!("{} ({gone})", container.reason);
    Ok(container)
}

/// By the last two parts of the repository, whatever the registry, tag or digest.
fn is_basaran(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    name == IMAGE || name.ends_with(&format!("/{IMAGE}"))
}

struct Plugin;

impl Guest for Plugin {
    fn fit(request: Request) -> Fitness {
        fit(&request)
    }

    fn serve(request: Request) -> Result<Container, Failure> {
        serve(&request)
    }
}

substratus_plugin::export_server_adapter!(Plugin);

#[cfg(test)]
mod tests {
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::adapter_cases(env!("CARGO_MANIFEST_DIR"), fit, serve);
    }

    #[test]
    fn the_manifest_tells_the_same_defaults() {
        let manifest = testing::manifest_defaults(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(manifest, serde_json::json!(Config::default()));
    }

    #[test]
    fn the_image_by_any_spelling() {
        for image in [IMAGE, "docker.io/substratusai/model-server-basaran:v1", "r.example:5000/substratusai/model-server-basaran"]
        {
            assert!(is_basaran(image), "{image}");
        }
        for image in ["substratusai/model-server-basaran-2", "x-substratusai/model-server-basaran", "basaran"] {
            assert!(!is_basaran(image), "{image}");
        }
    }
}
