//! The images that pods of a platform run, pushed to the cluster's registry. It must not know what is installed from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use substratus::settings::{BUILDER_IMAGE, NOTEBOOK_IMAGE};

use super::shelf::Shelf;
use crate::image::{self, Image, Layer};
use crate::{engine, guests};

/// Public name of the operator's image, less the registry.
const OPERATOR: &str = "substratus/substratus";
/// Public name of the engine's image, less the registry, and the tags that the adapter asks for.
const ENGINE: (&str, [&str; 2]) = ("ggml-org/llama.cpp", ["server", "server-cuda"]);

/// The hub's image has no public name.
const HUB: &str = "substratus-tests/substratus-hub";

/// Packs and pushes the operator with its bundled plugins; returns its name by digest, because a node keeps what a tag once was.
pub(super) async fn operator(shelf: &Shelf, program: &Path) -> Result<String> {
    let work = tempfile::tempdir().context("making a folder for the image")?;
    let program = stripped(program, work.path())?;
    let plugins = plugins(work.path())?;
    shelf.put(&image::operator(&program, Some(&plugins))?.build()?, OPERATOR, "dev").await
}

/// Packs and pushes the hub with the tiny model, on a busybox.
pub(super) async fn hub(shelf: &Shelf) -> Result<String> {
    let work = tempfile::tempdir().context("making a folder for the image")?;
    let program = stripped(&beside("substratus-hub")?, work.path())?;
    let model = engine::tiny_model(&engine::cache()?)?;
    let model = model.gguf.parent().context("the tiny model lies in a folder")?.to_owned();
    let mut image = image::busybox()?;
    image.layers.push(Layer::default().file("bin/substratus-hub", &program, 0o755)?);
    image.layers.push(Layer::default().tree("model", &model)?);
    shelf.put(&image.build()?, HUB, "dev").await
}

/// A program that cargo puts beside our own, or one folder above a test's.
pub(super) fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding our own program")?;
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
        .with_context(|| format!("cannot find `{name}` near our own program; `cargo build --workspace --bins` makes it"))
}

/// Packs and pushes llama.cpp's server under both names; without a GPU the CUDA one is the same program.
pub(super) async fn engine(shelf: &Shelf) -> Result<String> {
    let image = Image {
        layers: vec![Layer::default().tree("", &engine::root(&engine::cache()?)?)?],
        entrypoint: vec!["/app/llama-server".to_owned()],
        ..Image::default()
    };
    let built = image.build()?;
    let mut name = String::new();
    for tag in ENGINE.1 {
        name = shelf.put(&built, ENGINE.0, tag).await?;
    }
    Ok(name)
}

/// Packs and pushes a real `JupyterLab` under the name that a Notebook without an image runs.
pub(super) async fn notebook(registry: &str) -> Result<()> {
    let (_, name) = NOTEBOOK_IMAGE.split_once('/').context("a registry in the image's name")?;
    let (name, tag) = name.split_once(':').context("a tag in the image's name")?;
    let image = Image {
        layers: vec![Layer::default().tree("", &engine::jupyter(&engine::cache()?)?)?],
        env: [("PATH".to_owned(), "/usr/bin".to_owned()), ("HOME".to_owned(), "/tmp".to_owned())].into(),
        ..Image::default()
    };
    image.build()?.push(registry, name, tag).await?;
    Ok(())
}

/// Packs and pushes a real `BuildKit` under the name that builds run where nothing is said.
pub(super) async fn builder(registry: &str) -> Result<()> {
    let (_, name) = BUILDER_IMAGE.split_once('/').context("a registry in the image's name")?;
    let (name, tag) = name.split_once(':').context("a tag in the image's name")?;
    let root = engine::builder(&engine::cache()?)?;
    image::builder(&root)?.build()?.push(registry, name, tag).await?;
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
