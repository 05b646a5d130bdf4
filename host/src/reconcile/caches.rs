//! The watches: one per type, shared by all kinds; what they see is kept in memory and routed to the objects it concerns.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use substratus_crds::{Dataset, Model, Notebook, Plugin, PluginSource, Server};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::follow::{Scope, follow};
use super::nodes;
use super::pods::Pods;
use super::references::{References, own};
use super::siblings::{Becomes, Siblings};
use super::trigger::{Trigger, owners, pod_owner};
use super::views::{
    ConfigMapView, DeploymentView, JobView, NetworkPolicyView, NodeView, PodView, ServiceAccountView, ServiceView,
};
use crate::kinds::shared::names::MANAGED_BY;
use crate::plugin::types::Node;

/// What the watches see.
#[derive(Clone)]
pub struct Caches {
    /// Datasets.
    pub datasets: Store<Dataset>,
    /// Models.
    pub models: Store<Model>,
    /// Notebooks.
    pub notebooks: Store<Notebook>,
    /// Servers.
    pub servers: Store<Server>,
    /// Plugins.
    pub plugins: Store<Plugin>,
    /// Whom to trust with plugins.
    pub sources: Store<PluginSource>,
    /// Our Jobs.
    pub jobs: Store<JobView>,
    /// Our Deployments.
    pub deployments: Store<DeploymentView>,
    /// Our Services.
    pub services: Store<ServiceView>,
    /// Our `ConfigMaps`.
    pub config_maps: Store<ConfigMapView>,
    /// Our `NetworkPolicies`.
    pub network_policies: Store<NetworkPolicyView>,
    /// Our `ServiceAccounts`.
    pub service_accounts: Store<ServiceAccountView>,
    /// Nodes.
    pub nodes: Store<NodeView>,
    /// Pods by the object they run for.
    pub pods: Pods,
    /// Objects with an artifact that a worker wrote.
    pub siblings: Siblings,
}

/// Field sets are few and long: equal ones are kept once.
#[derive(Clone, Default)]
struct FieldSets {
    known: Arc<Mutex<HashMap<String, Arc<Value>>>>,
}

impl FieldSets {
    fn share(&self, fields: Value) -> Arc<Value> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(fields.to_string()).or_insert_with(|| Arc::new(fields)))
    }
}

/// A child whose fields may be changed by somebody else.
trait Child: Resource {
    fn keep(&mut self, fields: Option<Arc<Value>>);
}

macro_rules! child {
    ($($view:ty),*) => { $(impl Child for $view { fn keep(&mut self, fields: Option<Arc<Value>>) { self.fields = fields; } })* };
}
child!(ConfigMapView, NetworkPolicyView, ServiceView, ServiceAccountView, DeploymentView);

/// Starts every watch of the namespaces in `scope`, and of what lies in none. Triggers go to `queue`; the watches end when
/// `tasks` is dropped.
pub fn start(client: &Client, scope: &Scope, queue: &mpsc::UnboundedSender<Trigger>, tasks: &mut JoinSet<()>) -> Caches {
    let ours = watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let (references, siblings) = (References::default(), Siblings::default());
    let sets = FieldSets::default();
    let pods = Pods::default();
    let mut watch = Watches { client, scope, queue, tasks };
    Caches {
        datasets: watch.referring(&references, &siblings),
        models: watch.referring(&references, &siblings),
        notebooks: watch.referring(&references, &siblings),
        servers: watch.referring(&references, &siblings),
        plugins: watch.cluster(drop_managed_fields::<Plugin>, |plugin| vec![Trigger::Plugin(plugin.name_any())]),
        sources: watch.cluster(drop_managed_fields::<PluginSource>, |_| vec![Trigger::Sources]),
        jobs: watch.start(ours.clone(), drop_managed_fields::<JobView>, |_| (), owners::<JobView>),
        deployments: watch.child(&ours, &sets),
        services: watch.child(&ours, &sets),
        config_maps: watch.child(&ours, &sets),
        network_policies: watch.child(&ours, &sets),
        service_accounts: watch.child(&ours, &sets),
        nodes: watch.cluster(tidy_node, |_: &NodeView| Vec::new()),
        pods: watch.pods(&pods),
        siblings,
    }
}

