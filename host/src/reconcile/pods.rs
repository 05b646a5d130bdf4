//! Pods by the object they run for. It must not know what becomes of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::trigger::{Trigger, pod_owner};
use super::views::PodView;

type PodsByName = HashMap<String, Arc<PodView>>;

/// Pods by the object they run for.
#[derive(Clone, Default)]
pub struct Pods {
    by_object: Arc<Mutex<HashMap<Trigger, PodsByName>>>,
    /// A list on its way; until it is whole, what was known counts: an object whose pods are missing would be run again.
    coming: Arc<Mutex<HashMap<Trigger, PodsByName>>>,
    listed: watch::Sender<bool>,
}

impl Pods {
    /// The pods of an object.
    pub fn of(&self, object: &Trigger) -> Vec<Arc<PodView>> {
        let pods = self.by_object.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(object).map(|pods| pods.values().cloned().collect()).unwrap_or_default()
    }

    /// One pod of an object.
    pub fn get(&self, object: &Trigger, name: &str) -> Option<Arc<PodView>> {
        let pods = self.by_object.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(object)?.get(name).cloned()
    }

    /// Waits until all pods are known.
    pub async fn ready(&self) {
        // The sender lives as long as we do.
        drop(self.listed.subscribe().wait_for(|listed| *listed).await);
    }

    /// Keeps up with a watch.
    pub fn take(&self, event: &Event<PodView>) {
        let mut pods = self.by_object.lock().unwrap_or_else(PoisonError::into_inner);
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let put = |pods: &mut HashMap<Trigger, PodsByName>, pod: &PodView| {
            if let Some(object) = pod_owner(pod) {
                pods.entry(object).or_default().insert(pod.name_any(), Arc::new(pod.clone()));
            }
        };
        match event {
            Event::Apply(pod) => put(&mut pods, pod),
            Event::InitApply(pod) => {
                // Its object is looked at before the list is whole.
                put(&mut pods, pod);
                put(&mut coming, pod);
            }
            Event::Delete(pod) => {
                if let Some(object) = pod_owner(pod)
                    && let Some(known) = pods.get_mut(&object)
                {
                    known.remove(&pod.name_any());
                    if known.is_empty() {
                        pods.remove(&object);
                    }
                }
            }
            Event::Init => coming.clear(),
            Event::InitDone => {
                *pods = std::mem::take(&mut *coming);
                self.listed.send_replace(true);
            }
        }
    }
}
