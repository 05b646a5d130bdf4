//! Applies the install manifests as the local overlay would, and waits for what they start. It must not know images.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, LogParams};
use serde_json::{Value, json};
use substratus_crds::Plugin;

use super::NAMESPACE;
use crate::cluster::{Cluster, eventually};
use crate::install;

const LIMIT: Duration = Duration::from_mins(3);

/// Everything of `examples/deploy/base`, with the changes of `overlays/local`.
pub(super) async fn apply(cluster: &Cluster, image: &str, bucket: &Path) -> Result<()> {
    let mut objects = install::objects(&install::deploy("base"))?;
    for object in &mut objects {
        if object.types.as_ref().is_some_and(|types| types.kind == "Deployment") {
            deployment(object, image)?;
        }
    }
    let settings = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "system", "namespace": NAMESPACE},
        "data": {
            "CLOUD": "local",
            "CLUSTER_NAME": "substratus",
            "LOG_FORMAT": "human",
            // Where plugins are pulled from, too.
            "INSECURE_REGISTRIES": cluster.registry()?,
            // Below the cluster's folder, so that it goes with it.
            "ARTIFACT_BUCKET_URL": format!("tar://{}", bucket.display()),
        },
    });
    let last = objects.len().saturating_sub(1);
    let place = objects.iter().position(|object| object.types.as_ref().is_some_and(|types| types.kind == "Deployment"));
    objects.insert(place.unwrap_or(last), serde_json::from_value(settings)?);
    install::apply(&cluster.client(), &objects).await
}

fn deployment(object: &mut DynamicObject, image: &str) -> Result<()> {
    let container = object.data.pointer_mut("/spec/template/spec/containers/0").context("no container to patch")?;
    container["image"] = json!(image);
    let env = container["env"].as_array_mut().context("no environment to patch")?;
    let entry = env.iter_mut().find(|entry| entry["name"] == "OPERATOR_IMAGE").context("no OPERATOR_IMAGE to patch")?;
    entry["value"] = json!(image);
    // A small machine has no core to set aside.
    let requests = container.pointer_mut("/resources/requests").and_then(Value::as_object_mut).context("no requests")?;
    requests.remove("cpu");
    Ok(())
}

/// Waits until the Deployment is available, and tells the operator's last words otherwise.
pub(super) async fn operator_ready(cluster: &Cluster) -> Result<()> {
    let deployments = Api::<Deployment>::namespaced(cluster.client(), NAMESPACE);
    let waited = eventually("operator", LIMIT, async || {
        let deployment = deployments.get("substratus").await?;
        let status = deployment.status.context("no status yet")?;
        // Of this very image: on a cluster that is used again an older one may still answer.
        let current = status.observed_generation == deployment.metadata.generation && status.updated_replicas == Some(1);
        ensure!(current && status.available_replicas == Some(1), "{:?}", status.conditions);
        Ok(Some(()))
    })
    .await;
    match waited {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(log(cluster).await)),
    }
}

/// The last lines that the operator's pods wrote.
async fn log(cluster: &Cluster) -> String {
    let pods = Api::<Pod>::namespaced(cluster.client(), NAMESPACE);
    let mut text = String::from("the operator's log:");
    for pod in pods.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default() {
        let name = pod.metadata.name.unwrap_or_default();
        let parameters = LogParams { tail_lines: Some(20), ..LogParams::default() };
        let lines = pods.logs(&name, &parameters).await.unwrap_or_else(|error| error.to_string());
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{name}: {:?}\n{lines}", pod.status.and_then(|status| status.container_statuses));
    }
    text
}

/// Deletes the operator's pod and waits for another one that is ready.
pub(super) async fn restart(cluster: &Cluster) -> Result<()> {
    let pods = Api::<Pod>::namespaced(cluster.client(), NAMESPACE);
    let selected = ListParams::default().labels("app.kubernetes.io/name=substratus");
    let before: Vec<_> = pods.list(&selected).await?.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for name in &before {
        pods.delete(name, &DeleteParams::default()).await.with_context(|| format!("deleting {name}"))?;
    }
    eventually("next operator", LIMIT, async || {
        let now = pods.list(&selected).await?.items;
        let gone = now.iter().all(|pod| pod.metadata.name.as_ref().is_some_and(|name| !before.contains(name)));
        let ready = now.iter().flat_map(|pod| pod.status.iter().flat_map(|status| status.conditions.iter().flatten()));
        Ok((gone && ready.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")).then_some(()))
    })
    .await
}

/// Applies a Plugin and waits until it answers as its newest spec says.
pub(super) async fn loader(cluster: &Cluster, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let name = object.metadata.name.clone().context("a Plugin has a name")?;
    install::apply(&cluster.client(), &[object]).await?;
    let plugins = Api::<Plugin>::all(cluster.client());
    eventually("loader's Plugin", LIMIT, async || {
        let plugin = plugins.get(&name).await?;
        let conditions = plugin.status.map(|status| status.conditions).unwrap_or_default();
        let active = conditions.iter().any(|condition| {
            condition.type_ == "Active"
                && condition.status == "True"
                && condition.observed_generation == plugin.metadata.generation
        });
        ensure!(active, "its conditions are {conditions:?}");
        Ok(Some(()))
    })
    .await
}
