//! One operator for the whole file, a namespace for every test, and a test's hands on the API server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::operator::Operator;
use substratus_tests::{install, platform};
use tokio::sync::{Mutex, OnceCell, RwLock};

use super::LIMIT;
use crate::badinput::registry::HOST;

/// Plugins of these tests come from a registry beside the operator; built images would go where nobody is.
const ARGUMENTS: &[&str] = &["--insecure-registry", HOST, "--registry-url", BUILT, "--upload-url", UPLOADS];

/// Where clients send what is built: the operator's own port.
pub(super) const UPLOADS: &str = "http://127.0.0.1:8090";

/// Where built images go.
pub(super) const BUILT: &str = "registry.example.test/built";

/// A namespace on the shared cluster, beside the shared operator.
pub(super) struct Fixture {
    cluster: &'static Cluster,
    namespace: String,
    shared: Arc<Shared>,
}

struct Shared {
    operator: Mutex<Option<Operator>>,
    /// Held for writing by whoever restarts the operator.
    calm: RwLock<()>,
}

/// Runs a test in a namespace of its own.
pub(super) fn on_cluster(test: impl AsyncFnOnce(&Fixture) -> Result<()>) -> Result<()> {
    let cluster = Cluster::control()?;
    cluster.block_on(async {
        let shared = shared(cluster).await?;
        let namespace = cluster.namespace("operator").await?;
        let fixture = Fixture { cluster, namespace, shared };
        let result = test(&fixture).await;
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                let operator = fixture.shared.operator.lock().await;
                let tail = operator.as_ref().map(Operator::tail).unwrap_or_default();
                Err(error.context(tail))
            }
        }
    })
}

async fn shared(cluster: &Cluster) -> Result<Arc<Shared>> {
    // Every test has a runtime of its own: the first one starts the operator while the others wait.
    static SHARED: OnceCell<Arc<Shared>> = OnceCell::const_new();
    let start = async || {
        let definitions: Vec<DynamicObject> = substratus_crds::crds()
            .iter()
            .map(|definition| Ok(serde_json::from_value(serde_json::to_value(definition)?)?))
            .collect::<Result<_>>()?;
        install::apply(&cluster.client(), &definitions).await?;
        let operator = Operator::start(cluster, ARGUMENTS).await?;
        anyhow::Ok(Arc::new(Shared { operator: Mutex::new(Some(operator)), calm: RwLock::default() }))
    };
    SHARED.get_or_try_init(start).await.cloned()
}

/// A condition of an object, or null.
pub(super) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or(Value::Null)
}

/// Waits until the status speaks of the newest spec, and `good` is content with it.
pub(super) async fn spoken(fixture: &Fixture, kind: &str, name: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    fixture
        .wait(kind, name, LIMIT, async |object| {
            let newest = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            Ok((newest && good(object)).then_some(()))
        })
        .await
}

/// What a worker says of a whole load.
pub(super) fn loaded(model: &Value, bytes: i64) -> Value {
    json!({"outcome": "complete", "inputs": model["status"]["plan"]["inputs"], "source": {
        "revision": "abc", "format": "gguf", "architecture": "llama", "entrypoint": "tiny.gguf", "bytes": bytes, "files": 1}})
}

fn resource(kind: &str) -> Result<ApiResource> {
    let (group, version) = match kind {
        "Dataset" | "Model" | "Notebook" | "Server" => ("substratus.ai", "v1"),
        "Plugin" | "PluginSource" => ("substratus.ai", "v1alpha1"),
        "Job" => ("batch", "v1"),
        "Deployment" => ("apps", "v1"),
        "NetworkPolicy" => ("networking.k8s.io", "v1"),
        "ConfigMap" | "Service" | "ServiceAccount" | "Pod" | "Secret" | "Event" => ("", "v1"),
        other => bail!("no such kind here: {other}"),
    };
    Ok(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)))
}

impl Fixture {
    fn api(&self, kind: &str) -> Result<Api<DynamicObject>> {
        let resource = resource(kind)?;
        Ok(match kind {
            "Plugin" | "PluginSource" => Api::all_with(self.cluster.client(), &resource),
            _ => Api::namespaced_with(self.cluster.client(), &self.namespace, &resource),
        })
    }

