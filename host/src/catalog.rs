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
    /// An administrator wrote the grant: what it names exactly may be a host of the cluster's own network.
    pub named: bool,
    /// Namespaces that it answers for; none named means all.
    pub namespaces: Vec<String>,
}

impl Active {
    /// How a status names it.
    pub fn used(&self) -> PluginUsed {
        PluginUsed { name: self.name.clone(), version: self.manifest.version.clone(), digest: self.digest.clone() }
    }

    /// Whether it answers for objects of a namespace.
    pub fn serves(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.lists(namespace)
    }

    fn lists(&self, namespace: &str) -> bool {
        self.namespaces.iter().any(|listed| listed == namespace)
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

    /// The active plugin of this name, where it answers for the namespace.
    pub fn by_name(&self, role: PluginRole, name: &str, namespace: &str) -> Option<&Arc<Active>> {
        self.of(role, namespace).find(|plugin| plugin.name == name)
    }

    /// Where a plugin answers, if it is active and not for all namespaces.
    pub fn elsewhere(&self, name: &str) -> Option<&[String]> {
        let plugin = self.active.iter().find(|plugin| plugin.name == name)?;
        (!plugin.namespaces.is_empty()).then_some(plugin.namespaces.as_slice())
    }

    /// The loader or importer of a source's scheme.
    pub fn by_scheme(&self, role: PluginRole, scheme: &str, namespace: &str) -> Option<&Arc<Active>> {
        self.of(role, namespace).find(|plugin| has(&plugin.manifest.claims.schemes, scheme))
    }

    /// The adapter of an engine.
    pub fn by_engine(&self, engine: &str, namespace: &str) -> Option<&Arc<Active>> {
        self.of(PluginRole::ServerAdapter, namespace).find(|plugin| has(&plugin.manifest.claims.engines, engine))
    }

    /// Every adapter that is the one of an engine, or of none: who is asked which fits best.
    pub fn adapters(&self, namespace: &str) -> impl Iterator<Item = &Arc<Active>> {
        self.of(PluginRole::ServerAdapter, namespace).filter(move |plugin| {
            let engines = &plugin.manifest.claims.engines;
            let is_its = |engine: &String| self.by_engine(engine, namespace).is_some_and(|holder| Arc::ptr_eq(holder, plugin));
            engines.is_empty() || engines.iter().any(is_its)
        })
    }

    /// The GPU policy of a cloud.
    pub fn by_cloud(&self, cloud: &str, namespace: &str) -> Option<&Arc<Active>> {
        self.of(PluginRole::GpuPolicy, namespace).find(|plugin| has(&plugin.manifest.claims.clouds, cloud))
    }

    /// Who stands in for an image, with this command of the object.
    pub fn by_image(&self, role: PluginRole, image: &str, command: Option<&[String]>, namespace: &str) -> ImageMatch {
        let repository = repository(image);
        self.by_claim(role, command, namespace, |claim| self::repository(&claim.repository) == repository)
    }

    /// Who stands in for the image that a git repository builds; tag and branch aside.
    pub fn by_build(&self, role: PluginRole, git: &GitSource, command: Option<&[String]>, namespace: &str) -> ImageMatch {
        let source = build_source(git);
        let fits = |claim: &ImageClaim| claim.build.as_deref().is_some_and(|build| normal_source(build) == source);
        self.by_claim(role, command, namespace, fits)
    }

    fn by_claim(
        &self,
        role: PluginRole,
        command: Option<&[String]>,
        namespace: &str,
        fits: impl Fn(&ImageClaim) -> bool,
    ) -> ImageMatch {
        for plugin in self.of(role, namespace) {
            let Some(claim) = plugin.manifest.claims.images.iter().find(|claim| fits(claim)) else { continue };
            let own = command.is_none_or(|command| claim.commands.iter().any(|known| known == command));
            return if own { ImageMatch::Plugin(Arc::clone(plugin)) } else { ImageMatch::OtherCommand(Arc::clone(plugin)) };
        }
        ImageMatch::Nobody
    }

    /// Active plugins of a role that answer for a namespace: those that list it first, then those for all, each oldest first. Of
    /// two that claim the same, the first one has it.
    pub fn of(&self, role: PluginRole, namespace: &str) -> impl Iterator<Item = &Arc<Active>> {
        let of_role = move |plugin: &&Arc<Active>| plugin.manifest.role == role;
        let listing = self.active.iter().filter(of_role).filter(move |plugin| plugin.lists(namespace));
        listing.chain(self.active.iter().filter(of_role).filter(|plugin| plugin.namespaces.is_empty()))
    }

    /// Names of the engines that adapters claim, for messages.
    pub fn engines(&self, namespace: &str) -> String {
        join(self.of(PluginRole::ServerAdapter, namespace).flat_map(|plugin| &plugin.manifest.claims.engines))
    }

    /// Schemes that loaders or importers claim, for messages.
    pub fn schemes(&self, role: PluginRole, namespace: &str) -> String {
        join(self.of(role, namespace).flat_map(|plugin| &plugin.manifest.claims.schemes))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == wanted)
}

fn join<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
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