struct Watches<'a> {
    client: &'a Client,
    scope: &'a Scope,
    queue: &'a mpsc::UnboundedSender<Trigger>,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    /// A kind whose objects may refer to others: whoever refers to one hears of it, too.
    fn referring<T>(&mut self, references: &References, siblings: &Siblings) -> Store<T>
    where
        T: Becomes
            + Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (see, siblings, route) = (references.clone(), siblings.clone(), references.clone());
        let see = move |event: &Event<T>| {
            see.take(event);
            siblings.take(event);
        };
        self.start(watcher::Config::default(), drop_managed_fields::<T>, see, move |object| route.concerned(own(object)))
    }

    /// A namespaced type. `see` hears of every event before anybody is sent for.
    fn start<T>(
        &mut self,
        config: watcher::Config,
        tidy: impl Fn(&mut T) + Send + 'static,
        see: impl Fn(&Event<T>) + Send + 'static,
        route: impl Fn(&T) -> Vec<Trigger> + Send + 'static,
    ) -> Store<T>
    where
        T: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let apis = self.scope.apis(self.client);
        self.store(apis, config, tidy, see, route)
    }

    /// A type that lies in no namespace.
    fn cluster<T>(
        &mut self,
        tidy: impl Fn(&mut T) + Send + 'static,
        route: impl Fn(&T) -> Vec<Trigger> + Send + 'static,
    ) -> Store<T>
    where
        T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.store(vec![Api::all(self.client.clone())], watcher::Config::default(), tidy, |_| (), route)
    }

    fn store<T>(
        &mut self,
        apis: Vec<Api<T>>,
        config: watcher::Config,
        tidy: impl Fn(&mut T) + Send + 'static,
        see: impl Fn(&Event<T>) + Send + 'static,
        route: impl Fn(&T) -> Vec<Trigger> + Send + 'static,
    ) -> Store<T>
    where
        T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut writer: Writer<T> = Writer::default();
        let store = writer.as_reader();
        self.follow(apis, config, move |mut event, queue| {
            tidy_event(&mut event, &tidy);
            writer.apply_watcher_event(&event);
            see(&event);
            send(&event, &route, queue);
        });
        store
    }

    fn child<T>(&mut self, config: &watcher::Config, sets: &FieldSets) -> Store<T>
    where
        T: Child
            + Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let sets = sets.clone();
        let tidy = move |object: &mut T| {
            let fields = our_fields(object).map(|fields| sets.share(fields));
            object.keep(fields);
            drop_managed_fields(object);
        };
        self.start(config.clone(), tidy, |_| (), owners::<T>)
    }

    fn pods(&mut self, pods: &Pods) -> Pods {
        let index = pods.clone();
        let apis = self.scope.apis(self.client);
        self.follow(apis, watcher::Config::default().labels("role in (run,build)"), move |mut event: Event<PodView>, queue| {
            tidy_event(&mut event, &drop_managed_fields);
            index.take(&event);
            send(&event, &|pod| pod_owner(pod).into_iter().collect(), queue);
        });
        pods.clone()
    }

    fn follow<T>(
        &mut self,
        apis: Vec<Api<T>>,
        config: watcher::Config,
        mut take: impl FnMut(Event<T>, &mpsc::UnboundedSender<Trigger>) + Send + 'static,
    ) where
        T: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let queue = self.queue.clone();
        self.tasks.spawn(follow(apis, config, move |event| take(event, &queue)));
    }
}

fn tidy_event<T>(event: &mut Event<T>, tidy: &impl Fn(&mut T)) {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => tidy(object),
        Event::Init | Event::InitDone => {}
    }
}

fn send<T>(event: &Event<T>, route: &impl Fn(&T) -> Vec<Trigger>, queue: &mpsc::UnboundedSender<Trigger>) {
    if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = event {
        for trigger in route(object) {
            // A closed queue means that the operator is stopping.
            drop(queue.send(trigger));
        }
    }
}

fn drop_managed_fields<T: Resource>(object: &mut T) {
    object.meta_mut().managed_fields = None;
}

fn tidy_node(node: &mut NodeView) {
    drop_managed_fields(node);
    node.metadata.annotations = None;
}

fn our_fields<T: Resource>(object: &T) -> Option<Value> {
    let entries = object.meta().managed_fields.as_ref()?;
    let ours = entries.iter().find(|entry| {
        entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
            && entry.manager.as_deref().is_some_and(|manager| super::MANAGERS.contains(&manager))
    })?;
    ours.fields_v1.as_ref().map(|fields| fields.0.clone())
}

/// The object of a namespaced store.
pub fn get<T>(store: &Store<T>, namespace: &str, name: &str) -> Option<Arc<T>>
where
    T: Resource<DynamicType: Default + Eq + Hash + Clone> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(namespace))
}

impl Caches {
    /// Nodes that offer extended resources or say something about accelerators, by name.
    pub fn accelerator_nodes(&self) -> Vec<Node> {
        nodes::accelerators(&self.nodes.state())
    }

    /// Waits until every watch has seen its whole list once.
    pub async fn synced(&self) {
        // An error means that the watch ended, and then the operator is stopping.
        drop(tokio::join!(
            self.datasets.wait_until_ready(),
            self.notebooks.wait_until_ready(),
            self.models.wait_until_ready(),
            self.servers.wait_until_ready(),
            self.plugins.wait_until_ready(),
            self.sources.wait_until_ready(),
            self.jobs.wait_until_ready(),
            self.deployments.wait_until_ready(),
            self.services.wait_until_ready(),
            self.config_maps.wait_until_ready(),
            self.network_policies.wait_until_ready(),
            self.service_accounts.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.pods.ready(),
        ));
    }
}
