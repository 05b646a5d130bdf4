//! What the local hub publishes: the tiny model under the names that manifests use, and something large. It must not know
//! who loads it.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::engine::{self, TinyModel};
use crate::hub::{Content, Gated, Repo};

/// The tiny model as one GGUF file, under a name that manifests of the first operator have.
pub const TINY: &str = "tiiuae/falcon-40b";
/// The tiny model again, as another repository.
pub const SECOND: &str = "acme/tiny-second";
/// The tiny model as safetensors; files only for those who were let in.
pub const GATED: &str = "meta-llama/Llama-2-7b-hf";
/// The token that opens [`GATED`].
pub const TOKEN: &str = "hf_e2e_reader";
/// The tiny encoder as one GGUF file.
pub const ENCODER: &str = "acme/tiny-encoder";
/// The tiny model and a large file beside it.
pub const LARGE: &str = "acme/large";
/// Size of that file.
pub const LARGE_BYTES: u64 = 192 << 20;

/// All of them, with the tiny model made where it is missing.
pub fn repositories() -> Result<Vec<Repo>> {
    repositories_of(&engine::tiny_model(&engine::cache()?)?)
}

/// All of them, with this tiny model.
pub fn repositories_of(tiny: &TinyModel) -> Result<Vec<Repo>> {
    let gated = Repo::model(GATED).directory(&tiny.repository).context("reading the tiny model")?;
    let (llama, encoder) = (|id| gguf(id, &tiny.gguf, "llama", 512), gguf(ENCODER, &tiny.encoder, "bert", 128)?);
    Ok(vec![
        llama(TINY)?.revision("v1").file("README.md", "# The same weights\n").revision("v2"),
        llama(SECOND)?,
        gated.gated(Gated::Manual).reader(TOKEN),
        llama(LARGE)?.file("filler.dat", Content::noise(11, LARGE_BYTES)),
        encoder,
    ])
}

/// A repository with one GGUF, and the facts that the real hub reads from its header.
fn gguf(id: &str, file: &Path, architecture: &str, context_length: u32) -> Result<Repo> {
    let content = Content::file(file).with_context(|| format!("opening {}", file.display()))?;
    let name = file.file_name().context("a model's file has a name")?.to_string_lossy();
    Ok(Repo::model(id)
        .file(&name, content)
        .info("tags", json!(["gguf", "license:apache-2.0"]))
        .info("gguf", json!({"architecture": architecture, "context_length": context_length})))
}
