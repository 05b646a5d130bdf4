//! Which way an object goes: the only place that refuses what a user wrote. Pure.

use std::collections::BTreeMap;

use substratus_crds::PluginRole;
use substratus_crds::conditions::reason;

use super::observe::Observed;
use super::{Artifact, Wanted};
use crate::catalog::Catalog;
use crate::kinds::shared::env;
use crate::kinds::shared::route::{self, Chosen, Found, Image};
use crate::kinds::shared::verdict::Verdict;

/// An object that can be planned.
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
    /// A plugin plans, our worker moves.
    Load(Chosen),
    /// The image does all.
    Container(Image),
}

impl Route {
    /// One sentence for people; `verb` is what such a plugin does.
    pub fn describe(&self, verb: &str) -> String {
        match self {
            Self::Load(chosen) => chosen.describe(verb),
            Self::Container(image) => image.describe(),
        }
    }
}

/// Checks the spec and chooses the way.
pub fn validate<A: Artifact>(observed: &Observed<A>) -> Result<Valid, Verdict> {
    let wanted = observed.wanted();
    let env = wanted.workload.check()?;
    Ok(Valid { route: route(observed, &wanted)?, env })
}

fn route<A: Artifact>(observed: &Observed<A>, wanted: &Wanted<'_>) -> Result<Route, Verdict> {
    let image = wanted.workload.image;
    match (wanted.plugin.as_deref().filter(|name| !name.is_empty()), wanted.source.as_deref()) {
        (Some("none"), _) => match image {
            Some(image) => Ok(Route::Container(Image::plain(image))),
            None if wanted.workload.build.is_some() => Err(route::unbuilt("")),
            None => Err(Verdict::invalid("spec.plugin", "`none` runs spec.image as a container, and there is no image")),
        },
        (Some(name), _) => named(observed, name),
        (None, Some(source)) => by_source(observed, source),
        // A training names a base model or a dataset: no plugin stands in for that.
        (None, None) if is_training(wanted) => match (image, wanted.workload.build) {
            (Some(image), _) => Ok(Route::Container(Image::plain(image))),
            (None, Some(_)) => Err(route::unbuilt("")),
            (None, None) => Err(Verdict::invalid("spec.image", "name the image that trains")),
        },
        (None, None) => match route::find(&observed.catalog, A::FACTS.role, &wanted.workload, &observed.owner.namespace)? {
            Some(Found::Plugin(chosen)) => Ok(Route::Load(chosen)),
            Some(Found::Image(image)) => Ok(Route::Container(image)),
            None => {
                let what = if A::FACTS.kind == "model" { "loads or trains" } else { "loads" };
                Err(Verdict::invalid(
                    "spec",
                    format!("name what to import (source: {}) or an image that {what}", A::FACTS.example),
                ))
            }
        },
    }
}

/// Whether the object cannot do without what `spec.build` makes: no plugin brings the artifact.
pub fn needs_build(catalog: &Catalog, role: PluginRole, wanted: &Wanted<'_>, namespace: &str) -> bool {
    match (wanted.plugin.as_deref().filter(|name| !name.is_empty()), wanted.source.as_deref()) {
        (Some("none"), _) => true,
        (Some(_), _) | (None, Some(_)) => false,
        (None, None) => is_training(wanted) || route::needs_build(catalog, role, &wanted.workload, namespace),
    }
}

fn is_training(wanted: &Wanted<'_>) -> bool {
    [wanted.model, wanted.dataset].into_iter().flatten().any(|reference| !reference.name.is_empty())
}

fn named<A: Artifact>(observed: &Observed<A>, name: &str) -> Result<Route, Verdict> {
    let (catalog, namespace) = (&observed.catalog, &observed.owner.namespace);
    if let Some(plugin) = catalog.by_name(A::FACTS.role, name, namespace) {
        return Ok(Route::Load(Chosen::new(plugin, "spec.plugin names it")));
    }
    Err(match (catalog.waiting(name), catalog.elsewhere(name)) {
        (_, Some(namespaces)) if !namespaces.contains(namespace) => Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!("plugin `{name}` does not answer for the namespace `{namespace}`, only for {}", namespaces.join(", ")),
        ),
        (Some(why), _) => Verdict::new(reason::PLUGIN_NOT_READY, format!("plugin `{name}` is not active: {why}")),
        (None, _) => Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!(
                "no active plugin called `{name}` {} {}s; `kubectl get plugins` lists those installed",
                A::FACTS.verb,
                A::FACTS.kind
            ),
        ),
    })
}

fn by_source<A: Artifact>(observed: &Observed<A>, source: &str) -> Result<Route, Verdict> {
    let Some((scheme, _)) = source.split_once("://") else {
        return Err(Verdict::invalid("spec.source", format!("`{source}` has no scheme; write {}", A::FACTS.example)));
    };
    let namespace = &observed.owner.namespace;
    match observed.catalog.by_scheme(A::FACTS.role, scheme, namespace) {
        Some(plugin) => Ok(Route::Load(Chosen::new(plugin, format!("it claims the scheme `{scheme}`")))),
        None => Err(Verdict::new(
            reason::PLUGIN_NOT_FOUND,
            format!(
                "no active plugin {} {}s from `{scheme}://`; schemes here: {}; install a Plugin that claims it",
                A::FACTS.verb,
                A::FACTS.kind,
                observed.catalog.schemes(A::FACTS.role, namespace)
            ),
        )),
    }
}
