//! How containers of ours reach what lies outside the cluster: the administrator's proxies and certificates. Pure; containers of
//! users get neither.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Container;

use super::env;
use super::environment::Environment;
use super::mounts::{self, Mount};
use crate::worker::network::CA_BUNDLE;

/// Volume and folder of the certificates.
const VOLUME: &str = "ca";
const FOLDER: &str = "/etc/substratus/ca";
/// Key of the ConfigMap that holds them, as trust-manager writes it.
const KEY: &str = "ca.crt";

/// Variables of a container of ours.
pub fn variables(environment: &Environment) -> Vec<(String, String)> {
    let certificates = environment.certificates.iter().map(|_| (CA_BUNDLE.to_owned(), format!("{FOLDER}/{KEY}")));
    environment.proxies.iter().cloned().chain(certificates).collect()
}

/// The certificates, where there are some. A namespace without the ConfigMap has a worker that says so, not a pod that never
/// starts.
pub fn certificates(environment: &Environment) -> Option<Mount> {
    let mut mount = mounts::config_map(VOLUME, environment.certificates.clone()?, FOLDER);
    if let Some(source) = mount.volume.config_map.as_mut() {
        source.optional = Some(true);
    }
    Some(mount)
}

/// Gives a container both. Its pod has to have the volume of [`certificates`].
pub fn add(container: &mut Container, environment: &Environment) {
    let variables = env::to_container(&variables(environment), &BTreeMap::new());
    if !variables.is_empty() {
        container.env.get_or_insert_default().extend(variables);
    }
    if let Some(certificates) = certificates(environment) {
        container.volume_mounts.get_or_insert_default().push(certificates.mount);
    }
}
