//! How a cloud is told who a pod of ours is: an annotation of its service account, and where the cloud's webhook asks for it a label
//! of the pod. Pure; knows no pod and no service account.

use std::collections::BTreeMap;

use super::environment::Environment;

/// The annotation of a service account that names its identity in the cloud, where there is one.
pub fn annotation(environment: &Environment) -> Option<(String, String)> {
    let key = match environment.cloud.as_str() {
        "gcp" | "gke" => "iam.gke.io/gcp-service-account",
        // https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
        "aws" | "eks" => "eks.amazonaws.com/role-arn",
        // https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html
        "azure" | "aks" => "azure.workload.identity/client-id",
        _ => return None,
    };
    Some((key.to_owned(), environment.principal.clone()?))
}

/// Labels of the pods that are to have it: Azure's webhook gives a token to those that say so, and to no other.
pub fn pod_labels(environment: &Environment) -> BTreeMap<String, String> {
    let wanted = matches!(environment.cloud.as_str(), "azure" | "aks") && environment.principal.is_some();
    wanted.then(|| ("azure.workload.identity/use".to_owned(), "true".to_owned())).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::shared::environment;

    fn of(cloud: &str, principal: Option<&str>) -> Environment {
        Environment { principal: principal.map(str::to_owned), ..environment::of(cloud) }
    }

    #[test]
    fn every_cloud_is_told_in_its_own_words() {
        for (cloud, key) in [
            ("gcp", "iam.gke.io/gcp-service-account"),
            ("gke", "iam.gke.io/gcp-service-account"),
            ("aws", "eks.amazonaws.com/role-arn"),
            ("eks", "eks.amazonaws.com/role-arn"),
            ("azure", "azure.workload.identity/client-id"),
            ("aks", "azure.workload.identity/client-id"),
        ] {
            assert_eq!(annotation(&of(cloud, Some("who"))), Some((key.to_owned(), "who".to_owned())), "{cloud}");
            assert_eq!(annotation(&of(cloud, None)), None, "{cloud}");
        }
    }

    #[test]
    fn only_pods_on_azure_that_are_somebody_have_a_label() {
        for cloud in ["azure", "aks"] {
            let labels = pod_labels(&of(cloud, Some("who")));
            assert_eq!(labels, BTreeMap::from([("azure.workload.identity/use".to_owned(), "true".to_owned())]), "{cloud}");
        }
        for (cloud, principal) in [("azure", None), ("aws", Some("who")), ("gcp", Some("who")), ("local", Some("who"))] {
            assert!(pod_labels(&of(cloud, principal)).is_empty(), "{cloud}");
        }
    }
}
