//! A real inference engine, a real `JupyterLab`, a real trainer and a model small enough for tests, made once by the scripts
//! beside this package and cached outside the work tree. Must not know images, registries or clusters.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// The tests' own folder, where the scripts are.
const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Where tools and models are kept between runs unless told otherwise: `~/.cache/substratus`, as the scripts have it.
pub fn cache() -> Result<PathBuf> {
    let home = std::env::home_dir().context("find the home folder for the cache; set HOME")?;
    Ok(home.join(".cache/substratus"))
}

/// The root file system of an image with llama.cpp's HTTP server; its entry point is `/app/llama-server`.
pub fn root(cache: &Path) -> Result<PathBuf> {
    made_by("engine/build.sh", cache)
}

/// The root file system of an image with `JupyterLab`, where `jupyter` is on the path.
pub fn jupyter(cache: &Path) -> Result<PathBuf> {
    made_by("jupyter/build.sh", cache)
}

/// The root file system that images are built in, but for `BuildKit` itself: git, ssh, runc and a shell.
pub fn builder(cache: &Path) -> Result<PathBuf> {
    made_by("buildkit/root.sh", cache)
}

/// The root file system that the small trainer of `examples/trainer` runs in.
pub fn trainer(cache: &Path) -> Result<PathBuf> {
    made_by("trainer/build.sh", cache)
}

/// Length of the encoder's vectors, as its script has it.
pub const ENCODED: usize = 32;

/// A random llama of 0.5 MB, the same weights in two layouts, and a random encoder.
#[derive(Debug, Clone)]
pub struct TinyModel {
    /// One GGUF file.
    pub gguf: PathBuf,
    /// A Hugging Face repository: safetensors, config, tokenizer.
    pub repository: PathBuf,
    /// A BERT as one GGUF file: it makes vectors of [`ENCODED`] numbers.
    pub encoder: PathBuf,
}

/// Makes the tiny model, or finds it.
pub fn tiny_model(cache: &Path) -> Result<TinyModel> {
    Ok(TinyModel::of(&made_by("model/build.sh", cache)?))
}

impl TinyModel {
    /// The one in a folder that the script has made.
    pub fn of(made: &Path) -> Self {
        Self { gguf: made.join("tiny.gguf"), repository: made.join("hf"), encoder: made.join("encoder.gguf") }
    }
}

/// The Python that has the real `huggingface_hub` client.
pub fn python(cache: &Path) -> Result<PathBuf> {
    Ok(made_by("python.sh", cache)?.join("bin/python"))
}

/// The Python that plain importers of the benches run in: `pyarrow` and `datasets`.
pub fn bench_python(cache: &Path) -> Result<PathBuf> {
    Ok(made_by("bench-python.sh", cache)?.join("bin/python"))
}

/// Each script takes the cache, makes what is missing under a name that holds the hash of its inputs, and prints the path.
pub(crate) fn made_by(script: &str, cache: &Path) -> Result<PathBuf> {
    let output = Command::new(Path::new(HERE).join(script))
        .arg(cache)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run tests/{script}"))?;
    let printed = String::from_utf8(output.stdout).with_context(|| format!("read what tests/{script} printed"))?;
    let made = PathBuf::from(printed.trim_end());
    if !output.status.success() || !made.is_absolute() {
        bail!("tests/{script} failed ({}); its output is above, run it by hand to see more", output.status);
    }
    Ok(made)
}
