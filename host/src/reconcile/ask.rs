//! Questions to a GPU policy that several kinds ask. No Kubernetes here: values in, values out.

use substratus_crds::Resources;
use substratus_crds::conditions::reason;

use super::guard;
use crate::catalog::Catalog;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::resources;
use crate::kinds::shared::verdict::Verdict;
use crate::plugin::Plugins;
use crate::plugin::types::{Node, PlaceRequest, Placement, Subject};

/// Where a pod with these resources goes; nothing where no GPU is asked for.
pub async fn place(
    plugins: &Plugins,
    catalog: &Catalog,
    environment: &Environment,
    subject: Subject,
    resources: Option<&Resources>,
    nodes: &[Node],
) -> Result<Option<Placement>, Verdict> {
    let Some(gpu) = resources.and_then(|resources| resources.gpu.as_ref()) else { return Ok(None) };
    let Some(policy) = catalog.by_cloud(&environment.cloud, &subject.namespace) else {
        let message = format!("no active GPU policy claims the cloud `{}`; install one, or set CLOUD", environment.cloud);
        return Err(Verdict::new(reason::PLUGIN_NOT_FOUND, message));
    };
    let request = PlaceRequest {
        subject,
        gpu_type: gpu.gpu_type.clone().filter(|name| !name.is_empty()),
        count: resources::gpu_count(resources),
        memory: None,
        cloud: environment.cloud.clone(),
        nodes: nodes.to_vec(),
        config: policy.config_json(),
        extensions: Vec::new(),
    };
    let placement =
        plugins.place(&policy.digest, &request, None).await.map_err(|error| Verdict::from_plugin(&policy.name, &error))?;
    guard::placement(&placement, &policy.grant)
        .map_err(|why| Verdict::new(reason::PLUGIN_DENIED, format!("plugin `{}`: {why}", policy.name)))?;
    Ok(Some(placement))
}
