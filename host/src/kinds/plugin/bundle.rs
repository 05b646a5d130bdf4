//! From what is bundled and what is installed to the catalog: who answers, and who claims what somebody older has. The rule is
//! pure; the list is shared by the reconciles of all Plugins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt};
use substratus_crds::{Plugin, PluginRole};

use super::install::Installed;
use super::permissions;
use super::polls::Polls;
use crate::catalog::{Active, Catalog};
use crate::context::Context;
use crate::plugin::{Loaded, Plugins};

/// What the Plugin objects came to.
#[derive(Default)]
pub struct InstalledPlugins {
    entries: Mutex<BTreeMap<String, Entry>>,
    /// When their tags are asked.
    pub polls: Polls,
}

#[derive(Clone, Debug)]
struct Entry {
    created: Option<Timestamp>,
    reference: ObjectReference,
    /// What may answer, the newest first.
    active: Vec<Arc<Active>>,
    waiting: Option<String>,
}

/// Which revision of a Plugin answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// The newest.
    Newest,
    /// What answered before.
    Last,
    /// None.
    #[default]
    None,
}

/// What the list came to for one Plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Which revision answers.
    pub serves: Serves,
    /// Why a newer one does not, where that is another plugin's claim.
    pub conflict: Option<String>,
}

/// A Plugin that is not there any more.
#[derive(Clone, Debug)]
pub struct Gone {
    /// What it was, for an Event about it.
    pub reference: ObjectReference,
    /// What answered.
    pub active: Option<Arc<Active>>,
}

impl InstalledPlugins {
    /// Records a Plugin and publishes the catalog where it changed.
    pub fn put(&self, object: &Plugin, installed: &Installed, context: &Context) -> Place {
        let name = object.name_any();
        let good = [&installed.candidate, &installed.last].into_iter().flatten();
        let entry = Entry {
            created: object.creation_timestamp().map(|time| time.0),
            reference: object.object_ref(&()),
            active: good.map(|good| Arc::new(good.active.clone())).collect(),
            waiting: installed.hindrance(),
        };
        let mut places = self.change(context, |entries| {
            entries.insert(name.clone(), entry);
        });
        let (at, conflict) = places.remove(&name).unwrap_or_default();
        let serves = match at {
            None => Serves::None,
            Some(0) if installed.candidate.is_some() => Serves::Newest,
            Some(_) => Serves::Last,
        };
        Place { serves, conflict }
    }

    /// Forgets Plugins that are gone, and returns them; bundled ones of the same name answer again.
    pub fn retain(&self, names: &BTreeSet<String>, context: &Context) -> Vec<Gone> {
        self.polls.retain(names);
        let mut gone = Vec::new();
        self.change(context, |entries| {
            entries.retain(|name, entry| {
                let stays = names.contains(name);
                if !stays {
                    gone.push(Gone { reference: entry.reference.clone(), active: entry.active.first().cloned() });
                }
                stays
            });
        });
        gone
    }

    fn change(&self, context: &Context, change: impl FnOnce(&mut BTreeMap<String, Entry>)) -> Places {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let (catalog, places) = catalog(bundled(&context.plugins), &entries);
        context.catalog.send_if_modified(|current| {
            let changed = **current != catalog;
            if changed {
                *current = Arc::new(catalog);
            }
            changed
        });
        places
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
    let (named, namespaces) = (false, Vec::new());
    Some(Arc::new(Active { name, manifest: loaded.manifest, digest: loaded.digest, config, grant, named, namespaces }))
}

/// By Plugin: which of those that may answer does, and what keeps a newer one from it.
type Places = BTreeMap<String, (Option<usize>, Option<String>)>;

/// The catalog, and what became of each Plugin. Bundled plugins are the oldest, unless an object takes their place.
fn catalog(bundled: Vec<Arc<Active>>, entries: &BTreeMap<String, Entry>) -> (Catalog, Places) {
    let mut installed: Vec<(&String, &Entry)> = entries.iter().collect();
    installed.sort_by_key(|(name, entry)| (entry.created, *name));
    let names: BTreeSet<String> = bundled.iter().map(|plugin| plugin.name.clone()).collect();
    // An object in a bundled plugin's place has its seniority; until it has a component, the bundled one answers.
    let mut turns: Vec<(String, Vec<Arc<Active>>)> = Vec::new();
    for plugin in bundled {
        let of_object = entries.get(&plugin.name).map(|entry| entry.active.clone()).filter(|active| !active.is_empty());
        turns.push((plugin.name.clone(), of_object.unwrap_or_else(|| vec![plugin])));
    }
    let others = installed.iter().filter(|(name, _)| !names.contains(*name));
    turns.extend(others.map(|(name, entry)| ((*name).clone(), entry.active.clone())));

    let mut taken: BTreeMap<Claim, String> = BTreeMap::new();
    let (mut all, mut places) = (Vec::new(), Places::new());
    let mut waiting: BTreeMap<String, String> =
        entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.waiting.clone()?))).collect();
    for (name, revisions) in turns {
        let mut conflict = None;
        for (at, plugin) in revisions.into_iter().enumerate() {
            let claims = claims(&plugin);
            if let Some(why) = claims.iter().find_map(|claim| taken.get(claim).map(|holder| claim.message(holder))) {
                // What the newest one is told counts.
                conflict.get_or_insert(why);
                continue;
            }
            taken.extend(claims.into_iter().map(|claim| (claim, name.clone())));
            all.push(plugin);
            places.insert(name.clone(), (Some(at), conflict.clone()));
            break;
        }
        if let Some(why) = conflict {
            waiting.insert(name.clone(), why.clone());
            places.entry(name).or_insert((None, Some(why)));
        }
    }
    (Catalog::new(all, waiting), places)
}

