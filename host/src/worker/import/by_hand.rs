//! An import by hand: what a person says of it, and nothing of how a request is made of that.

use std::path::PathBuf;

use clap::Args;
use substratus_crds::PluginRole;

use crate::bucket::Environment;
use crate::plugin::Plugins;
use crate::worker::by_hand::{AskArgs, Wanted, invalid, place};
use crate::worker::failure::LoadError;
use crate::worker::request::LoadRequest;

/// What a person says of an import.
#[derive(Debug, Args)]
pub(super) struct ByHand {
    /// What to import, such as `hf://datasets/org/name[@revision]` or `https://host/rows.jsonl`
    #[arg(required_unless_present_any = ["request", "image", "plugin"])]
    source: Option<String>,
    /// Folder or bucket to import into: the files go below DIR/artifacts
    #[arg(long, value_name = "DIR|s3://BUCKET/PATH", required_unless_present = "request")]
    to: Option<PathBuf>,
    /// Image of a Dataset that an importer stands in for, in place of a source
    #[arg(long, value_name = "IMAGE", conflicts_with = "source")]
    image: Option<String>,
    #[command(flatten)]
    ask: AskArgs,
}

impl ByHand {
    /// The request for these arguments. Granted is what the importer asks for, and what a person names.
    pub(super) async fn request(&self, plugins: &Plugins, env: &Environment) -> Result<LoadRequest, LoadError> {
        let to = self.to.as_deref().ok_or_else(|| invalid("name a folder with --to"))?;
        let wanted = Wanted {
            source: self.source.as_deref(),
            image: self.image.as_deref(),
            roles: &[PluginRole::DatasetImporter],
            format: None,
            target: place(to).map_err(|error| invalid(format!("{error:#}")))?.to_string(),
        };
        Ok(self.ask.request(plugins, env, wanted).await?.1)
    }
}
