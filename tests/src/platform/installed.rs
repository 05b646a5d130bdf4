//! Applies the install manifests as the local overlay would, and waits for what they start. It must not know images.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, LogParams};
use serde_json::{Value, json};
use substratus_crds::Plugin;

use super::NAMESPACE;
use crate::cluster::{Cluster, eventually};
use crate::install;

const LIMIT: Duration = Duration::from_mins(3);

/// On all that we install: nothing without it is ever changed or removed on a cluster that is not ours.
const MARK: (&str, &str) = ("substratus.ai/installed-by", "demo");

/// Everything of `examples/deploy/base`, with the changes of `overlays/local`. The operator looks after the namespaces of
/// `watch`, or after all where there is none; `registry` speaks plain HTTP.
pub(super) fn objects(image: &str, bucket: &Path, watch: &[&str], registry: Option<&str>) -> Result<Vec<DynamicObject>> {
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
            // Where plugins are pulled from, too, and where built images go.
            "INSECURE_REGISTRIES": registry.unwrap_or_default(),
            "REGISTRY_URL": registry.map(|registry| format!("{registry}/built")).unwrap_or_default(),
            "WATCH_NAMESPACES": watch.join(","),
            // Below the cluster's folder, so that it goes with it.
            "ARTIFACT_BUCKET_URL": format!("tar://{}", bucket.display()),
        },
    });
    let last = objects.len().saturating_sub(1);
    let place = objects.iter().position(|object| object.types.as_ref().is_some_and(|types| types.kind == "Deployment"));
    objects.insert(place.unwrap_or(last), serde_json::from_value(settings)?);
    for object in &mut objects {
        object.labels_mut().insert(MARK.0.to_owned(), MARK.1.to_owned());
    }
    Ok(objects)
}

/// Applies them.
pub(super) async fn apply(cluster: &Cluster, objects: &[DynamicObject]) -> Result<()> {
    install::apply(&cluster.client(), objects).await
}

/// Fails if any of these, or the namespace, exists and is not marked as ours.
pub(super) async fn refuse_strangers(cluster: &Cluster, objects: &[DynamicObject], namespace: &str) -> Result<()> {
    let mut strangers = Vec::new();
    for object in objects.iter().chain([&namespace_object(namespace)?]) {
        if let Some(found) = install::find(&cluster.client(), object).await?
            && !is_ours(&found)
        {
            let kind = object.types.as_ref().map(|types| types.kind.as_str()).unwrap_or_default();
            strangers.push(format!("{kind} {}", object.name_any()));
        }
    }
    ensure!(
        strangers.is_empty(),
        "this cluster has Substratus already, or something of the same name, and it is not the demo's; nothing was changed. \
         Use another cluster, or remove these yourself:\n  {}",
        strangers.join("\n  ")
    );
    Ok(())
}

/// Makes the namespace in which everything but the operator lives. Loads write into a folder of the node, which no stricter
/// level of pod security allows.
pub(super) async fn namespace(cluster: &Cluster, name: &str) -> Result<()> {
    install::apply(&cluster.client(), &[namespace_object(name)?]).await
}

fn namespace_object(name: &str) -> Result<DynamicObject> {
    let labels = json!({MARK.0: MARK.1, "pod-security.kubernetes.io/enforce": "privileged"});
    Ok(serde_json::from_value(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))?)
}

fn is_ours(object: &DynamicObject) -> bool {
    object.labels().get(MARK.0).is_some_and(|value| value == MARK.1)
}

/// The image of the hub that runs there, if this is our namespace.
pub(super) async fn helper_image(cluster: &Cluster, namespace: &str) -> Result<Option<String>> {
    let wanted = namespace_object(namespace)?;
    if !install::find(&cluster.client(), &wanted).await?.is_some_and(|found| is_ours(&found)) {
        return Ok(None);
    }
    let hub = Api::<Deployment>::namespaced(cluster.client(), namespace).get_opt("hub").await?;
    Ok(hub.and_then(|hub| hub.spec?.template.spec?.containers.into_iter().next()?.image))
}

/// Deletes those that are marked as ours, the last applied first, and waits until they are gone. Returns their number.
pub(super) async fn delete(cluster: &Cluster, objects: &[DynamicObject], namespace: &str) -> Result<usize> {
    let mut deleted = 0;
    let own = namespace_object(namespace)?;
    for object in std::iter::once(&own).chain(objects.iter().rev()) {
        let client = cluster.client();
        let Some(found) = install::find(&client, object).await? else { continue };
        if !is_ours(&found) {
            continue;
        }
        install::delete(&client, object).await?;
        eventually(&format!("end of {}", object.name_any()), LIMIT, async || {
            Ok(install::find(&client, object).await?.is_none().then_some(()))
        })
        .await?;
        deleted += 1;
    }
    Ok(deleted)
}

fn deployment(object: &mut DynamicObject, image: &str) -> Result<()> {
    let containers = object.data.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.context("no containers to patch")? {
        container["image"] = json!(image);
        if let Some(env) = container["env"].as_array_mut() {
            let entry = env.iter_mut().find(|entry| entry["name"] == "OPERATOR_IMAGE").context("no OPERATOR_IMAGE to patch")?;
            entry["value"] = json!(image);
        }
        // A small machine has no core to set aside.
        let requests = container.pointer_mut("/resources/requests").and_then(Value::as_object_mut).context("no requests")?;
        requests.remove("cpu");
    }
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
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{name}: {:?}", pod.status.and_then(|status| status.container_statuses));
        for container in ["operator", "sandbox"] {
            let container = Some(container.to_owned());
            let parameters = LogParams { tail_lines: Some(20), container, ..LogParams::default() };
            let lines = pods.logs(&name, &parameters).await.unwrap_or_else(|error| error.to_string());
            let _ = write!(text, "\n{lines}");
        }
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
pub(super) async fn plugin(cluster: &Cluster, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let name = object.metadata.name.clone().context("a Plugin has a name")?;
    install::apply(&cluster.client(), &[object]).await?;
    let plugins = Api::<Plugin>::all(cluster.client());
    eventually(&format!("Plugin {name}"), LIMIT, async || {
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
