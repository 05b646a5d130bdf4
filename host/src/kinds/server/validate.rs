//! Which way a Server goes: the only place that refuses what a user wrote. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use substratus_crds::conditions::reason;
use substratus_crds::{PluginRole, ServerSpec};

use super::observe::Observed;
use crate::catalog::{Active, ImageMatch};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{env, params, resources};

/// A Server that can be planned.
#[derive(Clone, Debug)]
pub struct Valid {
    /// Who plans the container.
    pub route: Route,
    /// `spec.env`, read.
    pub env: BTreeMap<String, env::Value>,
}

/// Who plans the container.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// This adapter.
    Adapter {
        /// The adapter.
        plugin: Arc<Active>,
        /// Why this one.
        because: String,
        /// The image of the user's document, where it led here.
        image: Option<String>,
    },
    /// The adapter that fits best.
    Best,
    /// Nobody: the image runs as it is.
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
            Self::Adapter { plugin, because, .. } => {
                format!("plugin `{}` {} plans it: {because}", plugin.name, plugin.manifest.version)
            }
            Self::Best => "the server adapter that fits best plans it".to_owned(),
            Self::Container { image, note: None } => format!("the image `{image}` runs as a container; no plugin claims it"),
            Self::Container { image, note: Some(note) } => format!("the image `{image}` runs as a container; {note}"),
        }
    }
}

/// Checks the spec and chooses the way.
pub fn validate(observed: &Observed) -> Result<Valid, Verdict> {
    let spec = &observed.server.spec;
    params::check(spec.params.as_ref())?;
    resources::check(spec.resources.as_ref())?;
    Ok(Valid { env: env::parse(spec.env.as_ref())?, route: route(observed, spec)? })
}

fn route(observed: &Observed, spec: &ServerSpec) -> Result<Route, Verdict> {
    let image = spec.image.as_deref().filter(|image| !image.is_empty());
    match (spec.engine.as_deref().filter(|engine| !engine.is_empty()), image) {
        (Some("none"), Some(image)) => Ok(Route::Container { image: image.to_owned(), note: None }),
        (Some("none"), None) => Err(Verdict::invalid("spec.engine", "`none` runs spec.image as it is, and there is no image")),
        (Some(engine), _) => by_engine(observed, engine),
        (None, Some(image)) => Ok(by_image(observed, spec, image)),
        (None, None) if spec.build.is_some() => Err(Verdict::new(
            reason::BUILD_UNSUPPORTED,
            "spec.build: this version does not build images from source; build the image yourself and name it in spec.image",
        )),
        (None, None) => Ok(Route::Best),
    }
}

fn by_engine(observed: &Observed, engine: &str) -> Result<Route, Verdict> {
    match observed.catalog.by_engine(engine) {
        Some(plugin) => {
            Ok(Route::Adapter { plugin: Arc::clone(plugin), because: "spec.engine names it".to_owned(), image: None })
        }
        None => Err(Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!("no active plugin serves with the engine `{engine}`; engines here: {}", observed.catalog.engines()),
        )),
    }
}

fn by_image(observed: &Observed, spec: &ServerSpec, image: &str) -> Route {
    match observed.catalog.by_image(PluginRole::ServerAdapter, image, spec.command.as_deref()) {
        ImageMatch::Plugin(plugin) => {
            Route::Adapter { because: format!("it stands in for the image `{image}`"), image: Some(image.to_owned()), plugin }
        }
        ImageMatch::OtherCommand(plugin) => Route::Container {
            image: image.to_owned(),
            note: Some(format!(
                "plugin `{}` stands in for this image, but not with this command: it runs as a container",
                plugin.name
            )),
        },
        ImageMatch::Nobody => Route::Container { image: image.to_owned(), note: None },
    }
}
