//! What the commands about plugins have in common: registries, the folder of compiled code, how to print.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::plugin::{Isolation, PlainHttp, PluginOptions, Plugins, RegistryAuth, registry};

/// How to speak to registries.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// User name at the registry
    #[arg(long, env = "SUBSTRATUS_REGISTRY_USERNAME", requires = "password")]
    username: Option<String>,
    /// Password or token at the registry
    #[arg(long, env = "SUBSTRATUS_REGISTRY_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Registry spoken to without TLS: host or host:port
    #[arg(long, env = "SUBSTRATUS_PLAIN_HTTP", value_delimiter = ',')]
    plain_http: Vec<String>,
    /// Docker's folder of settings, for credentials [default: ~/.docker]
    #[arg(long, env = "DOCKER_CONFIG", value_name = "DIR")]
    docker_config: Option<PathBuf>,
}

/// Where components and compiled code are kept.
#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Folder for components and compiled code [default: ~/.cache/substratus/plugins]
    #[arg(long, env = "SUBSTRATUS_PLUGIN_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Where a crate is compiled.
#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// Folder where cargo keeps what it compiles [default: the workspace's own]
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
}

impl TargetArgs {
    /// The folder, where it is not the workspace's own.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.target_dir.as_deref()
    }
}

/// How to print.
#[derive(Debug, Args)]
pub(super) struct Format {
    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

impl RegistryArgs {
    /// Flags and environment first, then docker's own settings.
    pub(crate) fn auth(&self, reference: &str) -> anyhow::Result<RegistryAuth> {
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            return Ok(RegistryAuth::Basic { username: username.clone(), password: password.clone() });
        }
        let folder = self.docker_config.clone().or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
        let Some(file) = folder.map(|folder| folder.join("config.json")).filter(|file| file.exists()) else {
            return Ok(RegistryAuth::Anonymous);
        };
        let json = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let reference = registry::parse(reference)?;
        RegistryAuth::from_docker_config(&json, reference.registry()).with_context(|| format!("read {}", file.display()))
    }

    /// Registries without TLS.
    pub(crate) fn plain(&self) -> PlainHttp {
        PlainHttp(self.plain_http.clone())
    }
}

impl CacheArgs {
    /// Starts a plugin host on that folder.
    pub(super) fn open(&self) -> anyhow::Result<Plugins> {
        let cache = self.cache.clone().or_else(|| std::env::home_dir().map(|home| home.join(".cache/substratus/plugins")));
        let cache = cache.context("there is no home folder; name a folder with --cache")?;
        Ok(Plugins::open_isolated(PluginOptions { cache, bundled: Vec::new() }, Isolation::child())?)
    }
}

impl Format {
    /// Prints the one or the other.
    pub(super) fn print(&self, text: &str, value: &Value) -> anyhow::Result<()> {
        match self.format {
            OutputFormat::Text => print(text),
            OutputFormat::Json => print(&format!("{value:#}")),
        }
    }
}

/// Prints a line; a reader that went away is an error, not a panic.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
