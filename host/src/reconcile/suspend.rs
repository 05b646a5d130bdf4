//! Suspends a Notebook that nobody uses: the one place that writes a spec, which the user asked for with `idleTimeout`. Knows
//! nothing of how it was found out that nobody uses it.

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::core::{ObjectMeta, PartialObjectMeta};
use serde_json::json;
use substratus_crds::Notebook;

use crate::kinds::notebook::idle::mark;
use crate::kinds::shared::duration;
use crate::kinds::shared::names::{self, IDLE};
use crate::store::{Idle, NotSuspended, Notebooks};

/// Field manager of what it writes: not the one of the operator's own objects, for the field stays the user's.
const MANAGER: &str = "substratus-idle";
/// How often it looks again where somebody else wrote in between.
const TRIES: usize = 5;

/// Suspends through this client, which needs the right to patch Notebooks.
pub struct Suspender {
    client: Client,
    now: fn() -> Timestamp,
}

impl Suspender {
    /// Takes the time from `now`.
    pub fn new(client: Client, now: fn() -> Timestamp) -> Self {
        Self { client, now }
    }

    /// Says whether the Notebook is suspended; `false` where somebody else wrote in between.
    async fn attempt(&self, idle: &Idle) -> Result<bool, NotSuspended> {
        let notebooks = Api::<Notebook>::namespaced(self.client.clone(), &idle.namespace);
        let pods = Api::<Pod>::namespaced(self.client.clone(), &idle.namespace);
        let unavailable = |error: kube::Error| NotSuspended::Unavailable(Box::new(error));
        let Some(notebook) = notebooks.get_opt(&idle.notebook).await.map_err(unavailable)? else {
            return Err(NotSuspended::Refused("it is gone"));
        };
        if notebook.spec.suspend == Some(true) {
            return Ok(true);
        }
        let pod = pods.get_metadata_opt(&names::notebook(&idle.notebook)).await.map_err(unavailable)?;
        check(&notebook, pod.as_ref(), idle).map_err(NotSuspended::Refused)?;
        let now = (self.now)();
        let since = now.checked_sub(idle.idle).unwrap_or(now);
        // The version stands for all that was looked at: whoever resumed or edited it in between is not overruled.
        let generation = notebook.metadata.generation.unwrap_or_default().saturating_add(1);
        let patch = json!({
            "metadata": {
                "resourceVersion": notebook.metadata.resource_version,
                "annotations": {IDLE: mark(generation, since)},
            },
            "spec": {"suspend": true},
        });
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match notebooks.patch(&idle.notebook, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(unavailable(error)),
        }
    }
}

impl Notebooks for Suspender {
    fn suspend<'a>(&'a self, idle: &'a Idle) -> BoxFuture<'a, Result<(), NotSuspended>> {
        Box::pin(async move {
            for _ in 0..TRIES {
                if self.attempt(idle).await? {
                    tracing::info!(namespace = idle.namespace, notebook = idle.notebook, idle = ?idle.idle, "nobody uses it: suspended");
                    return Ok(());
                }
            }
            Err(NotSuspended::Unavailable("others write to the Notebook all the time".into()))
        })
    }
}

/// Whether that is what its user asked for, and the pod that says so is the Notebook's own of this moment.
fn check(notebook: &Notebook, pod: Option<&PartialObjectMeta<Pod>>, idle: &Idle) -> Result<(), &'static str> {
    let timeout = notebook.spec.idle_timeout.as_deref().and_then(duration::read).ok_or("it has no idleTimeout")?;
    if idle.idle < timeout {
        return Err("it was used less than idleTimeout ago");
    }
    let pod = &pod.ok_or("its pod is gone")?.metadata;
    let owned = |pod: &ObjectMeta| {
        let mut owners = pod.owner_references.iter().flatten().filter(|owner| owner.controller == Some(true));
        notebook.metadata.uid.is_some() && owners.any(|owner| Some(&owner.uid) == notebook.metadata.uid.as_ref())
    };
    if pod.uid.as_ref() != Some(&idle.uid) || pod.deletion_timestamp.is_some() || !owned(pod) {
        return Err("another pod runs for it by now");
    }
    Ok(())
}
