//! Server adapter for vLLM. How vLLM is started is in `substratus_engines::vllm`; here is only the plugin around it.

use substratus_engines::{fitness, vllm};
use substratus_plugin::{
    Failure,
    adapter::{Container, Fitness, Guest, Request},
    config,
};

/// How well vLLM fits.
pub fn fit(request: &Request) -> Fitness {
    match config::parse(&request.config) {
        Ok(config) => vllm::fit(request, &config),
        Err(_) => fitness(0, "the Plugin's configuration is not valid"),
    }
}

/// The container that serves.
pub fn serve(request: &Request) -> Result<Container, Failure> {
    vllm::serve(request, &config::parse(&request.config)?, None)
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
        assert_eq!(manifest, serde_json::json!(vllm::Config::default()));
    }
}
