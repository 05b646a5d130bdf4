//! Which object of ours an event is about: by owner reference, or by the labels of a pod. Pure.

use kube::{Resource, ResourceExt};

use super::views::PodView;

/// Something that concerns an object: look at it again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Trigger {
    /// Namespace and name of a Dataset.
    Dataset(String, String),
    /// Namespace and name of a Model.
    Model(String, String),
    /// Namespace and name of a Notebook.
    Notebook(String, String),
    /// Namespace and name of a Server.
    Server(String, String),
    /// Name of a Plugin.
    Plugin(String),
    /// Some `PluginSource`: any Plugin may be under it.
    Sources,
}

impl Trigger {
    /// The namespace of the object; nothing where it lies in none.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Dataset(namespace, _)
            | Self::Model(namespace, _)
            | Self::Notebook(namespace, _)
            | Self::Server(namespace, _) => Some(namespace),
            Self::Plugin(_) | Self::Sources => None,
        }
    }
}

/// The objects of ours that own this one.
pub fn owners<T: Resource>(object: &T) -> Vec<Trigger> {
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let owners = object.meta().owner_references.iter().flatten();
    owners.filter_map(|owner| Some(maker(&owner.kind.to_lowercase())?(namespace.clone(), owner.name.clone()))).collect()
}

/// The object that a pod runs for.
pub fn pod_owner(pod: &PodView) -> Option<Trigger> {
    let mut labels = pod.labels().iter();
    labels.find_map(|(label, name)| Some(maker(label)?(pod.namespace().unwrap_or_default(), name.clone())))
}

/// An object of a kind in lower case.
pub fn of(kind: &str, namespace: &str, name: &str) -> Option<Trigger> {
    Some(maker(kind)?(namespace.to_owned(), name.to_owned()))
}

/// What makes a trigger for a kind in lower case, which is also the label of its pods.
fn maker(kind: &str) -> Option<fn(String, String) -> Trigger> {
    Some(match kind {
        "dataset" => Trigger::Dataset,
        "model" => Trigger::Model,
        "notebook" => Trigger::Notebook,
        "server" => Trigger::Server,
        _ => return None,
    })
}
