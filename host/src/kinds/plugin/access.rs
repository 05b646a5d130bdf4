//! What a `PluginSource` names and does not hold itself: credentials and certificates, from the operator's own namespace. Decides
//! nothing.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::Api;

use super::failure::Failure;
use super::source::Trusted;
use crate::context::Context;
use crate::plugin::{Plugins, RegistryAuth, Roots};

/// The way to a registry.
pub struct Access {
    /// The plugin host, with the source's certificates.
    pub plugins: Plugins,
    /// The source's credentials.
    pub auth: RegistryAuth,
}

/// Fetches them anew, so that what was rotated counts with the next pull.
pub async fn access(trusted: &Trusted, context: &Context) -> Result<Access, Failure> {
    let spec = &trusted.source.spec;
    let roots = match &spec.ca_bundle {
        Some(bundle) => roots(&bundle.config_map, context).await?,
        None => Roots::default(),
    };
    let auth = match &spec.pull_secret {
        Some(name) => credentials(name, &trusted.pulled, context).await?,
        None => RegistryAuth::Anonymous,
    };
    Ok(Access { plugins: context.plugins.trusting(roots), auth })
}

async fn credentials(name: &str, image: &str, context: &Context) -> Result<RegistryAuth, Failure> {
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let failed = |error| format!("read the pull secret `{name}` in namespace `{}`: {error}", context.namespace);
    let secret = secrets.get(name).await.map_err(|error| Failure::access(failed(error)))?;
    let data = secret.data.unwrap_or_default();
    let config = data.get(".dockerconfigjson").ok_or_else(|| {
        Failure::access(format!(
            "secret `{name}` has no key `.dockerconfigjson`; make it with `kubectl create secret docker-registry`"
        ))
    })?;
    super::registry::credentials(&config.0, image).map_err(|why| Failure::access(format!("secret `{name}`: {why}")))
}

/// The key of a ConfigMap that holds certificates.
const CA: &str = "ca.crt";

async fn roots(name: &str, context: &Context) -> Result<Roots, Failure> {
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &context.namespace);
    let failed = |error| format!("read the CA bundle `{name}` in namespace `{}`: {error}", context.namespace);
    let map = maps.get(name).await.map_err(|error| Failure::access(failed(error)))?;
    let data = map.data.unwrap_or_default();
    let bundle = data.get(CA).ok_or_else(|| Failure::access(format!("ConfigMap `{name}` has no key `{CA}`")))?;
    Roots::from_pem(bundle.as_bytes()).map_err(|why| Failure::access(format!("ConfigMap `{name}`: `{CA}`: {why}")))
}
