//! Which way a Model goes: the only place that refuses what a user wrote. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use substratus_crds::conditions::reason;
use substratus_crds::{ModelSpec, PluginRole};

use super::observe::Observed;
use crate::catalog::{Active, ImageMatch};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{env, params, resources};

/// A Model that can be planned.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Who gets the bytes.
    pub route: Route,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
}

/// Who gets the bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// A loader plans, our worker moves.
    Load {
        /// The loader.
        plugin: Arc<Active>,
        /// Why this one, for `explain`.
        because: String,
    },
    /// The image does all.
    Container {
        /// The image.
        image: String,
        /// Said in the status where a plugin might have been expected.
        note: Option<String>,
    },
}

impl Route {
    /// One sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Load { plugin, because } => {
                format!("plugin `{}` {} loads it: {because}", plugin.name, plugin.manifest.version)
            }
            Self::Container { image, note: None } => format!("the image `{image}` runs as a container; no plugin claims it"),
            Self::Container { image, note: Some(note) } => format!("the image `{image}` runs as a container; {note}"),
        }
    }
}

/// Checks the spec and chooses the way.
pub fn validate(observed: &Observed) -> Result<Valid, Verdict> {
    let spec = &observed.model.spec;
    params::check(spec.params.as_ref())?;
    resources::check(spec.resources.as_ref())?;
    let env = env::parse(spec.env.as_ref())?;
    let route = route(observed, spec)?;
    Ok(Valid { route, env })
}

fn route(observed: &Observed, spec: &ModelSpec) -> Result<Route, Verdict> {
    let image = spec.image.as_deref().filter(|image| !image.is_empty());
    match (spec.plugin.as_deref().filter(|name| !name.is_empty()), spec.source.as_deref(), image) {
        (Some("none"), _, Some(image)) => Ok(Route::Container { image: image.to_owned(), note: None }),
        (Some("none"), _, None) => {
            Err(Verdict::invalid("spec.plugin", "`none` runs spec.image as a container, and there is no image"))
        }
        (Some(name), _, _) => Ok(Route::Load { plugin: named(observed, name)?, because: "spec.plugin names it".to_owned() }),
        (None, Some(source), _) => by_source(observed, source),
        (None, None, Some(image)) => Ok(by_image(observed, spec, image)),
        (None, None, None) if spec.build.is_some() => Err(Verdict::new(
            reason::BUILD_UNSUPPORTED,
            "spec.build: this version does not build images from source; build the image yourself and name it in spec.image",
        )),
        (None, None, None) => {
            Err(Verdict::invalid("spec", "name what to import (source: hf://org/name) or an image that loads or trains"))
        }
    }
}

fn named(observed: &Observed, name: &str) -> Result<Arc<Active>, Verdict> {
    if let Some(plugin) = observed.catalog.by_name(PluginRole::ModelLoader, name) {
        return Ok(Arc::clone(plugin));
    }
    Err(match observed.catalog.waiting(name) {
        Some(why) => Verdict::new(reason::PLUGIN_NOT_READY, format!("plugin `{name}` is not active: {why}")),
        None => Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!("no active model loader is called `{name}`; `kubectl get plugins` lists those installed"),
        ),
    })
}

fn by_source(observed: &Observed, source: &str) -> Result<Route, Verdict> {
    let Some((scheme, _)) = source.split_once("://") else {
        return Err(Verdict::invalid("spec.source", format!("`{source}` has no scheme; write hf://org/name")));
    };
    match observed.catalog.by_scheme(scheme) {
        Some(plugin) => Ok(Route::Load { plugin: Arc::clone(plugin), because: format!("it claims the scheme `{scheme}`") }),
        None => Err(Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!(
                "no active plugin loads `{scheme}://`; schemes here: {}; install a Plugin that claims it",
                observed.catalog.schemes()
            ),
        )),
    }
}

fn by_image(observed: &Observed, spec: &ModelSpec, image: &str) -> Route {
    // A training names a base model or a dataset: no loader stands in for that.
    let training = spec.model.is_some() || spec.dataset.is_some();
    let container = |note| Route::Container { image: image.to_owned(), note };
    match observed.catalog.by_image(PluginRole::ModelLoader, image, spec.command.as_deref()) {
        ImageMatch::Plugin(plugin) if !training => {
            Route::Load { because: format!("it stands in for the image `{image}`"), plugin }
        }
        ImageMatch::OtherCommand(plugin) => container(Some(format!(
            "plugin `{}` stands in for this image, but not with this command: it runs as a container",
            plugin.name
        ))),
        ImageMatch::Plugin(_) | ImageMatch::Nobody => container(None),
    }
}
