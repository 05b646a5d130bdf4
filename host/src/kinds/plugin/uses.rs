//! Who uses a plugin: what was planned by it and runs, and what would have to ask it again. Reads caches; writes nothing.

use std::sync::Arc;

use kube::ResourceExt;
use substratus_crds::{ArtifactStatus, Dataset, Model, PluginRole, PluginUsed};

use super::bundle::Gone;
use crate::catalog::Active;
use crate::context::Context;

/// Objects that a message names.
const SHOWN: usize = 10;

/// What becomes of a Plugin that was deleted: who uses it, in one sentence. Nothing where nobody does.
pub fn of_gone(gone: &Gone, context: &Context) -> Option<String> {
    let active = gone.active.as_ref()?;
    let mut users = users(active, context);
    if users.is_empty() {
        return None;
    }
    users.sort();
    let rest = users.len().saturating_sub(SHOWN);
    users.truncate(SHOWN);
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    let catalog = context.catalog();
    let instead = catalog.active().iter().any(|plugin| plugin.name == active.name);
    let next =
        if instead { "the bundled plugin of this name answers instead" } else { "what is new or edited is not planned by it" };
    Some(format!("plugin `{}` was deleted and is used by {}{more}; what runs goes on, and {next}", active.name, users.join(", ")))
}

fn users(active: &Arc<Active>, context: &Context) -> Vec<String> {
    let caches = &context.caches;
    match active.manifest.role {
        PluginRole::ModelLoader => loads(&caches.models.state(), "Model", active, |model: &Model| model.status.as_ref()),
        PluginRole::DatasetImporter => loads(&caches.datasets.state(), "Dataset", active, |data: &Dataset| data.status.as_ref()),
        PluginRole::ServerAdapter => {
            let servers = caches.servers.state();
            let uses = |used: Option<&PluginUsed>| used.is_some_and(|used| used.name == active.name);
            let using = servers.iter().filter(|server| uses(server.status.as_ref().and_then(|status| status.plugin.as_ref())));
            using.map(|server| named("Server", &**server)).collect()
        }
        // A placement is asked for once and kept: nobody needs the policy that gave it any more.
        PluginRole::GpuPolicy => Vec::new(),
    }
}

/// Loads under way; an artifact that is whole needs its plugin no more.
fn loads<A: ResourceExt>(
    objects: &[Arc<A>],
    kind: &str,
    active: &Active,
    status: impl Fn(&A) -> Option<&ArtifactStatus>,
) -> Vec<String> {
    let uses = |object: &&Arc<A>| {
        status(object).is_some_and(|status| !status.ready && status.plugin.as_ref().is_some_and(|used| used.name == active.name))
    };
    objects.iter().filter(uses).map(|object| named(kind, &**object)).collect()
}

fn named(kind: &str, object: &impl ResourceExt) -> String {
    format!("{kind} {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
