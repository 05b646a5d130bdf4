//! The bucket of a demo: a folder of the node, which a pod removes because nobody else can. It must not know what lies in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::cluster::{Cluster, eventually};

const LIMIT: Duration = Duration::from_mins(2);
const NAME: &str = "empty-bucket";

/// Removes the folder with all that is in it; `image` has a shell.
pub(super) async fn remove(cluster: &Cluster, namespace: &str, image: &str, bucket: &Path) -> Result<()> {
    let (parent, name) = bucket.parent().zip(bucket.file_name()).context("a bucket is a folder in a folder")?;
    ensure!(parent.components().count() > 1, "the bucket {} lies at the root of the node", bucket.display());
    let pods = Api::<Pod>::namespaced(cluster.client(), namespace);
    // One of a run that was interrupted.
    if pods.get_opt(NAME).await?.is_some() {
        gone(&pods).await?;
    }
    let pod = json!({
        "metadata": {"name": NAME},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": image,
                "command": ["/bin/rm", "-rf", "--", format!("/parent/{}", name.to_string_lossy())],
                "volumeMounts": [{"name": "parent", "mountPath": "/parent"}],
            }],
            "volumes": [{"name": "parent", "hostPath": {"path": parent, "type": "DirectoryOrCreate"}}],
        },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await.context("making the pod that empties the bucket")?;
    eventually("bucket to be emptied", LIMIT, async || {
        let status = pods.get(NAME).await?.status.context("no status yet")?;
        ensure!(status.phase.as_deref() == Some("Succeeded"), "{status:?}");
        Ok(Some(()))
    })
    .await?;
    gone(&pods).await
}

async fn gone(pods: &Api<Pod>) -> Result<()> {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pods.delete(NAME, &now).await.context("deleting the pod that empties the bucket")?;
    eventually("pod to be gone", LIMIT, async || Ok(pods.get_opt(NAME).await?.is_none().then_some(()))).await
}
