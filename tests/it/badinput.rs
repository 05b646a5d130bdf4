//! Bad input, before a real API server and a real registry: each ends in a condition that says what to do, nothing is lost, and
//! nobody spins. The cluster is this module's own and its tests take turns, so that every count is one operator's.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

mod gpus;
mod guests;
mod killed;
mod plugins;
pub(super) mod registry;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use substratus_tests::cluster::{Cluster, Mode, eventually};
use substratus_tests::install;
use substratus_tests::operator::Operator;

pub(super) const LIMIT: Duration = Duration::from_mins(1);
/// How long a hot loop is looked for.
const WATCHED: Duration = Duration::from_secs(5);

/// One test's turn on the cluster, with a namespace of its own.
pub(super) struct Turn {
    pub(super) cluster: &'static Cluster,
    pub(super) namespace: String,
    _alone: Option<MutexGuard<'static, ()>>,
}

fn cluster() -> Result<&'static Cluster> {
    static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let start = || {
        let cluster = Cluster::start(Mode::Api)?;
        cluster.block_on(async {
            let definitions: Vec<DynamicObject> = substratus_crds::crds()
                .iter()
                .map(|definition| Ok(serde_json::from_value(serde_json::to_value(definition)?)?))
                .collect::<Result<_>>()?;
            install::apply(&cluster.client(), &definitions).await
        })?;
        Ok::<_, anyhow::Error>(cluster)
    };
    SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}

/// Runs a test when it is its turn.
pub(super) fn alone(test: impl AsyncFnOnce(&Turn) -> Result<()>) -> Result<()> {
    static TURNS: Mutex<()> = Mutex::new(());
    let turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = cluster()?;
    cluster.block_on(async {
        let namespace = cluster.namespace("bad").await?;
        let turn = Turn { cluster, namespace, _alone: Some(turn) };
        let result = test(&turn).await;
        // The next test begins without plugins, whatever became of this one.
        for kind in ["Plugin", "PluginSource"] {
            for object in turn.list(kind).await? {
                turn.delete(kind, object.metadata.name.as_deref().unwrap_or_default()).await?;
            }
        }
        result
    })
}

/// A condition of an object, or null.
pub(super) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|condition| condition["type"] == kind).cloned().unwrap_or(Value::Null)
}

impl Turn {
    /// The argument by which an operator looks after this test's namespace alone.
    pub(super) fn scope(&self) -> String {
        format!("--watch-namespace={}", self.namespace)
    }

    /// An operator that looks after this test's namespace alone.
    pub(super) async fn operator(&self, args: &[&str]) -> Result<Operator> {
        let scope = self.scope();
        let all: Vec<&str> = std::iter::once(scope.as_str()).chain(args.iter().copied()).collect();
        Operator::start(self.cluster, &all).await
    }

    pub(super) fn api(&self, kind: &str) -> Result<Api<DynamicObject>> {
        let (group, version) = match kind {
            "Model" | "Server" => ("substratus.ai", "v1"),
            "Plugin" | "PluginSource" => ("substratus.ai", "v1alpha1"),
            "Job" => ("batch", "v1"),
            "Deployment" => ("apps", "v1"),
            "ConfigMap" | "Service" | "ServiceAccount" | "Node" => ("", "v1"),
            other => bail!("no such kind here: {other}"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Ok(match kind {
            "Plugin" | "PluginSource" | "Node" => Api::all_with(self.cluster.client(), &resource),
            _ => Api::namespaced_with(self.cluster.client(), &self.namespace, &resource),
        })
    }

    pub(super) async fn create(&self, kind: &str, name: &str, spec: Value) -> Result<()> {
        let api = self.api(kind)?;
        let version = if kind.starts_with("Plugin") { "substratus.ai/v1alpha1" } else { "substratus.ai/v1" };
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec});
        let made = api.create(&PostParams::default(), &serde_json::from_value(object)?).await;
        made.map(drop).with_context(|| format!("create {kind} {name}"))
    }

    /// Trusts everything that lies in the registry, without signatures.
    pub(super) async fn trust(&self) -> Result<()> {
        self.create("PluginSource", "local", json!({"prefix": registry::HOST, "unverified": "Allow"})).await
    }

    /// A Model that is ready, as if an earlier operator had loaded it: nothing runs for it.
    pub(super) async fn adopted(&self, name: &str) -> Result<()> {
        self.create("Model", name, json!({"source": "hf://acme/adopted"})).await?;
        let status = json!({"status": {"ready": true, "artifacts": {"url": "tar:////bucket/adopted"}}});
        self.api("Model")?.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.api(kind)?.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub(super) async fn list(&self, kind: &str) -> Result<Vec<DynamicObject>> {
        Ok(self.api(kind)?.list(&ListParams::default()).await?.items)
    }

    /// Waits until a condition is False for this reason, and says these words.
    pub(super) async fn refused(&self, kind: &str, name: &str, about: &str, reason: &str, words: &[&str]) -> Result<Value> {
        let object = self.wait(kind, name, async |object| Ok(condition(object, about)["reason"] == reason)).await?;
        let found = condition(&object, about);
        let message = found["message"].as_str().unwrap_or_default();
        ensure!(found["status"] == "False", "{kind} {name}: {found}");
        for word in words {
            ensure!(message.contains(word), "{kind} {name}: `{word}` is not in: {message}");
        }
        Ok(object)
    }

    /// Waits until the object is as `good` wants it.
    pub(super) async fn wait(&self, kind: &str, name: &str, good: impl AsyncFn(&Value) -> Result<bool>) -> Result<Value> {
        let api = self.api(kind)?;
        eventually(&format!("{kind} {name}"), LIMIT, async || {
            let Some(object) = api.get_opt(name).await? else { return Ok(None) };
            let object = serde_json::to_value(object)?;
            ensure!(good(&object).await?, "now: {}", object["status"]);
            Ok(Some(object))
        })
        .await
    }

    /// Nobody spins: once what was written has been read back, there are at most `most` reconciles more over some seconds.
    pub(super) async fn calm(&self, operator: &Operator, most: u64) -> Result<()> {
        let count = async || operator.count("substratus_reconciles_total").await;
        let quiet = async || {
            let before = count().await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok((count().await? == before).then_some(before))
        };
        let before = eventually("a second without a reconcile", LIMIT, quiet).await?;
        tokio::time::sleep(WATCHED).await;
        let more = count().await? - before;
        ensure!(more <= most, "{more} reconciles in {WATCHED:?}:\n{}\n{}", operator.metrics().await?, operator.tail());
        Ok(())
    }
}
