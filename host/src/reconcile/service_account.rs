//! The service accounts of the roles: one per namespace, shared by its objects, never deleted. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kinds::shared::child::{Child, ChildKind, Owner, Policy};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::workload_identity;

/// The service account `name` in the owner's namespace, with the cloud's identity annotation.
pub fn child(owner: &Owner, name: &str, environment: &Environment) -> Child {
    let annotations = workload_identity::annotation(environment).map(|annotation| BTreeMap::from([annotation]));
    let object = ServiceAccount {
        metadata: ObjectMeta { name: Some(name.to_owned()), annotations, ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    Child::new(ChildKind::ServiceAccount, Policy::Share, owner, object)
}

#[cfg(test)]
mod tests {
    use substratus_crds::{Model, ModelSpec};

    use super::*;
    use crate::kinds::shared::{environment, names};

    const PRINCIPAL: &str = "substratus@project.iam.gserviceaccount.com";

    fn annotations(cloud: &str, principal: Option<&str>) -> Vec<serde_json::Value> {
        let place = Environment { principal: principal.map(str::to_owned), ..environment::of(cloud) };
        let owner = Owner::of(&Model::new("m", ModelSpec::default()));
        let accounts = [names::MODELLER, names::MODEL_SERVER, names::NOTEBOOK, names::DATA_LOADER, names::CONTAINER_BUILDER];
        let made = accounts.map(|name| child(&owner, name, &place).object);
        made.into_iter().map(|object| object["metadata"]["annotations"].clone()).collect()
    }

    #[test]
    fn every_role_has_the_identity_of_its_cloud() {
        for (cloud, key) in [
            ("gcp", "iam.gke.io/gcp-service-account"),
            ("gke", "iam.gke.io/gcp-service-account"),
            ("eks", "eks.amazonaws.com/role-arn"),
            ("aks", "azure.workload.identity/client-id"),
        ] {
            for annotations in annotations(cloud, Some(PRINCIPAL)) {
                assert_eq!(annotations[key], PRINCIPAL, "{cloud}");
            }
        }
    }

    #[test]
    fn elsewhere_and_without_a_principal_there_is_no_annotation() {
        for (cloud, principal) in
            [("gcp", None), ("kind", Some(PRINCIPAL)), ("local", Some(PRINCIPAL)), ("aws", None), ("azure", None)]
        {
            let keys = ["iam.gke.io/gcp-service-account", "eks.amazonaws.com/role-arn", "azure.workload.identity/client-id"];
            let found = annotations(cloud, principal);
            assert!(found.iter().all(|found| keys.iter().all(|key| found[key].is_null())), "{cloud}: {found:?}");
        }
    }
}
