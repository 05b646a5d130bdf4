//! Pods by the object they run for. It must not know what becomes of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::trigger::{Trigger, pod_owner};
use super::views::PodView;
use crate::kinds::shared::names::BUILDS;

type PodsByObject = HashMap<Trigger, HashMap<String, Arc<PodView>>>;

/// Pods by the object they run for.
#[derive(Clone, Default)]
pub struct Pods {
    lists: Arc<Mutex<Lists>>,
    listed: watch::Sender<bool>,
}

#[derive(Default)]
struct Lists {
    known: PodsByObject,
    /// A list on its way; until it is whole, what was known counts: an object whose pods are missing would be run again.
    coming: Option<PodsByObject>,
}

impl Lists {
    fn each(&mut self) -> impl Iterator<Item = &mut PodsByObject> {
        std::iter::once(&mut self.known).chain(&mut self.coming)
    }
}

impl Pods {
    /// The pods of an object that run for it.
    pub fn of(&self, object: &Trigger) -> Vec<Arc<PodView>> {
        self.with(object, |pod| !builds(pod))
    }

    /// The pods that build its image.
    pub fn building(&self, object: &Trigger) -> Vec<Arc<PodView>> {
        self.with(object, builds)
    }

    fn with(&self, object: &Trigger, wanted: impl Fn(&PodView) -> bool) -> Vec<Arc<PodView>> {
        let lists = self.lists();
        lists.known.get(object).into_iter().flat_map(HashMap::values).filter(|pod| wanted(pod)).cloned().collect()
    }

    /// One pod of an object.
    pub fn get(&self, object: &Trigger, name: &str) -> Option<Arc<PodView>> {
        self.lists().known.get(object)?.get(name).cloned()
    }

    /// Waits until all pods are known.
    pub async fn ready(&self) {
        // The sender lives as long as we do.
        drop(self.listed.subscribe().wait_for(|listed| *listed).await);
    }

    /// Keeps up with a watch. What happens while a list is on its way counts for both: watches of several namespaces are one
    /// list, and some of them are done with theirs before others.
    pub fn take(&self, event: &Event<PodView>) {
        let mut lists = self.lists();
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let Some(object) = pod_owner(pod) else { return };
                let view = Arc::new(pod.clone());
                for pods in lists.each() {
                    pods.entry(object.clone()).or_default().insert(pod.name_any(), Arc::clone(&view));
                }
            }
            Event::Delete(pod) => {
                let Some(object) = pod_owner(pod) else { return };
                for pods in lists.each() {
                    let Some(of_object) = pods.get_mut(&object) else { continue };
                    of_object.remove(&pod.name_any());
                    if of_object.is_empty() {
                        pods.remove(&object);
                    }
                }
            }
            Event::Init => lists.coming = Some(PodsByObject::new()),
            Event::InitDone => {
                lists.known = lists.coming.take().unwrap_or_default();
                self.listed.send_replace(true);
            }
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn builds(pod: &PodView) -> bool {
    pod.labels().get("role").is_some_and(|role| role == BUILDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> PodView {
        serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "team", "labels": {"role": "run", "server": "s"}}}))
        .unwrap()
    }

    fn names(pods: &Pods) -> Vec<String> {
        let mut names: Vec<String> =
            pods.of(&Trigger::Server("team".into(), "s".into())).iter().map(|pod| pod.name_any()).collect();
        names.sort();
        names
    }

    #[test]
    fn pods_that_build_are_no_pods_that_run() {
        let pods = Pods::default();
        let mut builder = pod("builder");
        builder.metadata.labels.as_mut().unwrap().insert("role".into(), BUILDS.into());
        for pod in [builder, pod("runs")] {
            pods.take(&Event::Apply(pod));
        }
        assert_eq!(names(&pods), ["runs"]);
        let building = pods.building(&Trigger::Server("team".into(), "s".into()));
        assert_eq!(building.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["builder"]);
    }

    #[test]
    fn what_was_known_counts_until_a_list_is_whole() {
        let pods = Pods::default();
        for event in [Event::Init, Event::InitApply(pod("stays")), Event::InitApply(pod("vanishes")), Event::InitDone] {
            pods.take(&event);
        }
        assert_eq!(names(&pods), ["stays", "vanishes"]);
        pods.take(&Event::Init);
        assert_eq!(names(&pods), ["stays", "vanishes"]);
        pods.take(&Event::InitApply(pod("goes")));
        // A watch that is done with its part of the list goes on telling.
        for event in [Event::InitApply(pod("stays")), Event::Apply(pod("new")), Event::Delete(pod("goes")), Event::InitDone] {
            pods.take(&event);
        }
        assert_eq!(names(&pods), ["new", "stays"]);
    }
}
