//! A load by hand: makes the request that the operator would make, from arguments and the plugin's own manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use substratus_crds::{FileFilter, PluginRole, PluginUsed};

use super::request::LoadRequest;
use crate::bucket::BucketUrl;
use crate::plugin::{Grant, GrantedSecret, Loaded, Manifest, Plugins, describe_problems};

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
    /// Loader to ask, instead of the bundled one for the source's scheme
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Host the loader may reach beside those it asks for: [scheme://]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    grant: Vec<String>,
    /// Host that may get a secret of the loader: USE=[scheme://]HOST[:PORT]
    #[arg(long, value_name = "USE=HOST", value_parser = pair)]
    send_secret: Vec<(String, String)>,
    /// Parameter of the Model
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    param: Vec<(String, String)>,
    /// Setting of the loader, such as `endpoint=https://mirror.example`
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Files to take, as glob patterns
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Files to leave, as glob patterns
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Format of the weights, where a source has several
    #[arg(long)]
    format: Option<String>,
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| "write NAME=VALUE".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

impl ByHand {
    /// The request for these arguments. Granted is what the plugin asks for, and what the arguments add.
    pub fn request(&self, plugins: &Plugins) -> anyhow::Result<LoadRequest> {
        let source = self.source.as_deref().context("name a source, such as hf://org/name")?;
        let loaded = self.find(source, plugins)?;
        let manifest = loaded.manifest;
        let given = self.config.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
        let config = manifest.config(&given).map_err(|problems| anyhow::anyhow!("--config: {}", describe_problems(&problems)))?;
        let params: BTreeMap<_, _> = self.param.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
        let files = FileFilter { include: self.include.clone(), exclude: self.exclude.clone(), format: self.format.clone() };
        let inputs = Sha256::digest(serde_json::to_vec(&(source, &params, &files, &config))?);
        let target = place(self.to.as_deref().context("name a folder or a bucket with --to")?)?;
        let grant = granted(&manifest, &self.grant, &self.send_secret)?;
        Ok(LoadRequest {
            inputs: hex::encode(inputs),
            namespace: "default".to_owned(),
            name: "by-hand".to_owned(),
            plugin: PluginUsed { name: manifest.name, version: manifest.version, digest: loaded.digest },
            grant,
            config,
            source: Some(source.to_owned()),
            params,
            files,
            target: target.to_string(),
        })
    }

    fn find(&self, source: &str, plugins: &Plugins) -> anyhow::Result<Loaded> {
        if let Some(file) = &self.plugin {
            return plugins.add_file(file).with_context(|| format!("cannot use plugin {}", file.display()));
        }
        let Some((scheme, _)) = source.split_once("://") else {
            bail!("source `{source}` has no scheme; write for example hf://org/name")
        };
        let claims = |loaded: &Loaded| {
            loaded.manifest.role == PluginRole::ModelLoader
                && loaded.manifest.claims.schemes.iter().any(|claimed| claimed == scheme)
        };
        plugins.bundled().into_iter().find(claims).with_context(|| {
            format!("no bundled plugin loads {scheme}://; name one with --plugin FILE, or a folder of plugins with --plugins DIR")
        })
    }
}

/// A folder, or a bucket where there is a scheme.
pub(super) fn place(to: &Path) -> anyhow::Result<BucketUrl> {
    match to.to_str().filter(|text| text.contains("://")) {
        Some(url) => Ok(url.parse()?),
        None => Ok(BucketUrl::of_folder(&std::path::absolute(to)?)?),
    }
}

/// What a plugin asks for, and what a person adds.
pub(super) fn granted(manifest: &Manifest, hosts: &[String], sent: &[(String, String)]) -> anyhow::Result<Grant> {
    let mut secrets = Vec::new();
    for secret in &manifest.secrets {
        let added = sent.iter().filter(|(name, _)| *name == secret.name).map(|(_, host)| with_scheme(host));
        let hosts = secret.hosts.iter().cloned().chain(added).collect();
        secrets.push(GrantedSecret { name: secret.name.clone(), env: secret.env.clone(), scheme: secret.scheme, hosts });
    }
    if let Some((name, _)) = sent.iter().find(|(name, _)| !secrets.iter().any(|secret| secret.name == *name)) {
        bail!("--send-secret: plugin `{}` has no secret `{name}`", manifest.name);
    }
    let hosts = manifest.hosts.iter().cloned().chain(hosts.iter().map(|host| with_scheme(host))).collect();
    Ok(Grant { hosts, secrets, ..Grant::default() })
}

fn with_scheme(host: &str) -> String {
    if host.contains("://") { host.to_owned() } else { format!("https://{host}") }
}

/// An integer where it is one, else a text: as in a Model's `params`.
pub(super) fn value_of(text: &str) -> serde_json::Value {
    text.parse::<i64>().map_or_else(|_| text.into(), Into::into)
}