    pub(super) async fn create(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        let resource = resource(kind)?;
        let object = json!({"apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        self.api(kind)?
            .create(&PostParams::default(), &serde_json::from_value(object)?)
            .await
            .with_context(|| format!("create {name}"))?;
        Ok(())
    }

    pub(super) async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::to_value(self.api(kind)?.get(name).await?)?)
    }

    pub(super) async fn merge(&self, kind: &str, name: &str, patch: Value) -> Result<()> {
        self.api(kind)?.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub(super) async fn annotate(&self, kind: &str, name: &str, annotation: &str, value: &str) -> Result<()> {
        self.merge(kind, name, json!({"metadata": {"annotations": {annotation: value}}})).await
    }

    pub(super) async fn set_status(&self, kind: &str, name: &str, status: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        self.api(kind)?.patch_status(name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.api(kind)?.delete(name, &now).await?;
        Ok(())
    }

    /// Waits until none of these objects exists.
    pub(super) async fn gone(&self, objects: &[(&str, &str)]) -> Result<()> {
        for (kind, name) in objects {
            let api = self.api(kind)?;
            eventually(&format!("end of {kind} {name}"), LIMIT, async || Ok(api.get_opt(name).await?.is_none().then_some(())))
                .await?;
        }
        Ok(())
    }

    /// Lines of the operator's log in which something goes wrong with an object.
    pub(super) async fn complaints(&self, name: &str) -> Result<Vec<String>> {
        let operator = self.shared.operator.lock().await;
        let log = std::fs::read_to_string(&operator.as_ref().context("no operator runs")?.log)?;
        let wrong = |line: &&str| line.contains(name) && (line.contains("WARN") || line.contains("ERROR"));
        Ok(log.lines().filter(wrong).map(str::to_owned).collect())
    }

    /// Waits until the object exists and `probe` is content with it.
    pub(super) async fn wait(
        &self,
        kind: &str,
        name: &str,
        limit: Duration,
        probe: impl AsyncFn(&Value) -> Result<Option<()>>,
    ) -> Result<Value> {
        let api = self.api(kind)?;
        eventually(&format!("{kind} {name}"), limit, async || {
            let Some(object) = api.get_opt(name).await? else { return Ok(None) };
            let object = serde_json::to_value(object)?;
            match probe(&object).await? {
                Some(()) => Ok(Some(object)),
                None => bail!("now: {}", object["status"]),
            }
        })
        .await
    }

    /// Waits until the condition has this reason.
    pub(super) async fn reason(&self, kind: &str, name: &str, kind_of_condition: &str, reason: &str) -> Result<Value> {
        self.wait(kind, name, LIMIT, async |object| Ok((condition(object, kind_of_condition)["reason"] == reason).then_some(())))
            .await
    }

    /// Waits for a pod with this label that has not started yet.
    async fn pending_pod(&self, label: &str) -> Result<String> {
        let pods = self.api("Pod")?;
        let labelled = ListParams::default().labels(label);
        eventually(&format!("a pod with {label}"), LIMIT, async || {
            let pods = pods.list(&labelled).await?;
            let fresh = pods.items.into_iter().find(|pod| {
                let phase = pod.data.pointer("/status/phase").and_then(Value::as_str);
                pod.metadata.deletion_timestamp.is_none() && phase == Some("Pending")
            });
            Ok(fresh.and_then(|pod| pod.metadata.name))
        })
        .await
    }

    /// Plays the kubelet: the Job's pod ends with this exit code and termination message. Returns the pod's name.
    pub(super) async fn pod_ends(&self, job: &str, exit_code: i32, message: &Value) -> Result<String> {
        let name = self.pending_pod(&format!("batch.kubernetes.io/job-name={job}")).await?;
        let phase = if exit_code == 0 { "Succeeded" } else { "Failed" };
        let terminated = json!({"exitCode": exit_code, "reason": if exit_code == 0 { "Completed" } else { "Error" },
            "message": message.to_string(), "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"});
        let pod = self.get("Pod", &name).await?;
        let container = json!({"name": pod["spec"]["containers"][0]["name"], "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": terminated}});
        self.set_status("Pod", &name, json!({"phase": phase, "containerStatuses": [container]})).await?;
        Ok(name)
    }

    /// Plays the kubelet: the pod with this label runs and is ready. Its controllers count it, so their status stays.
    pub(super) async fn pod_is_ready(&self, label: &str) -> Result<()> {
        let name = self.pending_pod(label).await?;
        let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        self.set_status("Pod", &name, json!({"phase": "Running", "conditions": [ready]})).await
    }

    /// Ends the Model's load well and waits until it is ready.
    pub(super) async fn load(&self, name: &str, bytes: i64) -> Result<Value> {
        let model = self.wait("Model", name, LIMIT, async |model| Ok(model["status"]["plan"].is_object().then_some(()))).await?;
        self.pod_ends(&format!("{name}-modeller"), 0, &loaded(&model, bytes)).await?;
        self.wait("Model", name, LIMIT, async |model| Ok((model["status"]["ready"] == true).then_some(()))).await
    }

    /// Nobody runs a kubelet here, so finished pods of a deleted Job are removed by hand.
    pub(super) async fn drop_finished_pods(&self, job: &str) -> Result<()> {
        let pods = self.api("Pod")?;
        for pod in pods.list(&ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"))).await? {
            let phase = pod.data.pointer("/status/phase").and_then(Value::as_str);
            if let (Some(name), Some("Succeeded" | "Failed")) = (&pod.metadata.name, phase) {
                // The Job's own clean-up may have been faster.
                drop(self.delete("Pod", name).await);
            }
        }
        Ok(())
    }

    /// The Event of this reason about the object.
    pub(super) async fn event(&self, name: &str, reason: &str) -> Result<Value> {
        let events = self.api("Event")?;
        eventually(&format!("an Event {reason} of {name}"), LIMIT, async || {
            let all = events.list(&ListParams::default()).await?;
            let found = all.items.into_iter().find(|event| {
                event.data.pointer("/involvedObject/name").and_then(Value::as_str) == Some(name)
                    && event.data.get("reason").and_then(Value::as_str) == Some(reason)
            });
            Ok(found.map(serde_json::to_value).transpose()?)
        })
        .await
    }

    /// All Events about the object.
    pub(super) async fn events(&self, name: &str) -> Result<Vec<Value>> {
        let all = self.api("Event")?.list(&ListParams::default()).await?.items;
        let about = |event: &DynamicObject| event.data.pointer("/involvedObject/name").and_then(Value::as_str) == Some(name);
        all.into_iter().filter(about).map(|event| Ok(serde_json::to_value(event)?)).collect()
    }

    /// Another namespace that the same operator looks after.
    pub(super) async fn beside(&self) -> Result<Self> {
        let namespace = self.cluster.namespace("beside").await?;
        Ok(Self { cluster: self.cluster, namespace, shared: Arc::clone(&self.shared) })
    }

    /// Resource versions of everything that the operator writes in this namespace.
    pub(super) async fn versions(&self) -> Result<BTreeMap<String, String>> {
        let mut versions = BTreeMap::new();
        let ours = ["Dataset", "Model", "Notebook", "Server", "Job", "Deployment", "Service"];
        for kind in ours.into_iter().chain(["NetworkPolicy", "ConfigMap", "Secret", "ServiceAccount"]) {
            for object in self.api(kind)?.list(&ListParams::default()).await? {
                let name = object.metadata.name.clone().unwrap_or_default();
                versions.insert(format!("{kind}/{name}"), object.metadata.resource_version.unwrap_or_default());
            }
        }
        Ok(versions)
    }

    /// Resource versions of the Events about our objects.
    pub(super) async fn told(&self) -> Result<BTreeMap<String, String>> {
        let about_ours = |event: &DynamicObject| {
            let api = event.data.pointer("/involvedObject/apiVersion").and_then(Value::as_str);
            api.is_some_and(|api| api.starts_with("substratus.ai/"))
        };
        let all = self.api("Event")?.list(&ListParams::default()).await?;
        let named = |event: DynamicObject| event.metadata.name.zip(event.metadata.resource_version);
        Ok(all.items.into_iter().filter(about_ours).filter_map(named).collect())
    }

    /// Waits until nothing is written for three seconds.
    pub(super) async fn settled(&self) -> Result<BTreeMap<String, String>> {
        let mut before = self.versions().await?;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let now = self.versions().await?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
        bail!("the operator does not come to rest: {before:?}")
    }

    pub(super) async fn restart_operator(&self) -> Result<()> {
        let _calm = self.shared.calm.write().await;
        let mut operator = self.shared.operator.lock().await;
        let running = operator.take().context("no operator runs")?;
        *operator = Some(running.restart(self.cluster, ARGUMENTS).await?);
        Ok(())
    }

    /// Stops the operator, does something that it shall not see, and starts it again.
    pub(super) async fn behind_its_back(&self, work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let _calm = self.shared.calm.write().await;
        let mut operator = self.shared.operator.lock().await;
        let running = operator.take().context("no operator runs")?;
        let stopped = running.pause().await?;
        let worked = work().await;
        *operator = Some(stopped.resume(self.cluster, ARGUMENTS).await?);
        worked
    }

    /// The pod with this label that is not on its way out.
    pub(super) async fn pod(&self, label: &str) -> Result<Value> {
        let name = self.pending_pod(label).await?;
        self.get("Pod", &name).await
    }

    pub(super) async fn exists(&self, kind: &str, name: &str) -> Result<bool> {
        Ok(self.api(kind)?.get_opt(name).await?.is_some())
    }

    /// Children of an object, by kind and name. Without its pods, but for a Notebook's own.
    pub(super) async fn children(&self, kind: &str, name: &str) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for child in ["ConfigMap", "Secret", "NetworkPolicy", "Service", "Deployment", "Job", "Pod"] {
            for object in self.api(child)?.list(&ListParams::default()).await? {
                let owners = object.metadata.owner_references.iter().flatten();
                if owners.into_iter().any(|owner| owner.kind == kind && owner.name == name) {
                    let mut object = serde_json::to_value(object)?;
                    object["kind"] = child.into();
                    found.push(object);
                }
            }
        }
        Ok(found)
    }

