//! Which objects of a namespace have an artifact that our own worker wrote, the newest first: what another load may take files
//! over from. Knows nothing of where artifacts lie.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::mem::discriminant;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use substratus_crds::conditions::COMPLETE;
use substratus_crds::{ArtifactStatus, Dataset, Model, Notebook, Server};

use super::references::{Refers, own};
use super::trigger::Trigger;
use crate::kinds::shared::conditions::find;

/// A kind whose objects may become artifacts.
pub trait Becomes: Refers {
    /// The status of one that does.
    fn artifact(&self) -> Option<&ArtifactStatus>;
}

impl Becomes for Dataset {
    fn artifact(&self) -> Option<&ArtifactStatus> {
        self.status.as_ref()
    }
}

impl Becomes for Model {
    fn artifact(&self) -> Option<&ArtifactStatus> {
        self.status.as_ref()
    }
}

impl Becomes for Notebook {
    fn artifact(&self) -> Option<&ArtifactStatus> {
        None
    }
}

impl Becomes for Server {
    fn artifact(&self) -> Option<&ArtifactStatus> {
        None
    }
}

/// Whole ones before others, newer before older.
type Rank = (Reverse<bool>, Reverse<Option<Timestamp>>);

/// The objects, by namespace.
#[derive(Clone, Default)]
pub struct Siblings {
    inner: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    ranks: HashMap<Trigger, Rank>,
    by_namespace: HashMap<String, BTreeSet<(Rank, Trigger)>>,
}

impl Siblings {
    /// At most `most` objects of a namespace, the best first.
    pub fn of(&self, namespace: &str, most: usize) -> Vec<Trigger> {
        let known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        known.by_namespace.get(namespace).into_iter().flatten().take(most).map(|(_, object)| object.clone()).collect()
    }

    /// Remembers an object as long as it has an artifact.
    pub fn take<T: Becomes>(&self, event: &Event<T>) {
        let mut known = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Apply(object) | Event::InitApply(object) => known.set(own(object), object.artifact().and_then(rank)),
            Event::Delete(object) => known.set(own(object), None),
            Event::Init => known.forget(&T::TRIGGER(String::new(), String::new())),
            Event::InitDone => {}
        }
    }
}

/// Only what a plugin's worker wrote has a record of its digests.
fn rank(status: &ArtifactStatus) -> Option<Rank> {
    status.plugin.as_ref()?;
    let since = find(&status.conditions, COMPLETE).map(|complete| complete.last_transition_time.0);
    Some((Reverse(status.ready), Reverse(since)))
}

impl Known {
    fn set(&mut self, object: Trigger, rank: Option<Rank>) {
        let Some(namespace) = object.namespace().map(str::to_owned) else { return };
        let before = match rank {
            Some(rank) => self.ranks.insert(object.clone(), rank),
            None => self.ranks.remove(&object),
        };
        if before == rank {
            return;
        }
        let all = self.by_namespace.entry(namespace.clone()).or_default();
        if let Some(before) = before {
            all.remove(&(before, object.clone()));
        }
        if let Some(rank) = rank {
            all.insert((rank, object));
        }
        if all.is_empty() {
            self.by_namespace.remove(&namespace);
        }
    }

    /// A list of this one's kind begins anew.
    fn forget(&mut self, kind: &Trigger) {
        let gone: Vec<_> = self.ranks.keys().filter(|object| discriminant(*object) == discriminant(kind)).cloned().collect();
        for object in gone {
            self.set(object, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
    use substratus_crds::PluginUsed;

    use super::*;

    fn model(namespace: &str, name: &str, ready: bool, second: i64) -> Model {
        let mut model = Model::new(name, substratus_crds::ModelSpec::default());
        model.metadata.namespace = Some(namespace.to_owned());
        let complete = Condition {
            type_: COMPLETE.to_owned(),
            status: "True".to_owned(),
            reason: "r".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::from_second(second).unwrap()),
        };
        let (plugin, conditions) = (Some(PluginUsed::default()), vec![complete]);
        model.status = Some(ArtifactStatus { ready, plugin, conditions, ..ArtifactStatus::default() });
        model
    }

    fn names(siblings: &Siblings, namespace: &str, most: usize) -> Vec<String> {
        let name = |object: Trigger| match object {
            Trigger::Model(_, name) => name,
            other => panic!("{other:?}"),
        };
        siblings.of(namespace, most).into_iter().map(name).collect()
    }

    #[test]
    fn the_newest_whole_ones_of_a_namespace_come_first() {
        let siblings = Siblings::default();
        for (namespace, name, ready, second) in
            [("a", "old", true, 1), ("a", "loading", false, 9), ("a", "new", true, 5), ("b", "foreign", true, 7)]
        {
            siblings.take(&Event::Apply(model(namespace, name, ready, second)));
        }
        assert_eq!(names(&siblings, "a", 9), ["new", "old", "loading"]);
        assert_eq!(names(&siblings, "a", 2), ["new", "old"]);
        siblings.take(&Event::Apply(model("a", "loading", true, 10)));
        siblings.take(&Event::Delete(model("a", "new", true, 5)));
        let mut contained = model("a", "old", true, 1);
        contained.status.as_mut().unwrap().plugin = None;
        siblings.take(&Event::Apply(contained));
        assert_eq!(names(&siblings, "a", 9), ["loading"]);
        siblings.take::<Model>(&Event::Init);
        assert!(names(&siblings, "a", 9).is_empty() && names(&siblings, "b", 9).is_empty());
    }
}
