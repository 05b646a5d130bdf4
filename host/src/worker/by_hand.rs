//! A load by hand: makes the request that the operator would make, from arguments, the environment and the plugin's own manifest.

mod plugin;
pub(super) mod rights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use sha2::{Digest, Sha256};
use substratus_crds::conditions::reason;
use substratus_crds::{FileFilter, PluginRole, PluginUsed};

pub(super) use self::plugin::Wanted;
use super::failure::LoadError;
use super::oci::login::Accounts;
use super::request::LoadRequest;
use crate::bucket::{BucketUrl, Environment};
use crate::plugin::Plugins;
use crate::plugin::cli::RegistryArgs;

/// What a person says of a load.
#[derive(Debug, Args)]
pub struct ByHand {
    /// What to fetch, such as `hf://org/name[@revision]`
    #[arg(required_unless_present = "request")]
    source: Option<String>,
    /// Folder or bucket to fetch into: the files go below DIR/artifacts. What the tools of a cloud read from the environment
    /// (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID`, …) says how a bucket is reached
    #[arg(long, value_name = "DIR|s3://BUCKET/PATH", required_unless_present = "request")]
    to: Option<PathBuf>,
    /// Format of the weights, where a source has several
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

/// Whom a person asks, and with what rights: the same words for models and data sets.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// Plugin to ask, instead of a bundled one: its file, or its name in a registry, [oci://]HOST/REPOSITORY:TAG
    #[arg(long, value_name = "FILE|REF")]
    pub(super) plugin: Option<String>,
    /// Host the plugin may reach beside those it asks for: [scheme://]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    grant: Vec<String>,
    /// Host that may get a secret of the plugin: USE=[scheme://]HOST[:PORT]
    #[arg(long, value_name = "USE=HOST", value_parser = pair)]
    send_secret: Vec<(String, String)>,
    /// Parameter of the Model or Dataset
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    param: Vec<(String, String)>,
    /// Setting of the plugin, such as `endpoint=https://mirror.example`; an address named here, or in the variable that the
    /// source's own client reads (`HF_ENDPOINT`), is granted
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Files to take, as glob patterns
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Files to leave, as glob patterns
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Refuse pickles (.bin, .pt, .pth, .ckpt, .pkl, …), which can run code when they are opened
    #[arg(long)]
    no_pickle: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ByHand {
    /// The request for these arguments. Granted is what the plugin asks for, and what a person names.
    pub async fn request(&self, plugins: &Plugins, env: &Environment) -> Result<LoadRequest, LoadError> {
        let source = self.source.as_deref().ok_or_else(|| invalid("name a source, such as hf://org/name"))?;
        let to = self.to.as_deref().ok_or_else(|| invalid("name a folder or a bucket with --to"))?;
        let wanted = Wanted {
            source: Some(source),
            image: None,
            roles: &[PluginRole::ModelLoader],
            format: self.format.clone(),
            target: place(to).map_err(|error| invalid(format!("{error:#}")))?.to_string(),
        };
        Ok(self.ask.request(plugins, env, wanted).await?.1)
    }

    /// Who a person is at the registry of the source, where it is one.
    pub fn accounts(&self) -> Result<Accounts, LoadError> {
        self.ask.accounts(self.source.as_deref())
    }
}

impl AskArgs {
    /// What the operator would ask for, and in which role.
    pub(super) async fn request(
        &self,
        plugins: &Plugins,
        env: &Environment,
        wanted: Wanted<'_>,
    ) -> Result<(PluginRole, LoadRequest), LoadError> {
        let loaded = self.find(plugins, &wanted).await?;
        let manifest = loaded.manifest;
        let (config, named) = self.config(&manifest, env)?;
        let mut grant = self.grant(&manifest, &named)?;
        self.grant_registry(&mut grant, wanted.source)?;
        let params: BTreeMap<_, _> = self.param.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
        let files = FileFilter {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            format: wanted.format,
            allow_pickle: self.no_pickle.then_some(false),
        };
        let basis = serde_json::to_vec(&(wanted.source, &manifest.name, &params, &files, &config))
            .map_err(|error| invalid(error.to_string()))?;
        let request = LoadRequest {
            inputs: hex::encode(Sha256::digest(basis)),
            namespace: "default".to_owned(),
            name: "by-hand".to_owned(),
            plugin: PluginUsed { name: manifest.name, version: manifest.version, digest: loaded.digest },
            grant,
            config,
            source: wanted.source.map(str::to_owned),
            params,
            files,
            target: wanted.target,
        };
        Ok((manifest.role, request))
    }
}

/// A person has to say it otherwise.
pub(super) fn invalid(message: impl Into<String>) -> LoadError {
    LoadError::new(reason::INVALID, message)
}

/// A folder, or a bucket where there is a scheme.
pub(super) fn place(to: &Path) -> anyhow::Result<BucketUrl> {
    match to.to_str().filter(|text| text.contains("://")) {
        Some(url) => Ok(url.parse()?),
        None => Ok(BucketUrl::of_folder(&std::path::absolute(to)?)?),
    }
}

/// An integer where it is one, else a text: as in a Model's `params`.
fn value_of(text: &str) -> serde_json::Value {
    text.parse::<i64>().map_or_else(|_| text.into(), Into::into)
}