    /// Creates an object as it is given.
    pub(super) async fn post(&self, object: &Value) -> Result<()> {
        let kind = object["kind"].as_str().context("an object has a kind")?;
        self.api(kind)?.create(&PostParams::default(), &serde_json::from_value(object.clone())?).await?;
        Ok(())
    }

    /// What `kubectl` prints, where it succeeds.
    pub(super) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.cluster.command("kubectl");
        command.args(["--namespace", &self.namespace]).args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "kubectl {arguments:?}: {out}{err}");
        Ok(out.into_owned())
    }

    /// Would this pod be let in?
    pub(super) async fn try_pod(&self, pod: &Value) -> Result<()> {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        self.api("Pod")?.create(&dry, &serde_json::from_value(pod.clone())?).await?;
        Ok(())
    }

    /// Applies an object as users do.
    pub(super) fn apply(&self, object: &Value) -> Result<()> {
        self.apply_text(&object.to_string())
    }

    /// The same as a manifest's text.
    pub(super) fn apply_text(&self, manifest: &str) -> Result<()> {
        platform::apply_text(self.cluster, &self.namespace, manifest).map(drop)
    }

    /// Kills it as the kernel would, and starts it again.
    pub(super) async fn crash_operator(&self) -> Result<()> {
        let _calm = self.shared.calm.write().await;
        let mut operator = self.shared.operator.lock().await;
        let running = operator.take().context("no operator runs")?;
        *operator = Some(running.crash(self.cluster, ARGUMENTS).await?);
        Ok(())
    }

    /// The token for the operator's store that a pod of this service account mounts, or one for somebody else.
    pub(super) async fn token(&self, account: &str, audience: &str, pod: &Value) -> Result<String> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: text("/metadata/name"),
            uid: text("/metadata/uid"),
        };
        let spec = TokenRequestSpec {
            audiences: vec![audience.to_owned()],
            bound_object_ref: Some(bound),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let accounts = Api::<ServiceAccount>::namespaced(self.cluster.client(), &self.namespace);
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(answer.status.context("a token request without token")?.token)
    }

    pub(super) const fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) async fn metrics(&self) -> Result<String> {
        let _calm = self.shared.calm.read().await;
        let operator = self.shared.operator.lock().await;
        operator.as_ref().context("no operator runs")?.metrics().await
    }

    pub(super) async fn create_plugin(&self, name: &str, spec: Value) -> Result<()> {
        self.create("Plugin", name, spec).await
    }

    pub(super) async fn delete_plugin(&self, name: &str) -> Result<()> {
        self.delete("Plugin", name).await
    }

    pub(super) async fn plugin(&self, name: &str, kind_of_condition: &str, reason: &str) -> Result<Value> {
        self.reason("Plugin", name, kind_of_condition, reason).await
    }
}
