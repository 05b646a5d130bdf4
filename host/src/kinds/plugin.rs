//! `Plugin`: from an image name to an active component. The only kind without children: what it makes is the catalog.
//!
//! A revision is what the image of a Plugin came to name. Each passes the same steps before it may answer (`install`), by the word
//! of the `PluginSource` that its image is under (`source`), and waits for an administrator where that is asked for or it wants more
//! than the one before it (`approval`, `permissions`). What answered before goes on meanwhile, and when a step fails (`bundle`).

pub mod access;
pub mod approval;
pub mod bundle;
pub mod conditions;
pub mod failure;
pub mod install;
pub mod keeping;
pub mod permissions;
pub mod polls;
pub mod registry;
pub mod revisions;
pub mod source;
pub mod uses;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::Api;
use kube::runtime::controller::Action;
use substratus_crds::conditions::plugin::{ACTIVE, DELETED_IN_USE, UPDATE_AVAILABLE};
use substratus_crds::{Plugin, PluginStatus};

use crate::context::Context;
use crate::kinds::shared::conditions::find;
use crate::reconcile::{Error, News, status};

/// Field manager of a Plugin's status.
const MANAGER: &str = "plugin-controller";

/// Looks at one Plugin: installs what it names, publishes a new catalog, says what became of it.
pub async fn reconcile(object: Arc<Plugin>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let installed = install::install(&object, &context).await;
    let retry = installed.retry;
    let place = context.installed.put(&object, &installed, &context); // publishes the catalog
    let answer = conditions::status(&object, &installed, &place, (context.now)());
    write(&object, &answer, &context).await?;
    let outcome = if place.conflict.is_some() { "conflict" } else { installed.category() };
    context.metrics.reconciled(crate::metrics::Kind::Plugin, outcome, started.elapsed());
    Ok(retry.map_or_else(Action::await_change, |pause| Action::requeue(pause.max(Duration::from_secs(1)))))
}

/// Says of Plugins that are gone who uses them. Nothing else has to be done: plans are kept, and so is every component.
pub async fn gone(gone: &[bundle::Gone], context: &Context) {
    for plugin in gone {
        if let Some(note) = uses::of_gone(plugin, context) {
            tracing::warn!(plugin = plugin.reference.name, note, "a plugin in use was deleted");
            let news = News { warning: true, reason: DELETED_IN_USE.to_owned(), action: "Delete".to_owned(), note };
            status::tell(&plugin.reference, news, context).await;
        }
    }
}

async fn write(object: &Plugin, status: &PluginStatus, context: &Context) -> Result<(), Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(());
    }
    let api: Api<Plugin> = Api::all(context.client.clone());
    if status::apply(&api, object, MANAGER, status, false).await? {
        // The steps are told by what they lead to.
        let summed_up = |status: &PluginStatus| {
            [ACTIVE, UPDATE_AVAILABLE].iter().filter_map(|kind| find(&status.conditions, kind).cloned()).collect::<Vec<_>>()
        };
        let (before, now) = (object.status.as_ref().map(summed_up).unwrap_or_default(), summed_up(status));
        status::announce(object, &before, &now, context).await;
    }
    Ok(())
}
