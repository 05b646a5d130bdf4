//! The service accounts of the roles: one per namespace, shared by its objects, never deleted. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kinds::shared::child::{Child, ChildKind, Owner, Policy};
use crate::kinds::shared::environment::Environment;

/// The service account `name` in the owner's namespace, with the cloud's identity annotation.
pub fn child(owner: &Owner, name: &str, environment: &Environment) -> Child {
    let annotations = match (environment.cloud.as_str(), &environment.principal) {
        ("gcp" | "gke", Some(principal)) => {
            Some(BTreeMap::from([("iam.gke.io/gcp-service-account".to_owned(), principal.clone())]))
        }
        _ => None,
    };
    let object = ServiceAccount {
        metadata: ObjectMeta { name: Some(name.to_owned()), annotations, ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    Child::new(ChildKind::ServiceAccount, Policy::Share, owner, object)
}
