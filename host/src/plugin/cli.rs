//! `substratus plugin …`: what authors of plugins do, with the host that runs them in a cluster. Knows no Kubernetes.

mod args;
mod check;
mod inspect;
mod install;
mod new;
mod offline;
mod verify;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use substratus_crds::{Grants, SecretGrant};

pub(crate) use self::args::RegistryArgs;
use self::args::{CacheArgs, Format, TargetArgs};
use self::check::Check;
use self::inspect::Inspect;
use self::install::Install;
use self::new::New;
use self::offline::{Export, Import};
use self::verify::Verify;
use super::cases::{self, AskError, Case};
use super::{HostCalls, Manifest, Offline, package};
use crate::worker::calls::LoaderCalls;
use crate::worker::egress::{Egress, Patience};
use crate::worker::secrets::Secrets;

/// Authoring plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Write the crate of a new plugin
    New(New),
    /// Compile a plugin's crate and package it as a component
    Build(Build),
    /// Check that a host would take a plugin, without running it
    Check(Check),
    /// Push a component to an OCI registry
    Push(Push),
    /// Print the Plugin object for a plugin of a registry
    Install(Install),
    /// Ask a plugin one question, in the real sandbox
    Run(Run),
    /// Run a plugin's cases, in the real sandbox
    Test(Test),
    /// Show what a plugin is, asks for and may be told
    Inspect(Inspect),
    /// Check that a plugin of a registry is signed by given keys
    Verify(Verify),
    /// Copy plugins and their signatures out of registries, into a folder or a tar file
    Export(Export),
    /// Copy plugins and their signatures from there into a registry
    Import(Import),
}

/// `plugin build`
#[derive(Debug, Args)]
pub struct Build {
    /// Folder of the crate, with its plugin.yaml
    #[arg(required_unless_present = "module")]
    folder: Option<PathBuf>,
    /// File to write [default: NAME.wasm in the crate's target/plugins folder]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Package this core module or component; nothing is compiled
    #[arg(long, value_name = "FILE", requires = "manifest", requires = "output", conflicts_with = "folder")]
    module: Option<PathBuf>,
    /// The manifest of --module
    #[arg(long, value_name = "FILE", requires = "module")]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// `plugin push`
#[derive(Debug, Args)]
pub struct Push {
    /// Component that `plugin build` wrote
    file: PathBuf,
    /// Where to: registry/repository:tag
    reference: String,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    format: Format,
}

/// `plugin run`
#[derive(Debug, Args)]
pub struct Run {
    /// Component that `plugin build` wrote
    file: PathBuf,
    /// resolve, refresh, place, fit or serve
    #[arg(long)]
    call: String,
    /// JSON file with the request; members left out are filled as in case files
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// Cursor of a page (resolve)
    #[arg(long)]
    cursor: Option<String>,
    /// Path of a file (refresh)
    #[arg(long)]
    path: Option<String>,
    /// Host that it may reach, such as <https://hub.example>; without any there is no network
    #[arg(long, value_name = "HOST")]
    grant: Vec<String>,
    /// Secret that it may use, taken from the environment, and a host that may get it
    #[arg(long, value_name = "USE=HOST")]
    send_secret: Vec<String>,
    /// JSON file with the placement before this one (place)
    #[arg(long, value_name = "FILE")]
    previous: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// `plugin test`
#[derive(Debug, Args)]
pub struct Test {
    /// Folder of the crate, with its plugin.yaml and cases/
    folder: PathBuf,
    /// Test this component instead of compiling the crate
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    format: Format,
}

impl PluginCommand {
    /// Does it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::New(args) => new::new(&args),
            Self::Build(args) => build(&args),
            Self::Check(args) => check::check(&args).await,
            Self::Install(args) => install::install(&args).await,
            Self::Push(args) => push(&args).await,
            Self::Run(args) => run(&args).await,
            Self::Test(args) => test(&args).await,
            Self::Inspect(args) => inspect::inspect(&args).await,
            Self::Verify(args) => verify::verify(&args).await,
            Self::Export(args) => offline::export(&args).await,
            Self::Import(args) => offline::import(&args).await,
        }
    }
}

