//! One controller for each kind: what the watches tell becomes a queue of names, and names become reconciles. It must not know
//! what a reconcile does.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config, ReconcileRequest};
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use substratus_crds::{Dataset, Model, Notebook, Plugin, Server};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::causes;
use crate::context::Context;
use crate::kinds;
use crate::reconcile::trigger::{self, Trigger};
use crate::reconcile::{self, Error, caches};

/// First and longest pause after a failed pass.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(2));

/// Runs the controllers until `shutdown`; what is under way ends first.
pub async fn run(
    context: &Arc<Context>,
    triggers: mpsc::UnboundedReceiver<Trigger>,
    concurrency: u16,
    shutdown: &CancellationToken,
) {
    let (datasets, dataset_queue) = mpsc::unbounded_channel();
    let (models, model_queue) = mpsc::unbounded_channel();
    let (notebooks, notebook_queue) = mpsc::unbounded_channel();
    let (servers, server_queue) = mpsc::unbounded_channel();
    let (plugins, plugin_queue) = mpsc::unbounded_channel();
    let config = Config::default().concurrency(concurrency);
    let queues = Queues { datasets, notebooks, models, servers, plugins };
    let dispatch = dispatch(Arc::clone(context), triggers, queues, shutdown.clone());
    let store = context.caches.datasets.clone();
    let datasets = drive(store, dataset_queue, config.clone(), Arc::clone(context), reconcile::reconcile::<Dataset>);
    let store = context.caches.models.clone();
    let models = drive(store, model_queue, config.clone(), Arc::clone(context), reconcile::reconcile::<Model>);
    let store = context.caches.notebooks.clone();
    let notebooks = drive(store, notebook_queue, config.clone(), Arc::clone(context), reconcile::reconcile::<Notebook>);
    let store = context.caches.servers.clone();
    let servers = drive(store, server_queue, config.clone(), Arc::clone(context), reconcile::reconcile::<Server>);
    let store = context.caches.plugins.clone();
    let plugins = drive(store, plugin_queue, config, Arc::clone(context), kinds::plugin::reconcile);
    tokio::join!(dispatch, datasets, models, notebooks, servers, plugins);
}

struct Queues {
    datasets: mpsc::UnboundedSender<ObjectRef<Dataset>>,
    notebooks: mpsc::UnboundedSender<ObjectRef<Notebook>>,
    models: mpsc::UnboundedSender<ObjectRef<Model>>,
    servers: mpsc::UnboundedSender<ObjectRef<Server>>,
    plugins: mpsc::UnboundedSender<ObjectRef<Plugin>>,
}

impl Queues {
    fn send(&self, trigger: Trigger) {
        // A closed queue means that its controller has ended.
        match trigger {
            Trigger::Dataset(namespace, name) => drop(self.datasets.send(ObjectRef::new(&name).within(&namespace))),
            Trigger::Notebook(namespace, name) => drop(self.notebooks.send(ObjectRef::new(&name).within(&namespace))),
            Trigger::Model(namespace, name) => drop(self.models.send(ObjectRef::new(&name).within(&namespace))),
            Trigger::Server(namespace, name) => drop(self.servers.send(ObjectRef::new(&name).within(&namespace))),
            Trigger::Plugin(name) => drop(self.plugins.send(ObjectRef::new(&name))),
            // Handed out where the Plugins are known.
            Trigger::Sources => {}
        }
    }
}

/// Hands triggers to the kinds: from watches, from workers' reports, and everything when the catalog changes.
async fn dispatch(
    context: Arc<Context>,
    mut triggers: mpsc::UnboundedReceiver<Trigger>,
    queues: Queues,
    shutdown: CancellationToken,
) {
    let mut reports = std::pin::pin!(context.board.changes());
    let mut catalog = context.catalog.subscribe();
    everything(&context, &queues);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(trigger) = triggers.recv() => {
                match &trigger {
                    Trigger::Plugin(_) => {
                        let all = context.caches.plugins.state();
                        let names = all.iter().filter_map(|plugin| plugin.metadata.name.clone()).collect();
                        let gone = context.installed.retain(&names, &context);
                        kinds::plugin::gone(&gone, &context).await;
                    }
                    Trigger::Sources => plugins(&context, &queues),
                    _ => {}
                }
                queues.send(trigger);
            }
            Some((namespace, name)) = reports.next() => {
                let job = caches::get(&context.caches.jobs, &namespace, &name);
                job.iter().flat_map(|job| trigger::owners(job.as_ref())).for_each(|trigger| queues.send(trigger));
            }
            Ok(()) = catalog.changed() => everything(&context, &queues),
            else => return,
        }
    }
}

fn everything(context: &Context, queues: &Queues) {
    for dataset in context.caches.datasets.state() {
        drop(queues.datasets.send(dataset.to_object_ref(())));
    }
    for notebook in context.caches.notebooks.state() {
        drop(queues.notebooks.send(notebook.to_object_ref(())));
    }
    for model in context.caches.models.state() {
        drop(queues.models.send(model.to_object_ref(())));
    }
    for server in context.caches.servers.state() {
        drop(queues.servers.send(server.to_object_ref(())));
    }
    // Who holds a claim may have changed, too.
    plugins(context, queues);
}

fn plugins(context: &Context, queues: &Queues) {
    for plugin in context.caches.plugins.state() {
        drop(queues.plugins.send(plugin.to_object_ref(())));
    }
}

/// One controller: a queue of names in, reconciles out, growing pauses after errors.
async fn drive<K, F, Fut>(
    store: Store<K>,
    queue: mpsc::UnboundedReceiver<ObjectRef<K>>,
    config: Config,
    context: Arc<Context>,
    reconcile: F,
) where
    K: kube::Resource<DynamicType = ()> + Clone + Send + Sync + std::fmt::Debug + 'static,
    F: Fn(Arc<K>, Arc<Context>) -> Fut + Clone + Send,
    Fut: Future<Output = Result<Action, Error>> + Send,
{
    let failures: crate::backoff::Failures<ObjectRef<K>> = crate::backoff::Failures::new(PAUSES.0, PAUSES.1);
    let queue = futures::stream::unfold(queue, async |mut queue| {
        let next = queue.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(ReconcileRequest::from(next)), queue))
    });
    let (succeeded, failed) = (failures.clone(), failures);
    let each = move |object: Arc<K>, context: Arc<Context>| {
        let (reconcile, succeeded) = (reconcile.clone(), succeeded.clone());
        async move {
            let name = ObjectRef::from_obj(object.as_ref());
            let result = reconcile(object, context).await;
            if result.is_ok() {
                succeeded.forget(&name);
            }
            result
        }
        .boxed()
    };
    let policy = move |object: Arc<K>, error: &Error, _: Arc<Context>| {
        let name = ObjectRef::from_obj(object.as_ref());
        let pause = failed.next(&name);
        tracing::warn!(object = %name, error = causes::chain(error), ?pause, "reconcile failed, trying again");
        Action::requeue(pause)
    };
    let mut outcomes = std::pin::pin!(applier(each, policy, context, store, queue, config));
    loop {
        match outcomes.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => return,
            // Reported by the policy above, or an object that is gone.
            Err(error) => tracing::debug!(%error, "reconcile ended"),
        }
    }
}
