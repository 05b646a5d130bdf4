//! An import by hand: makes the request that the operator would make, from arguments and the importer's own manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use sha2::{Digest, Sha256};
use substratus_crds::{FileFilter, PluginRole, PluginUsed};

use crate::bucket::BucketUrl;
use crate::catalog::repository;
use crate::plugin::{Loaded, Manifest, Plugins, describe_problems};
use crate::worker::by_hand::{granted, pair, value_of};
use crate::worker::request::LoadRequest;

/// Whether an importer claims what was asked for.
type Claims = dyn Fn(&Manifest) -> bool;

/// What a person says of an import.
#[derive(Debug, Args)]
pub(super) struct ByHand {
    /// What to import, such as `hf://datasets/org/name[@revision]` or `https://host/rows.jsonl`
    #[arg(required_unless_present_any = ["request", "image", "plugin"])]
    source: Option<String>,
    /// Folder to import into: the files go below DIR/artifacts
    #[arg(long, value_name = "DIR", required_unless_present = "request")]
    to: Option<PathBuf>,
    /// Image of a Dataset that an importer stands in for, in place of a source
    #[arg(long, value_name = "IMAGE", conflicts_with = "source")]
    image: Option<String>,
    /// Importer to ask, instead of the bundled one for the source's scheme or the image
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Host the importer may reach beside those it asks for: [scheme://]HOST[:PORT]
    #[arg(long, value_name = "HOST")]
    grant: Vec<String>,
    /// Host that may get a secret of the importer: USE=[scheme://]HOST[:PORT]
    #[arg(long, value_name = "USE=HOST", value_parser = pair)]
    send_secret: Vec<(String, String)>,
    /// Parameter of the Dataset
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    param: Vec<(String, String)>,
    /// Setting of the importer, such as endpoint=https://mirror.example
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Files to take, as glob patterns
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Files to leave, as glob patterns
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,
}

impl ByHand {
    /// The request for these arguments. Granted is what the importer asks for, and what the arguments add.
    pub(super) fn request(&self, plugins: &Plugins) -> anyhow::Result<LoadRequest> {
        let loaded = self.find(plugins)?;
        let manifest = &loaded.manifest;
        if manifest.role != PluginRole::DatasetImporter {
            bail!(
                "plugin `{}` is a {:?}, not a DatasetImporter; `substratus load` asks model loaders",
                manifest.name,
                manifest.role
            );
        }
        let given = self.config.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
        let config = manifest.config(&given).map_err(|problems| anyhow::anyhow!("--config: {}", describe_problems(&problems)))?;
        let params: BTreeMap<_, _> = self.param.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
        let files = FileFilter { include: self.include.clone(), exclude: self.exclude.clone(), format: None };
        let inputs = Sha256::digest(serde_json::to_vec(&(&self.source, &manifest.name, &params, &files, &config))?);
        let folder = std::path::absolute(self.to.as_deref().context("name a folder with --to")?)?;
        Ok(LoadRequest {
            inputs: hex::encode(inputs),
            namespace: "default".to_owned(),
            name: "by-hand".to_owned(),
            grant: granted(manifest, &self.grant, &self.send_secret)?,
            plugin: PluginUsed { name: manifest.name.clone(), version: manifest.version.clone(), digest: loaded.digest },
            config,
            source: self.source.clone(),
            params,
            files,
            target: BucketUrl::of_folder(&folder)?.to_string(),
        })
    }

    fn find(&self, plugins: &Plugins) -> anyhow::Result<Loaded> {
        if let Some(file) = &self.plugin {
            return plugins.add_file(file).with_context(|| format!("cannot use plugin {}", file.display()));
        }
        let (claims, what): (Box<Claims>, String) = match (&self.source, &self.image) {
            (Some(source), _) => {
                let Some((scheme, _)) = source.split_once("://") else {
                    bail!("source `{source}` has no scheme; write for example hf://datasets/org/name")
                };
                let scheme = scheme.to_owned();
                let what = format!("{scheme}://");
                (Box::new(move |manifest| manifest.claims.schemes.contains(&scheme)), what)
            }
            (None, Some(image)) => {
                let wanted = repository(image);
                let claims =
                    move |manifest: &Manifest| manifest.claims.images.iter().any(|claim| repository(&claim.repository) == wanted);
                (Box::new(claims), image.clone())
            }
            (None, None) => bail!("name a source, such as hf://datasets/org/name, or an image with --image"),
        };
        let fits = |loaded: &Loaded| loaded.manifest.role == PluginRole::DatasetImporter && claims(&loaded.manifest);
        plugins.bundled().into_iter().find(fits).with_context(|| {
            format!("no bundled plugin imports {what}; name one with --plugin FILE, or a folder of plugins with --plugins DIR")
        })
    }
}
