//! Keeps the operator's plugin store: what no revision and no object needs goes in time, and a file that somebody changed behind
//! our back is told of where it is of concern, and made anew. Opens no file itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt};
use substratus_crds::conditions::plugin::STORE_TAMPERED;
use substratus_crds::{Plugin, PluginStatus, PluginUsed};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::revisions::Revision;
use crate::catalog::Catalog;
use crate::context::Context;
use crate::plugin::{Stored, Tampered};
use crate::reconcile::caches::Caches;
use crate::reconcile::trigger::Trigger;
use crate::reconcile::{News, status};

/// How often the store is looked through.
const PERIOD: Duration = Duration::from_mins(10);
/// Alarms that wait to be told; one more is in the log and in the metrics alone.
pub const ALARMS: usize = 64;

/// The operator's store, and who is told of it.
pub struct Keeper {
    /// Bytes that it may take.
    pub room: u64,
    /// Files that were not what was put there.
    pub alarms: mpsc::Receiver<Tampered>,
    /// The operator itself, as Events name it.
    pub own: ObjectReference,
    /// Has a Plugin looked at.
    pub queue: mpsc::UnboundedSender<Trigger>,
}

impl Keeper {
    /// Looks through the store now and then, and tells alarms, until `shutdown`.
    pub async fn run(mut self, context: Arc<Context>, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval_at(Instant::now(), PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => self.sweep(&context).await,
                Some(tampered) = self.alarms.recv() => self.tell(&tampered, &context).await,
            }
        }
    }

    async fn sweep(&self, context: &Arc<Context>) {
        let needed = needed(&context.caches, &context.catalog());
        let (plugins, room, now) = (context.plugins.clone(), self.room, (context.now)());
        let swept = tokio::task::spawn_blocking(move || plugins.sweep(needed, room, now.into())).await;
        match swept {
            Ok(Ok(swept)) => {
                context.metrics.stored(swept.left);
                if swept.files > 0 {
                    tracing::info!(
                        files = swept.files,
                        bytes = swept.bytes,
                        left = swept.left,
                        "room was made in the plugin store"
                    );
                }
                if swept.left > self.room {
                    tracing::warn!(
                        bytes = swept.left,
                        room = self.room,
                        "plugins in use need more room than PLUGIN_CACHE_MIB says"
                    );
                }
            }
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "the plugin store is not looked through"),
            Err(error) => tracing::warn!(%error, "the plugin store is not looked through"),
        }
    }

    /// An Event on every Plugin that has the component in its history, and on the operator itself where none has; whoever has it is
    /// looked at again, and fetches what is gone.
    async fn tell(&self, tampered: &Tampered, context: &Context) {
        let all = context.caches.plugins.state();
        let concerned: Vec<&Arc<Plugin>> = all.iter().filter(|plugin| has(plugin, tampered.digest.as_deref())).collect();
        // Of the same action only the first is told: a component and its code are two.
        let action = || format!("Replace-{}", tampered.what.as_str());
        let news = || News { warning: true, reason: STORE_TAMPERED.to_owned(), action: action(), note: note(tampered) };
        if concerned.is_empty() {
            status::tell(&self.own, news(), context).await;
        }
        for plugin in concerned {
            status::tell(&plugin.object_ref(&()), news(), context).await;
            // A closed queue means that the operator is stopping.
            drop(self.queue.send(Trigger::Plugin(plugin.name_any())));
        }
    }
}

fn note(tampered: &Tampered) -> String {
    let of = tampered.digest.as_ref().map(|digest| format!(" of {digest}")).unwrap_or_default();
    let next = match tampered.what {
        Stored::Component => "fetched again",
        Stored::Code => "compiled again",
        Stored::Note => "found out again",
    };
    format!(
        "a {}{of} in the operator's plugin store was not what was put there; it was not used, and is {next}; look into who can write \
         to the volume of PLUGIN_CACHE_DIR",
        tampered.what
    )
}

fn has(plugin: &Plugin, digest: Option<&str>) -> bool {
    let (Some(digest), Some(status)) = (digest, &plugin.status) else { return false };
    digests(status).contains(digest)
}

/// Components and manifests of every revision on record.
fn digests(status: &PluginStatus) -> BTreeSet<String> {
    let revisions = status.revisions.iter().flat_map(|record| {
        let manifest = Revision::of(record).manifest().map(str::to_owned);
        [Some(record.digest.clone()), manifest].into_iter().flatten()
    });
    status.active.iter().cloned().chain(revisions).collect()
}

/// What must not go: everything that answers, every revision on record, and what objects were planned by.
fn needed(caches: &Caches, catalog: &Catalog) -> BTreeSet<String> {
    let mut needed: BTreeSet<String> = catalog.active().iter().map(|plugin| plugin.digest.clone()).collect();
    needed.extend(caches.plugins.state().iter().filter_map(|plugin| plugin.status.as_ref()).flat_map(digests));
    let mut used = |plugin: Option<&PluginUsed>| needed.extend(plugin.map(|plugin| plugin.digest.clone()));
    for model in caches.models.state() {
        used(model.status.as_ref().and_then(|status| status.plugin.as_ref()));
    }
    for dataset in caches.datasets.state() {
        used(dataset.status.as_ref().and_then(|status| status.plugin.as_ref()));
    }
    for server in caches.servers.state() {
        used(server.status.as_ref().and_then(|status| status.plugin.as_ref()));
    }
    needed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin() -> Plugin {
        let digest = |number: usize| format!("sha256:{number:064}");
        let revision = |number: usize, image: Option<String>| json!({"digest": digest(number), "image": image, "state": "Retired", "since": "2026-01-01T00:00:00Z"});
        let status = json!({"active": digest(1), "revisions": [
            revision(2, Some(format!("registry.example/a:1@{}", digest(12)))), revision(3, None)]});
        serde_json::from_value(json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": {"name": "a"}, "spec": {}, "status": status}))
            .unwrap()
    }

    #[test]
    fn components_and_manifests_of_every_revision_are_a_plugins() {
        let digest = |number: usize| format!("sha256:{number:064}");
        let found = digests(plugin().status.as_ref().unwrap());
        assert_eq!(found, [1, 2, 3, 12].map(digest).into());
        for (number, is_its) in [(1, true), (2, true), (12, true), (4, false)] {
            assert_eq!(has(&plugin(), Some(&digest(number))), is_its, "{number}");
        }
        assert!(!has(&plugin(), None), "nobody knows whose a note is");
    }

    #[test]
    fn a_note_says_what_it_was_and_what_becomes_of_it() {
        let told = |what, digest: Option<&str>| note(&Tampered { what, digest: digest.map(str::to_owned), path: "/p".into() });
        let said = told(Stored::Code, Some("sha256:aa"));
        assert!(
            said.starts_with("a native code of sha256:aa in the operator's plugin store") && said.contains("compiled again"),
            "{said}"
        );
        assert!(told(Stored::Component, Some("sha256:aa")).contains("fetched again"));
        let said = told(Stored::Note, None);
        assert!(said.starts_with("a note in the") && !said.contains("/p"), "{said}");
    }
}
