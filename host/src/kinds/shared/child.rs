//! A child as data: what `build` makes, `guard` checks and `apply` writes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

use super::hash;
use super::names::{APPLIED_HASH, IDENTITY, MANAGED_BY};

/// Kinds that the operator makes, in the order they are applied: what others refer to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    /// Shared by all objects of a namespace; never deleted.
    ServiceAccount,
    /// Parameters and requests of workers.
    ConfigMap,
    /// Token of a Notebook.
    Secret,
    /// What the pod of a worker may connect to.
    NetworkPolicy,
    /// Address of a Server.
    Service,
    /// Replicas of a Server.
    Deployment,
    /// A load or a training.
    Job,
    /// A Notebook.
    Pod,
}

/// How a child is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Server-side applied, owned, pruned.
    Own,
    /// Server-side applied, without an owner, never pruned.
    Share,
    /// Left as the first operator made it; only labelled, so that the watches see it.
    Adopt,
    /// Created once with a random text under this key; never read, never changed.
    Token {
        /// Key of the Secret.
        key: &'static str,
    },
    /// Created; an existing one of the same identity is left alone, of another identity replaced.
    Run {
        /// What it was made for.
        identity: String,
    },
}

/// One object to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name; the namespace is the owner's.
    pub name: String,
    /// How it is kept.
    pub policy: Policy,
    /// The whole object.
    pub object: Value,
}

impl Child {
    /// Finishes an object: namespace, owner, label, hash. `object` is a typed Kubernetes object.
    pub fn new<K: Serialize + Resource<DynamicType = ()>>(kind: ChildKind, policy: Policy, owner: &Owner, mut object: K) -> Self {
        let meta = object.meta_mut();
        meta.namespace = Some(owner.namespace.clone());
        meta.labels.get_or_insert_default().insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
        if policy != Policy::Share {
            meta.owner_references = Some(vec![owner.reference.clone()]);
        }
        if let Policy::Run { identity } = &policy {
            meta.annotations.get_or_insert_default().insert(IDENTITY.to_owned(), identity.clone());
        }
        let name = meta.name.clone().unwrap_or_default();
        let mut object = serde_json::to_value(&object).unwrap_or(Value::Null);
        let applied = hash::of(&object);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            if let Some(annotations) = annotations.as_object_mut() {
                annotations.insert(APPLIED_HASH.to_owned(), applied.into());
            }
        }
        Self { kind, name, policy, object }
    }

    /// A ConfigMap of an object.
    pub fn config_map(owner: &Owner, name: String, data: BTreeMap<String, String>) -> Self {
        let object = ConfigMap {
            metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
            data: Some(data),
            ..ConfigMap::default()
        };
        Self::new(ChildKind::ConfigMap, Policy::Own, owner, object)
    }

    /// What is there already, of this kind and name.
    pub fn adopted<K: Serialize + Resource<DynamicType = ()> + Default>(kind: ChildKind, owner: &Owner, name: String) -> Self {
        let mut object = K::default();
        object.meta_mut().name = Some(name);
        Self::new(kind, Policy::Adopt, owner, object)
    }

    /// The hash that says whether an apply would change anything.
    pub fn applied_hash(&self) -> Option<&str> {
        self.object.pointer("/metadata/annotations")?.get(APPLIED_HASH)?.as_str()
    }
}

/// Whose children they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Namespace of owner and children.
    pub namespace: String,
    /// The controller reference.
    pub reference: OwnerReference,
}

impl Owner {
    /// The owner reference of an object that the API server has seen.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            namespace: object.meta().namespace.clone().unwrap_or_else(|| "default".to_owned()),
            reference: OwnerReference {
                api_version: K::api_version(&()).into_owned(),
                kind: K::kind(&()).into_owned(),
                name: object.meta().name.clone().unwrap_or_default(),
                uid: object.meta().uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            },
        }
    }
}