fn build(args: &Build) -> anyhow::Result<ExitCode> {
    let (manifest, bytes, output) = match (&args.folder, &args.module, &args.manifest) {
        (_, Some(module), Some(manifest)) => {
            let manifest = package::read_manifest(manifest)?;
            let bytes = std::fs::read(module).with_context(|| format!("read {}", module.display()))?;
            (manifest.clone(), package::package_module(&bytes, &manifest)?, None)
        }
        (Some(folder), ..) => {
            let built = package::build(folder, args.target.folder())?;
            let output = built.target.join("plugins").join(format!("{}.wasm", built.manifest.name));
            (built.manifest, built.bytes, Some(output))
        }
        _ => bail!("name the folder of a plugin's crate"),
    };
    let output = args.output.clone().or(output).context("name the file to write with --output")?;
    if let Some(folder) = output.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    }
    std::fs::write(&output, &bytes).with_context(|| format!("write {}", output.display()))?;
    let digest = super::cache::digest_of(&bytes);
    let text = format!(
        "{} {} ({:?}): {}, {} KiB, {digest}",
        manifest.name,
        manifest.version,
        manifest.role,
        output.display(),
        bytes.len().div_ceil(1024)
    );
    let value =
        json!({"name": manifest.name, "version": manifest.version, "file": output, "bytes": bytes.len(), "digest": digest});
    args.format.print(&text, &value)?;
    Ok(ExitCode::SUCCESS)
}

async fn push(args: &Push) -> anyhow::Result<ExitCode> {
    let bytes = std::fs::read(&args.file).with_context(|| format!("read {}", args.file.display()))?;
    let pushed = super::push(&args.reference, &bytes, args.registry.auth(&args.reference)?, &args.registry.plain()).await?;
    args.format.print(&pushed, &json!({"reference": pushed}))?;
    Ok(ExitCode::SUCCESS)
}

async fn run(args: &Run) -> anyhow::Result<ExitCode> {
    let plugins = args.cache.open()?;
    let loaded = plugins.add_file(&args.file)?;
    let case = Case::question(
        &args.call,
        args.request.as_deref().map_or(Ok(Value::Null), read_json)?,
        args.cursor.clone(),
        args.path.clone(),
        args.previous.as_deref().map_or(Ok(Value::Null), read_json)?,
    );
    let calls = args.calls(&loaded.manifest)?;
    match cases::ask(&plugins, &loaded.digest, &case, calls).await {
        Ok(answer) => args::print(&format!("{answer:#}"))?,
        Err(AskError::Plugin(error)) => return Err(error.into()),
        Err(AskError::Case(error)) => return Err(error),
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(args: &Test) -> anyhow::Result<ExitCode> {
    let plugins = args.cache.open()?;
    let loaded = match &args.component {
        Some(file) => plugins.add_file(file)?,
        None => plugins.add(&package::build(&args.folder, args.target.folder())?.bytes)?,
    };
    let results = cases::run_all(&plugins, &loaded.digest, &args.folder.join("cases")).await?;
    let failed = results.iter().filter(|result| result.mistake.is_some()).count();
    let mut text = String::new();
    for result in &results {
        match &result.mistake {
            None => writeln!(text, "ok    {}: {}", result.file, result.name)?,
            Some(mistake) => writeln!(text, "FAIL  {}: {}\n{mistake}", result.file, result.name)?,
        }
    }
    write!(text, "{} of {} cases passed", results.len() - failed, results.len())?;
    args.format.print(&text, &serde_json::to_value(&results)?)?;
    if results.is_empty() {
        bail!("no case in {}", args.folder.join("cases").display());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Run {
    /// The network that a worker would give, with what is granted here.
    fn calls(&self, manifest: &Manifest) -> anyhow::Result<Arc<dyn HostCalls>> {
        if self.grant.is_empty() {
            return Ok(Arc::new(Offline));
        }
        let mut grants = Grants { hosts: self.grant.clone(), ..Grants::default() };
        for pair in &self.send_secret {
            let (name, host) = pair.split_once('=').context("write --send-secret USE=HOST")?;
            grants.secrets.push(SecretGrant { name: name.to_owned(), hosts: vec![host.to_owned()] });
        }
        let grant = manifest.grant(Some(&grants));
        let secrets = Secrets::from_env(&grant, std::env::vars_os())?;
        let egress = Egress::new(&grant.hosts, secrets, Patience::default())?;
        Ok(Arc::new(LoaderCalls::new(egress, manifest.name.clone())))
    }
}

fn read_json(file: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("read {}", file.display()))
}
