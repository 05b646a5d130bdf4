//! Which plugins answer: the active ones, and how an object meets one. Pure: the Plugin reconciler makes a new catalog when
//! something changes, everything else reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use substratus_crds::{GitSource, PluginRole, PluginUsed};

use crate::plugin::{Grant, ImageClaim, Manifest};

/// An active plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct Active {
    /// Name of the Plugin object, or of the bundled plugin.
    pub name: String,
    /// What it says of itself.
    pub manifest: Manifest,
    /// Digest of the component.
    pub digest: String,
    /// Its configuration with defaults filled in.
    pub config: Map<String, Value>,
    /// What it may do.
    pub grant: Grant,
}

impl Active {
    /// How a status names it.
    pub fn used(&self) -> PluginUsed {
        PluginUsed { name: self.name.clone(), version: self.manifest.version.clone(), digest: self.digest.clone() }
    }

    /// The configuration as JSON text.
    pub fn config_json(&self) -> String {
        Value::Object(self.config.clone()).to_string()
    }
}

/// Every active plugin, oldest first, and why the others are not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    active: Vec<Arc<Active>>,
    waiting: BTreeMap<String, String>,
}

/// How an image of the user's document relates to plugins.
#[derive(Clone, Debug, PartialEq)]
pub enum ImageMatch {
    /// A plugin stands in for it.
    Plugin(Arc<Active>),
    /// A plugin claims the image, but the object's command is none of the claim's own: it runs as a container.
    OtherCommand(Arc<Active>),
    /// No plugin claims it.
    Nobody,
}

impl Catalog {
    /// `active` in order of seniority: of two that claim the same, the first keeps it.
    pub fn new(active: Vec<Arc<Active>>, waiting: BTreeMap<String, String>) -> Self {
        Self { active, waiting }
    }

    /// Every active plugin.
    pub fn active(&self) -> &[Arc<Active>] {
        &self.active
    }

    /// Installed but not active: name and reason.
    pub fn waiting(&self, name: &str) -> Option<&str> {
        self.waiting.get(name).map(String::as_str)
    }

    /// The active plugin of this name.
    pub fn by_name(&self, role: PluginRole, name: &str) -> Option<&Arc<Active>> {
        self.of(role).find(|plugin| plugin.name == name)
    }

    /// The loader or importer of a source's scheme.
    pub fn by_scheme(&self, role: PluginRole, scheme: &str) -> Option<&Arc<Active>> {
        self.of(role).find(|plugin| has(&plugin.manifest.claims.schemes, scheme))
    }

    /// The adapter of an engine.
    pub fn by_engine(&self, engine: &str) -> Option<&Arc<Active>> {
        self.of(PluginRole::ServerAdapter).find(|plugin| has(&plugin.manifest.claims.engines, engine))
    }

    /// The GPU policy of a cloud.
    pub fn by_cloud(&self, cloud: &str) -> Option<&Arc<Active>> {
        self.of(PluginRole::GpuPolicy).find(|plugin| has(&plugin.manifest.claims.clouds, cloud))
    }

    /// Who stands in for an image, with this command of the object.
    pub fn by_image(&self, role: PluginRole, image: &str, command: Option<&[String]>) -> ImageMatch {
        let repository = repository(image);
        self.by_claim(role, command, |claim| self::repository(&claim.repository) == repository)
    }

    /// Who stands in for the image that a git repository builds; tag and branch aside.
    pub fn by_build(&self, role: PluginRole, git: &GitSource, command: Option<&[String]>) -> ImageMatch {
        let source = build_source(git);
        self.by_claim(role, command, |claim| claim.build.as_deref().is_some_and(|build| normal_source(build) == source))
    }

    fn by_claim(&self, role: PluginRole, command: Option<&[String]>, fits: impl Fn(&ImageClaim) -> bool) -> ImageMatch {
        for plugin in self.of(role) {
            let Some(claim) = plugin.manifest.claims.images.iter().find(|claim| fits(claim)) else { continue };
            let own = command.is_none_or(|command| claim.commands.iter().any(|known| known == command));
            return if own { ImageMatch::Plugin(Arc::clone(plugin)) } else { ImageMatch::OtherCommand(Arc::clone(plugin)) };
        }
        ImageMatch::Nobody
    }

    /// Active plugins of a role.
    pub fn of(&self, role: PluginRole) -> impl Iterator<Item = &Arc<Active>> {
        self.active.iter().filter(move |plugin| plugin.manifest.role == role)
    }

    /// Names of the engines that adapters claim, for messages.
    pub fn engines(&self) -> String {
        join(self.of(PluginRole::ServerAdapter).flat_map(|plugin| &plugin.manifest.claims.engines))
    }

    /// Schemes that loaders or importers claim, for messages.
    pub fn schemes(&self, role: PluginRole) -> String {
        join(self.of(role).flat_map(|plugin| &plugin.manifest.claims.schemes))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == wanted)
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// An image's repository in one spelling: no tag, no digest, no default registry or library.
pub fn repository(image: &str) -> String {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let image = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    };
    let image = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"]
        .iter()
        .find_map(|registry| image.strip_prefix(registry))
        .unwrap_or(image);
    image.strip_prefix("library/").unwrap_or(image).to_owned()
}

/// Where an image is built from, in one spelling: `github.com/org/repository#folder`.
pub fn build_source(git: &GitSource) -> String {
    let path = git.path.as_deref().unwrap_or_default();
    normal_source(&format!("{}#{path}", git.url))
}

/// A build source in one spelling: no scheme, no user, no `.git`, no slash at the ends.
pub fn normal_source(source: &str) -> String {
    let (url, path) = source.split_once('#').unwrap_or((source, ""));
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    let url = url.split_once('@').map_or(url, |(_, rest)| rest).replacen(':', "/", 1);
    let url = url.trim_end_matches('/').trim_end_matches(".git");
    let path = path.trim_start_matches("./").trim_matches('/');
    if path.is_empty() { url.to_lowercase() } else { format!("{}#{path}", url.to_lowercase()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_an_image_are_one() {
        for spelling in [
            "substratusai/base",
            "docker.io/substratusai/base:latest",
            "index.docker.io/substratusai/base@sha256:00",
            "substratusai/base:v1@sha256:00",
        ] {
            assert_eq!(repository(spelling), "substratusai/base", "{spelling}");
        }
        assert_eq!(repository("localhost:5000/a/b"), "localhost:5000/a/b");
        assert_eq!(repository("localhost:5000/a/b:1"), "localhost:5000/a/b");
    }

    #[test]
    fn spellings_of_a_build_source_are_one() {
        for (url, path) in [
            ("https://github.com/substratusai/images", "base"),
            ("https://github.com/substratusai/images.git", "/base/"),
            ("git@github.com:substratusai/images.git", "./base"),
            ("ssh://git@GitHub.com/substratusai/images/", "base"),
        ] {
            let git = GitSource { url: url.to_owned(), path: Some(path.to_owned()), ..GitSource::default() };
            assert_eq!(build_source(&git), "github.com/substratusai/images#base", "{url}");
        }
        assert_eq!(normal_source("github.com/substratusai/images#base"), "github.com/substratusai/images#base");
    }
}
