//! The images that pods of a platform run, pushed to the cluster's registry. It must not know what is installed from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::image::{self, Image, Layer};
use crate::{engine, guests};

/// Public name of the operator's image, less the registry.
const OPERATOR: &str = "substratus/substratus";
/// Public name of the engine's image, less the registry, and the tags that the adapter asks for.
const ENGINE: (&str, [&str; 2]) = ("ggml-org/llama.cpp", ["server", "server-cuda"]);

/// Packs and pushes the operator with its bundled plugins; returns its name by digest, because a node keeps what a tag once was.
pub(super) async fn operator(registry: &str, program: &Path) -> Result<String> {
    let work = tempfile::tempdir().context("making a folder for the image")?;
    let program = stripped(program, work.path())?;
    let plugins = plugins(work.path())?;
    let digest = image::operator(&program, Some(&plugins))?.build()?.push(registry, OPERATOR, "dev").await?;
    Ok(format!("ghcr.io/{OPERATOR}@{digest}"))
}

/// Packs and pushes llama.cpp's server under both names; without a GPU the CUDA one is the same program.
pub(super) async fn engine(registry: &str) -> Result<()> {
    let image = Image {
        layers: vec![Layer::default().tree("", &engine::root(&engine::cache()?)?)?],
        entrypoint: vec!["/app/llama-server".to_owned()],
        ..Image::default()
    };
    let built = image.build()?;
    for tag in ENGINE.1 {
        built.push(registry, ENGINE.0, tag).await?;
    }
    Ok(())
}

/// A copy without what only a debugger reads, which is most of an unoptimised program.
fn stripped(program: &Path, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("substratus");
    let output = Command::new("strip")
        .arg("-o")
        .args([&copy, program])
        .output()
        .context("running `strip`; it is in the package binutils")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "stripping {}: {}", program.display(), words.trim());
    Ok(copy)
}

/// The bundled plugins, built where their sources changed.
fn plugins(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("plugins");
    fs::create_dir(&folder).context("making a folder for plugins")?;
    for source in guests::plugins()? {
        let name = source.rsplit('/').next().unwrap_or(&source);
        let to = folder.join(format!("{name}.wasm"));
        fs::copy(guests::component(&source)?, &to).with_context(|| format!("copying {name}"))?;
    }
    Ok(folder)
}