    fn active(name: &str, claims: &str, namespaces: &[&str]) -> Arc<Active> {
        let manifest = format!("{{name: {name}, version: 0.1.0, host: '0.1', {claims}}}");
        Arc::new(Active {
            name: name.to_owned(),
            manifest: Manifest::from_yaml(&manifest).unwrap(),
            digest: format!("sha256:{name}"),
            config: Map::new(),
            grant: Grant::default(),
            named: false,
            namespaces: namespaces.iter().map(|namespace| (*namespace).to_owned()).collect(),
        })
    }

    #[test]
    fn a_plugin_that_lists_a_namespace_answers_there_before_one_for_all() {
        let loader = "role: ModelLoader, claims: {schemes: [hf], images: [{repository: acme/loader}]}";
        let importer = "role: DatasetImporter, claims: {schemes: [hf]}";
        let catalog = Catalog::new(
            vec![active("all", loader, &[]), active("own", loader, &["a", "b"]), active("data", importer, &["b"])],
            BTreeMap::new(),
        );
        let name = |found: Option<&Arc<Active>>| found.map(|plugin| plugin.name.clone());
        let loads = |namespace| name(catalog.by_scheme(PluginRole::ModelLoader, "hf", namespace));
        assert_eq!([loads("a"), loads("b"), loads("c")].map(Option::unwrap), ["own", "own", "all"]);
        let imports = |namespace| name(catalog.by_scheme(PluginRole::DatasetImporter, "hf", namespace));
        assert_eq!((imports("a"), imports("b").as_deref()), (None, Some("data")));
        let stands_in = |namespace| match catalog.by_image(PluginRole::ModelLoader, "acme/loader:1", None, namespace) {
            ImageMatch::Plugin(plugin) => plugin.name.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!([stands_in("a"), stands_in("c")], ["own", "all"]);
        assert_eq!(name(catalog.by_name(PluginRole::ModelLoader, "all", "a")).as_deref(), Some("all"), "by name both are there");
        assert_eq!(name(catalog.by_name(PluginRole::ModelLoader, "own", "c")), None);
        assert_eq!(catalog.elsewhere("own"), Some(["a".to_owned(), "b".to_owned()].as_slice()));
        assert_eq!((catalog.elsewhere("all"), catalog.schemes(PluginRole::ModelLoader, "a")), (None, "hf".to_owned()));
    }

    #[test]
    fn an_engine_is_asked_of_its_own_adapter_alone() {
        let vllm = "role: ServerAdapter, claims: {engines: [vllm]}";
        let catalog = Catalog::new(
            vec![
                active("all", vllm, &[]),
                active("other", "role: ServerAdapter, claims: {engines: [other]}", &[]),
                active("own", vllm, &["a"]),
            ],
            BTreeMap::new(),
        );
        let asked = |namespace| catalog.adapters(namespace).map(|plugin| plugin.name.clone()).collect::<Vec<_>>();
        assert_eq!(asked("a"), ["own", "other"]);
        assert_eq!(asked("b"), ["all", "other"]);
    }

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
