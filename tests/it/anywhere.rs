//! What holds on any cluster, also on one that somebody else runs: `make test CLUSTER=current` runs these against it. Nothing
//! here needs root, looks at a node, or breaks anything.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use http::Method;
use serde_json::{Value, json};
use substratus_tests::cluster::settings::Settings;
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::demo::screen::Screen;
use substratus_tests::demo::stage::Stage;
use substratus_tests::demo::{self, Plan};
use substratus_tests::platform::{self, proxy};

const LIMIT: Duration = Duration::from_mins(4);

/// The cluster of this run with the operator on it, and a namespace to work in: our own node's with a new one, or the cluster
/// that `SUBSTRATUS_CLUSTER` says with the only one that is ours there.
fn place() -> Result<(&'static Cluster, String)> {
    if let Some(plan) = Plan::of_tests()? {
        return Ok((elsewhere(&plan)?, demo::NAMESPACE.to_owned()));
    }
    let cluster = super::e2e::stage()?.cluster;
    Ok((cluster, cluster.block_on(cluster.namespace("anywhere"))?))
}

fn elsewhere(plan: &Plan) -> Result<&'static Cluster> {
    static SHARED: OnceLock<Result<Stage, String>> = OnceLock::new();
    let open = || plan.stage(&Settings::from_environment()?, &Screen::start());
    let stage = SHARED.get_or_init(|| open().map_err(|error| format!("{error:#}")));
    stage.as_ref().map(|stage| &stage.cluster).map_err(|error| anyhow!("{error}"))
}

/// Waits until an object's status is as `check` wants it.
async fn status(cluster: &Cluster, namespace: &str, object: &str, what: &str, check: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(&format!("{object} {what}"), LIMIT, async || {
        let text = platform::kubectl(cluster, &["get", object, "--namespace", namespace, "--output", "json"])?;
        let object: Value = serde_json::from_str(&text)?;
        let status = object.get("status").cloned().unwrap_or_default();
        ensure!(check(&status), "its status is {status}");
        Ok(Some(status))
    })
    .await
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&json!(true))
}

/// Whether a condition is there with this reason and these words.
fn says(status: &Value, reason: &str, words: &str) -> bool {
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let conditions = status.get("conditions").and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| text(condition, "reason").contains(reason) && text(condition, "message").contains(words))
}

#[test]
fn a_model_is_imported_served_answers_and_leaves_nothing() -> Result<()> {
    const BOTH: &str = "
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: second}
spec: {source: hf://acme/tiny-second}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: second}
spec: {model: {name: second}}
";
    let (cluster, namespace) = place()?;
    cluster.block_on(async {
        platform::apply_text(cluster, &namespace, BOTH)?;
        let model = status(cluster, &namespace, "model/second", "to be ready", is_ready).await?;
        ensure!(model.pointer("/source/format") == Some(&json!("gguf")), "{model}");
        let server = status(cluster, &namespace, "server/second", "to be ready", is_ready).await?;
        ensure!(server.get("engine") == Some(&json!("llama.cpp")), "{server}");

        let service = proxy::Service { namespace: &namespace, name: "second-server", port: 8080 };
        let question = json!({"prompt": "hello world", "max_tokens": 8});
        let answer = service.ask(&cluster.client(), Method::POST, "/v1/completions", Some(&question)).await?;
        let answer: Value = serde_json::from_str(&answer).context("reading the engine's answer")?;
        ensure!(answer.pointer("/usage/completion_tokens") == Some(&json!(8)), "{answer}");

        platform::kubectl(cluster, &["delete", "model/second", "server/second", "--namespace", &namespace])?;
        eventually("children to be gone", LIMIT, async || {
            let kinds = "job,pod,deployment,service,configmap";
            let left = platform::kubectl(cluster, &["get", kinds, "--namespace", &namespace, "--output", "name"])?;
            let left: Vec<_> = left.lines().filter(|name| name.contains("second")).collect();
            ensure!(left.is_empty(), "still there: {left:?}");
            Ok(Some(()))
        })
        .await
    })
}

#[test]
fn what_cannot_be_is_said_in_a_condition() -> Result<()> {
    const WRONG: &str = "
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: missing}
spec: {source: hf://acme/no-such-model}
---
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: scheme}
spec: {source: nope://a/b}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: waits}
spec: {model: {name: missing}}
";
    let (cluster, namespace) = place()?;
    cluster.block_on(async {
        platform::apply_text(cluster, &namespace, WRONG)?;
        let said = |reason: &'static str, words: &'static str| move |status: &Value| says(status, reason, words);
        status(cluster, &namespace, "model/missing", "to say that it is missing", said("NotFound", "acme/no-such-model")).await?;
        status(cluster, &namespace, "model/scheme", "to name the scheme", said("PluginNotFound", "nope")).await?;
        status(cluster, &namespace, "server/waits", "to say what for", said("ModelNotReady", "missing")).await?;
        let made = ["delete", "model/missing", "model/scheme", "server/waits", "--namespace", &namespace];
        platform::kubectl(cluster, &made).map(drop)
    })
}