/// What only one plugin can have: in a namespace that it lists, or in all that nobody lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    role: PluginRole,
    what: String,
    namespace: Option<String>,
}

impl Claim {
    fn message(&self, holder: &str) -> String {
        let place = self.namespace.as_ref().map(|namespace| format!(" in the namespace `{namespace}`")).unwrap_or_default();
        format!("plugin `{holder}` is older and claims {} already{place}", self.what)
    }
}

fn claims(plugin: &Active) -> Vec<Claim> {
    let namespaces: Vec<Option<String>> = match plugin.namespaces.as_slice() {
        [] => vec![None],
        listed => listed.iter().cloned().map(Some).collect(),
    };
    let role = plugin.manifest.role;
    let each = |what: String| {
        namespaces.iter().map(|namespace| Claim { role, what: what.clone(), namespace: namespace.clone() }).collect::<Vec<_>>()
    };
    permissions::claims(&plugin.manifest).into_iter().flat_map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Grant, Manifest};

    fn plugin(name: &str, version: &str, schemes: &str, namespaces: &[&str]) -> Arc<Active> {
        let manifest =
            format!("{{name: {name}, version: {version}, role: ModelLoader, host: '0.1', claims: {{schemes: [{schemes}]}}}}");
        Arc::new(Active {
            name: name.to_owned(),
            manifest: Manifest::from_yaml(&manifest).unwrap(),
            digest: format!("sha256:{name}{version}"),
            config: serde_json::Map::new(),
            grant: Grant::default(),
            named: false,
            namespaces: namespaces.iter().map(|namespace| (*namespace).to_owned()).collect(),
        })
    }

    fn entry(second: i64, active: Vec<Arc<Active>>) -> Entry {
        let created = Some(Timestamp::from_second(second).unwrap());
        Entry { created, reference: ObjectReference::default(), active, waiting: None }
    }

    fn answers(entries: Vec<(&str, Entry)>, bundled: Vec<Arc<Active>>) -> (Vec<String>, Places) {
        let entries = entries.into_iter().map(|(name, entry)| (name.to_owned(), entry)).collect();
        let (catalog, places) = catalog(bundled, &entries);
        let named = |plugin: &Arc<Active>| format!("{} {}", plugin.name, plugin.manifest.version);
        (catalog.active().iter().map(named).collect(), places)
    }

    #[test]
    fn the_older_keeps_a_claim_and_namespaces_are_claims_of_their_own() {
        let (answering, places) = answers(
            vec![
                ("new", entry(2, vec![plugin("new", "0.1.0", "hf", &[])])),
                ("old", entry(1, vec![plugin("old", "0.1.0", "hf", &[])])),
                ("own", entry(3, vec![plugin("own", "0.1.0", "hf", &["a", "b"])])),
                ("late", entry(4, vec![plugin("late", "0.1.0", "hf", &["b", "c"])])),
                ("free", entry(5, vec![plugin("free", "0.1.0", "hf", &["c"])])),
            ],
            vec![],
        );
        assert_eq!(answering, ["old 0.1.0", "own 0.1.0", "free 0.1.0"]);
        assert_eq!(places["new"], (None, Some("plugin `old` is older and claims the scheme `hf` already".to_owned())));
        let why = "plugin `own` is older and claims the scheme `hf` already in the namespace `b`";
        assert_eq!(places["late"], (None, Some(why.to_owned())));
        assert_eq!(places["own"], (Some(0), None));
    }

    #[test]
    fn a_revision_that_claims_what_an_older_plugin_has_leaves_the_last_one_at_work() {
        let (answering, places) = answers(
            vec![
                ("old", entry(1, vec![plugin("old", "0.1.0", "s3", &[])])),
                ("grown", entry(2, vec![plugin("grown", "0.2.0", "acme, s3", &[]), plugin("grown", "0.1.0", "acme", &[])])),
            ],
            vec![plugin("bundled", "0.0.1", "hf", &[])],
        );
        assert_eq!(answering, ["bundled 0.0.1", "old 0.1.0", "grown 0.1.0"]);
        assert_eq!(places["grown"], (Some(1), Some("plugin `old` is older and claims the scheme `s3` already".to_owned())));
    }

    #[test]
    fn a_bundled_plugin_answers_until_an_object_of_its_name_has_a_component() {
        let bundled = || vec![plugin("loader", "0.0.1", "hf", &[])];
        assert_eq!(answers(vec![("loader", entry(1, vec![]))], bundled()).0, ["loader 0.0.1"]);
        let own = entry(1, vec![plugin("loader", "0.9.0", "hf", &[])]);
        assert_eq!(answers(vec![("loader", own)], bundled()).0, ["loader 0.9.0"]);
        let other = entry(1, vec![plugin("other", "0.1.0", "hf", &[])]);
        let (answering, places) = answers(vec![("other", other)], bundled());
        assert_eq!((answering, places["other"].0), (vec!["loader 0.0.1".to_owned()], None), "bundled ones are the oldest");
    }
}
