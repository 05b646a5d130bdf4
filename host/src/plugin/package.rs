//! Makes a plugin: compiles a crate, encodes the module as a component, embeds the manifest. The same sources give the same
//! bytes. Knows nothing about registries.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::Parser;
use wit_component::ComponentEncoder;

use super::{MANIFEST_SECTION, Manifest, Refusal, component};

const TARGET: &str = "wasm32-unknown-unknown";

/// Why no plugin was made.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file cannot be read or a program not be run.
    #[error("{action}")]
    Io {
        /// What we were doing, with the path.
        action: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// Cargo failed; it said why on its own.
    #[error("cargo did not build {0}; see its messages above")]
    Cargo(PathBuf),
    /// The folder is no crate that makes a plugin.
    #[error("{folder} is no plugin crate: {reason}")]
    Crate {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The module is not one that a component can be made of.
    #[error(
        "the module cannot become a component: {0}; it is made with `substratus-plugin` or wit-bindgen, for wasm32-unknown-unknown"
    )]
    Module(String),
    /// What was made is not one that the host would run.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A crate's plugin, compiled and packaged.
#[derive(Debug)]
pub struct Built {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The component.
    pub bytes: Vec<u8>,
    /// Cargo's folder for what it makes.
    pub target: PathBuf,
}

/// Compiles the crate in a folder and packages it with the `plugin.yaml` beside it.
pub fn build(folder: &Path, target: Option<&Path>) -> Result<Built, PackageError> {
    let manifest = read_manifest(&folder.join("plugin.yaml"))?;
    let package = describe(folder)?;
    let target = target.map_or_else(|| package.target.clone(), Path::to_owned);
    compile(folder, &package, &target)?;
    let module = target.join(TARGET).join("release").join(format!("{}.wasm", package.library.replace('-', "_")));
    let bytes = package_module(&read(&module)?, &manifest)?;
    Ok(Built { manifest, bytes, target })
}

/// Reads and checks a `plugin.yaml`.
pub fn read_manifest(path: &Path) -> Result<Manifest, PackageError> {
    let bytes = read(path)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Refusal::Manifest { field: path.display().to_string(), reason: "the file is not UTF-8 text".to_owned() })?;
    Ok(Manifest::from_yaml(&text)?)
}

/// Makes a component of a core module, or takes a component as it is, and embeds the manifest.
pub fn package_module(module: &[u8], manifest: &Manifest) -> Result<Vec<u8>, PackageError> {
    let mut bytes = if Parser::is_core_wasm(module) {
        let encoder = ComponentEncoder::default().module(module).map_err(|error| PackageError::Module(format!("{error:#}")))?;
        encoder.validate(true).encode().map_err(|error| PackageError::Module(format!("{error:#}")))?
    } else {
        if !component::outline(module)?.manifests.is_empty() {
            return Err(Refusal::ManyManifests.into());
        }
        module.to_vec()
    };
    let json = manifest.to_json();
    CustomSection { name: MANIFEST_SECTION.into(), data: json.as_bytes().into() }.append_to_component(&mut bytes);
    // Nothing leaves here that the host would refuse.
    component::check(&bytes)?;
    Ok(bytes)
}

/// What Cargo knows of a crate.
struct Package {
    name: String,
    library: String,
    root: PathBuf,
    target: PathBuf,
}

fn describe(folder: &Path) -> Result<Package, PackageError> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<CargoPackage>,
        workspace_root: PathBuf,
        target_directory: PathBuf,
    }
    #[derive(Deserialize)]
    struct CargoPackage {
        name: String,
        manifest_path: PathBuf,
        targets: Vec<CargoTarget>,
    }
    #[derive(Deserialize)]
    struct CargoTarget {
        name: String,
        crate_types: Vec<String>,
    }
    let wrong = |reason: &str| PackageError::Crate { folder: folder.to_owned(), reason: reason.to_owned() };
    let file = folder.join("Cargo.toml");
    let file = file.canonicalize().map_err(|source| failed("find", &file, source))?;
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version=1", "--manifest-path"])
        .arg(&file)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|source| PackageError::Io { action: "run cargo; install Rust from https://rustup.rs".to_owned(), source })?;
    if !output.status.success() {
        return Err(PackageError::Cargo(folder.to_owned()));
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).map_err(|error| wrong(&format!("cargo's metadata: {error}")))?;
    let package = metadata.packages.into_iter().find(|package| package.manifest_path == file);
    let package = package.ok_or_else(|| wrong("its Cargo.toml is a workspace, name the folder of one package"))?;
    let library = package.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"));
    let library = library.ok_or_else(|| wrong("its Cargo.toml has no `[lib] crate-type = [\"cdylib\"]`"))?;
    Ok(Package {
        library: library.name.clone(),
        name: package.name,
        root: metadata.workspace_root,
        target: metadata.target_directory,
    })
}

fn compile(folder: &Path, package: &Package, target: &Path) -> Result<(), PackageError> {
    // Panic messages carry paths of sources: without these two, every machine would build other bytes.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = vec![format!("--remap-path-prefix={}=/plugin", package.root.display())];
    flags.extend(home.map(|home| format!("--remap-path-prefix={}=/cargo", home.display())));
    let flags = serde_json::Value::from(flags).to_string();
    let status = Command::new("cargo")
        .args(["build", "--release", "--lib", "--target", TARGET, "--package", &package.name])
        .arg("--config")
        .arg(format!("target.{TARGET}.rustflags={flags}"))
        .arg("--target-dir")
        .arg(target)
        .current_dir(folder)
        // Of the cargo that runs us, if one does: meant for the host's own build.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .stdout(Stdio::null())
        .status()
        .map_err(|source| PackageError::Io { action: "run cargo".to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(PackageError::Cargo(folder.to_owned())) }
}

fn read(path: &Path) -> Result<Vec<u8>, PackageError> {
    std::fs::read(path).map_err(|source| failed("read", path, source))
}

fn failed(action: &str, path: &Path, source: std::io::Error) -> PackageError {
    PackageError::Io { action: format!("{action} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest::from_yaml(r#"{name: a, version: 0.1.0, role: GpuPolicy, host: "0.1"}"#).unwrap()
    }

    #[test]
    fn a_module_without_wit_metadata_is_refused() {
        let module = wasm_encoder::Module::new().finish();
        let error = package_module(&module, &manifest()).unwrap_err().to_string();
        assert!(error.contains("does not export `substratus:plugin/gpu-placing@0.1.0`"), "{error}");
    }

    #[test]
    fn a_second_manifest_is_refused() {
        let mut bytes = wasm_encoder::Component::new().finish();
        CustomSection { name: MANIFEST_SECTION.into(), data: b"{}".into() }.append_to_component(&mut bytes);
        assert!(matches!(package_module(&bytes, &manifest()), Err(PackageError::Refused(Refusal::ManyManifests))));
    }
}
