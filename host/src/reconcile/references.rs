//! Who refers to which object, so that a change of one reaches the others. Knows nothing of watches nor of what is done then.

use std::collections::{BTreeSet, HashMap};
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};
use substratus_crds::{Dataset, Model, Notebook, ObjectRef, Server};

use super::caches::Trigger;

/// A kind whose objects may refer to Models and Datasets of their namespace.
pub trait Refers: Resource {
    /// What looks at an object of this kind: its namespace and its name.
    const TRIGGER: fn(String, String) -> Trigger;

    /// The Model and the Dataset that it names.
    fn names(&self) -> [Option<&ObjectRef>; 2];
}

impl Refers for Dataset {
    const TRIGGER: fn(String, String) -> Trigger = Trigger::Dataset;

    fn names(&self) -> [Option<&ObjectRef>; 2] {
        [None, None]
    }
}

impl Refers for Model {
    const TRIGGER: fn(String, String) -> Trigger = Trigger::Model;

    fn names(&self) -> [Option<&ObjectRef>; 2] {
        [self.spec.model.as_ref(), self.spec.dataset.as_ref()]
    }
}

impl Refers for Notebook {
    const TRIGGER: fn(String, String) -> Trigger = Trigger::Notebook;

    fn names(&self) -> [Option<&ObjectRef>; 2] {
        [self.spec.model.as_ref(), self.spec.dataset.as_ref()]
    }
}

impl Refers for Server {
    const TRIGGER: fn(String, String) -> Trigger = Trigger::Server;

    fn names(&self) -> [Option<&ObjectRef>; 2] {
        [self.spec.model.as_ref(), None]
    }
}

/// What looks at this object.
pub fn own<T: Refers>(object: &T) -> Trigger {
    T::TRIGGER(object.namespace().unwrap_or_default(), object.name_any())
}

fn targets<T: Refers>(object: &T) -> BTreeSet<Trigger> {
    let namespace = object.namespace().unwrap_or_default();
    let [model, dataset] = object.names();
    let model = model.map(|reference| Trigger::Model(namespace.clone(), reference.name.clone()));
    let dataset = dataset.map(|reference| Trigger::Dataset(namespace.clone(), reference.name.clone()));
    model.into_iter().chain(dataset).collect()
}

/// Who refers to which Model or Dataset.
#[derive(Clone, Default)]
pub struct References {
    inner: Arc<Mutex<Referring>>,
}

#[derive(Default)]
struct Referring {
    /// What each object names.
    named: HashMap<Trigger, BTreeSet<Trigger>>,
    by_target: HashMap<Trigger, BTreeSet<Trigger>>,
}

impl References {
    /// Whom a change of an object concerns: those that refer to it, and itself.
    pub fn concerned(&self, own: Trigger) -> Vec<Trigger> {
        let all = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut concerned: Vec<Trigger> = all.by_target.get(&own).into_iter().flatten().cloned().collect();
        concerned.push(own);
        concerned
    }

    /// Remembers what an object refers to, as long as it does.
    pub fn take<T: Refers>(&self, event: &Event<T>) {
        let mut all = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) | Event::InitApply(object) => all.set(own(object), targets(object)),
            Event::Delete(object) => all.set(own(object), BTreeSet::new()),
            Event::Init => all.forget(&T::TRIGGER(String::new(), String::new())),
            Event::InitDone => {}
        }
    }
}

impl Referring {
    fn set(&mut self, from: Trigger, to: BTreeSet<Trigger>) {
        for before in self.named.remove(&from).into_iter().flatten() {
            if let Some(referring) = self.by_target.get_mut(&before) {
                referring.remove(&from);
                if referring.is_empty() {
                    self.by_target.remove(&before);
                }
            }
        }
        for target in &to {
            self.by_target.entry(target.clone()).or_default().insert(from.clone());
        }
        if !to.is_empty() {
            self.named.insert(from, to);
        }
    }

    /// A list of this one's kind begins anew.
    fn forget(&mut self, kind: &Trigger) {
        let of_kind: Vec<Trigger> = self.named.keys().filter(|from| discriminant(*from) == discriminant(kind)).cloned().collect();
        for from in of_kind {
            self.set(from, BTreeSet::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn server(name: &str, model: &str) -> Server {
        let model = if model.is_empty() { Value::Null } else { json!({"name": model}) };
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"model": model}})).unwrap()
    }

    fn trigger(kind: fn(String, String) -> Trigger, name: &str) -> Trigger {
        kind("ns".to_owned(), name.to_owned())
    }

    #[test]
    fn references_follow_their_objects_and_go_with_them() {
        let references = References::default();
        let to = |model: &str| {
            let own = trigger(Trigger::Model, model);
            let concerned = references.concerned(own.clone());
            concerned.into_iter().filter(|trigger| *trigger != own).collect::<Vec<_>>()
        };
        references.take(&Event::Apply(server("one", "a")));
        references.take(&Event::Apply(server("two", "a")));
        assert_eq!(to("a").len(), 2);
        references.take(&Event::Apply(server("one", "b")));
        assert_eq!((to("a").len(), to("b")), (1, vec![trigger(Trigger::Server, "one")]));
        references.take(&Event::Apply(server("two", "")));
        assert_eq!((to("a").len(), to("b").len()), (0, 1));
        references.take(&Event::Delete(server("one", "b")));
        let left = references.inner.lock().unwrap();
        assert!(left.named.is_empty() && left.by_target.is_empty());
    }

    #[test]
    fn a_list_that_begins_anew_forgets_its_own_kind_alone() {
        let references = References::default();
        let tuned = json!({"metadata": {"name": "tuned", "namespace": "ns"},
            "spec": {"image": "example.com/trainer:1", "model": {"name": "base"}, "dataset": {"name": "words"}}});
        let tuned: Model = serde_json::from_value(tuned).unwrap();
        references.take(&Event::Apply(tuned));
        references.take(&Event::Apply(server("one", "base")));
        references.take::<Server>(&Event::Init);
        let (base, words) = (trigger(Trigger::Model, "base"), trigger(Trigger::Dataset, "words"));
        let tuned = trigger(Trigger::Model, "tuned");
        assert_eq!(references.concerned(base.clone()), [tuned.clone(), base]);
        assert_eq!(references.concerned(words.clone()), [tuned, words]);
    }
}
