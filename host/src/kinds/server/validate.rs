//! Which way a Server goes: the only place that refuses what a user wrote. Pure.

use std::collections::BTreeMap;

use substratus_crds::conditions::reason;
use substratus_crds::{PluginRole, ServerSpec};

use super::observe::Observed;
use crate::kinds::shared::env;
use crate::kinds::shared::route::{self, Chosen, Found, Image};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::workload::Workload;

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
    /// This adapter; `image` is the user's, where it led here.
    Adapter {
        /// The adapter and why.
        chosen: Chosen,
        /// The image of the user's document.
        image: Option<String>,
    },
    /// The adapter that fits best.
    Best,
    /// Nobody: the image runs as it is.
    Container(Image),
}

impl Route {
    /// One sentence for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Adapter { chosen, .. } => chosen.describe("plans"),
            Self::Best => "the server adapter that fits best plans it".to_owned(),
            Self::Container(image) => image.describe(),
        }
    }
}

/// Checks the spec and chooses the way.
pub fn validate(observed: &Observed) -> Result<Valid, Verdict> {
    let spec = &observed.server.spec;
    let env = Workload::from(spec).check()?;
    Ok(Valid { env, route: route(observed, spec)? })
}

fn route(observed: &Observed, spec: &ServerSpec) -> Result<Route, Verdict> {
    let workload = Workload::from(spec);
    match (spec.engine.as_deref().filter(|engine| !engine.is_empty()), workload.image) {
        (Some("none"), Some(image)) => Ok(Route::Container(Image::plain(image))),
        (Some("none"), None) if workload.build.is_some() => Err(route::unbuilt("")),
        (Some("none"), None) => Err(Verdict::invalid("spec.engine", "`none` runs spec.image as it is, and there is no image")),
        (Some(engine), _) => by_engine(observed, engine),
        (None, image) => {
            Ok(match route::find(&observed.catalog, PluginRole::ServerAdapter, &workload, &observed.owner.namespace)? {
                Some(Found::Plugin(chosen)) => Route::Adapter { chosen, image: image.map(str::to_owned) },
                Some(Found::Image(image)) => Route::Container(image),
                None => Route::Best,
            })
        }
    }
}

fn by_engine(observed: &Observed, engine: &str) -> Result<Route, Verdict> {
    let namespace = &observed.owner.namespace;
    match observed.catalog.by_engine(engine, namespace) {
        Some(plugin) => Ok(Route::Adapter { chosen: Chosen::new(plugin, "spec.engine names it"), image: None }),
        None => Err(Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!("no active plugin serves with the engine `{engine}`; engines here: {}", observed.catalog.engines(namespace)),
        )),
    }
}
