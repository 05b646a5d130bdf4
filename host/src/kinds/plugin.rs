//! `Plugin`: from an image name to an active component. The only kind without children: what it makes is the catalog.

pub mod bundle;
pub mod conditions;
pub mod install;
pub mod registry;

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::Api;
use kube::runtime::controller::Action;
use substratus_crds::conditions::plugin::ACTIVE;
use substratus_crds::{Plugin, PluginStatus};

use crate::context::Context;
use crate::kinds::shared::conditions::find;
use crate::reconcile::{Error, status};

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
    let conflict = context.installed.put(&object, &installed, &context); // publishes the catalog
    let answer = conditions::status(&object, &installed, conflict.as_deref(), (context.now)());
    write(&object, &answer, &context).await?;
    let outcome = if conflict.is_some() { "conflict" } else { installed.category() };
    context.metrics.reconciled(crate::metrics::Kind::Plugin, outcome, started.elapsed());
    Ok(retry.map_or_else(Action::await_change, |pause| Action::requeue(pause.max(Duration::from_secs(1)))))
}

async fn write(object: &Plugin, status: &PluginStatus, context: &Context) -> Result<(), Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(());
    }
    let api: Api<Plugin> = Api::all(context.client.clone());
    if status::apply(&api, object, MANAGER, status, false).await? {
        // The steps are told by what they lead to.
        let summed_up = |status: &PluginStatus| find(&status.conditions, ACTIVE).cloned();
        let (before, now) = (object.status.as_ref().and_then(summed_up), summed_up(status));
        status::announce(object, before.as_slice(), now.as_slice(), context).await;
    }
    Ok(())
}
