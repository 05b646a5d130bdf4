//! From what is bundled and what is installed to the catalog: who answers, and who claims what somebody older has. The rule is
//! pure; the list is shared by the reconciles of all Plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt;
use substratus_crds::{Plugin, PluginRole};

use super::install::Installed;
use crate::catalog::{Active, Catalog};
use crate::context::Context;
use crate::plugin::{Loaded, Plugins};

/// What the Plugin objects came to.
#[derive(Default)]
pub struct InstalledPlugins {
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    created: Option<Timestamp>,
    active: Option<Arc<Active>>,
    waiting: Option<String>,
}

impl InstalledPlugins {
    /// Records a Plugin and publishes the catalog where it changed. Returns the conflict that keeps this one out.
    pub fn put(&self, object: &Plugin, installed: &Installed, context: &Context) -> Option<String> {
        let name = object.name_any();
        let entry = Entry {
            created: object.creation_timestamp().map(|time| time.0),
            active: installed.active.clone().map(Arc::new),
            waiting: installed.failed.as_ref().map(|(_, reason, message)| format!("{reason}: {message}")),
        };
        self.change(context, |entries| {
            entries.insert(name.clone(), entry);
        })
        .remove(&name)
    }

    /// Forgets Plugins that are gone; bundled ones of the same name answer again.
    pub fn retain(&self, names: &BTreeSet<String>, context: &Context) {
        self.change(context, |entries| entries.retain(|name, _| names.contains(name)));
    }

    fn change(&self, context: &Context, change: impl FnOnce(&mut BTreeMap<String, Entry>)) -> BTreeMap<String, String> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let (catalog, conflicts) = catalog(bundled(&context.plugins), &entries);
        context.catalog.send_if_modified(|current| {
            let changed = **current != catalog;
            if changed {
                *current = Arc::new(catalog);
            }
            changed
        });
        conflicts
    }
}

/// The bundled plugins as they answer with nothing configured: they are trusted with what their manifests ask for.
pub fn bundled(plugins: &Plugins) -> Vec<Arc<Active>> {
    plugins.bundled().into_iter().filter_map(active).collect()
}

fn active(loaded: Loaded) -> Option<Arc<Active>> {
    let config = loaded.manifest.config(&serde_json::Map::new()).ok()?;
    let grant = loaded.manifest.grant(None);
    let name = loaded.manifest.name.clone();
    Some(Arc::new(Active { name, manifest: loaded.manifest, digest: loaded.digest, config, grant }))
}

/// The catalog, and why some plugins are not in it. Bundled plugins are the oldest, unless an object takes their place.
fn catalog(bundled: Vec<Arc<Active>>, entries: &BTreeMap<String, Entry>) -> (Catalog, BTreeMap<String, String>) {
    let mut installed: Vec<(&String, &Entry)> = entries.iter().collect();
    installed.sort_by_key(|(name, entry)| (entry.created, *name));
    // An object in a bundled plugin's place has its seniority; until it has a component, the bundled one answers.
    let replaced = |plugin: Arc<Active>| match entries.get(&plugin.name).and_then(|entry| entry.active.clone()) {
        Some(active) => active,
        None => plugin,
    };
    let bundled: Vec<Arc<Active>> = bundled.into_iter().map(replaced).collect();
    let names: BTreeSet<String> = bundled.iter().map(|plugin| plugin.name.clone()).collect();
    let others = installed.iter().filter(|(name, _)| !names.contains(*name)).filter_map(|(_, entry)| entry.active.clone());

    let mut taken: BTreeMap<(PluginRole, String), String> = BTreeMap::new();
    let mut all = Vec::new();
    let mut waiting: BTreeMap<String, String> =
        entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.waiting.clone()?))).collect();
    let mut conflicts = BTreeMap::new();
    for plugin in bundled.into_iter().chain(others) {
        let claims = claims(&plugin);
        let conflict = claims.iter().find_map(|claim| taken.get(claim).map(|holder| (claim.1.clone(), holder.clone())));
        if let Some((claim, holder)) = conflict {
            let message = format!("plugin `{holder}` is older and claims {claim} already");
            waiting.insert(plugin.name.clone(), message.clone());
            conflicts.insert(plugin.name.clone(), message);
            continue;
        }
        taken.extend(claims.into_iter().map(|claim| (claim, plugin.name.clone())));
        all.push(plugin);
    }
    (Catalog::new(all, waiting), conflicts)
}

fn claims(plugin: &Active) -> Vec<(PluginRole, String)> {
    let claims = &plugin.manifest.claims;
    let schemes = claims.schemes.iter().map(|scheme| format!("the scheme `{scheme}`"));
    let images = claims.images.iter().map(|image| format!("the image `{}`", crate::catalog::repository(&image.repository)));
    let builds = claims.images.iter().filter_map(|image| image.build.as_deref());
    let builds = builds.map(|build| format!("the build source `{}`", crate::catalog::normal_source(build)));
    let engines = claims.engines.iter().map(|engine| format!("the engine `{engine}`"));
    let clouds = claims.clouds.iter().map(|cloud| format!("the cloud `{cloud}`"));
    schemes.chain(images).chain(builds).chain(engines).chain(clouds).map(|claim| (plugin.manifest.role, claim)).collect()
}
