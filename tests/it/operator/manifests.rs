//! The manifests that users of the first operator have, unchanged: what becomes of each, as a reviewed snapshot. The tests
//! play the kubelet, so loads and trainings end well and what waits for them goes on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};
use substratus_tests::cluster::eventually;

use super::LIMIT;
use super::fixture::{Fixture, loaded, on_cluster};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/first-operator")
}

fn manifest(file: &str) -> Result<Value> {
    let path = folder().join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {file}"))?;
    serde_saphyr::from_str(&text).with_context(|| format!("reading {file}"))
}

/// Applies a manifest and waits until its object came to rest; ends its Job, where there is one.
async fn outcome(fixture: &Fixture, file: &str) -> Result<Value> {
    let mut object = manifest(file)?;
    // One of them names a namespace; tests have their own.
    object["metadata"].as_object_mut().context("metadata")?.remove("namespace");
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    fixture.post(&object).await?;
    let main = if matches!(kind.as_str(), "Model" | "Dataset") { "Complete" } else { "Serving" };
    // A plan or a verdict: from then on its children are there, or will never be.
    let object = eventually(&format!("an answer to {file}"), LIMIT, async || {
        let object = fixture.get(&kind, &name).await?;
        let said = super::fixture::condition(&object, main);
        Ok(said["reason"].is_string().then_some(object))
    })
    .await?;
    let mut children = fixture.children(&kind, &name).await?;
    let reason = super::fixture::condition(&object, main)["reason"].clone();
    if reason == "ImageNotBuilt" {
        let job = fixture.wait("Job", &format!("{name}-{}-bld", kind.to_lowercase()), LIMIT, async |_| Ok(Some(()))).await?;
        children = vec![json!({"kind": "Job", "metadata": job["metadata"], "spec": job["spec"]})];
        return Ok(json!({"manifest": file, "reason": reason, "image": job["metadata"]["annotations"]["image"],
            "children": children.iter().map(essence).collect::<Vec<_>>()}));
    }
    // What is suspended is built all the same, and shown in `build`.
    children.retain(|child| !text(&child["metadata"]["name"]).ends_with("-bld"));
    if let Some(job) = children.iter().find(|child| child["kind"] == "Job") {
        let container = job["spec"]["template"]["spec"]["containers"][0]["args"][0].is_null();
        let said = if container { json!({}) } else { loaded(&object, 1) };
        fixture.pod_ends(job["metadata"]["name"].as_str().unwrap_or_default(), 0, &said).await?;
        fixture.reason(&kind, &name, "Complete", "JobComplete").await?;
    }
    Ok(json!({"manifest": file, "reason": reason, "children": children.iter().map(essence).collect::<Vec<_>>()}))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What of a child people rely on; what the API server fills in is left out.
fn essence(child: &Value) -> Value {
    let mut found = Map::new();
    found.insert("child".into(), format!("{} {}", text(&child["kind"]), text(&child["metadata"]["name"])).into());
    for (name, pointer) in [
        ("data", "/data"),
        ("selector", "/spec/selector"),
        ("ports", "/spec/ports"),
        ("backoffLimit", "/spec/backoffLimit"),
        ("labels", "/spec/template/metadata/labels"),
    ] {
        if let Some(value) = child.pointer(pointer) {
            found.insert(name.into(), value.clone());
        }
    }
    if child["kind"] == "Secret" {
        let keys = child["data"].as_object().into_iter().flat_map(Map::keys).cloned().map(Value::String).collect();
        found.insert("data".into(), Value::Array(keys));
    }
    let pod = if child["kind"] == "Pod" { Some(&child["spec"]) } else { child.pointer("/spec/template/spec") };
    if let Some(pod) = pod {
        for name in ["serviceAccountName", "nodeSelector", "volumes"] {
            found.insert(name.into(), pod[name].clone());
        }
        let container = &pod["containers"][0];
        for name in ["name", "image", "command", "args", "env", "resources", "volumeMounts", "readinessProbe", "ports"] {
            found.insert(format!("container.{name}"), container[name].clone());
        }
    }
    for job_label in ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"] {
        found.get_mut("labels").and_then(Value::as_object_mut).map(|labels| labels.remove(job_label));
    }
    // The token that every pod gets, and the selector of a Job, have a name or number by chance.
    if child["kind"] == "Job" {
        found.remove("selector");
    }
    for list in ["volumes", "container.volumeMounts"] {
        if let Some(items) = found.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| !item["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access")));
        }
    }
    found.retain(|_, value| !value.is_null());
    Value::Object(found)
}

fn snapshot(name: &str, found: &Value) {
    let filters = vec![
        ("[0-9a-f]{64}", "[sha256]"),
        ("/bucket/[0-9a-f]{32}", "/bucket/[place]"),
        ("(inputs.*: .*)[0-9a-f]{16}", "$1[hash]"),
        // Hashes of names of which a part is chance.
        ("(--inputs=|_cache-)[0-9a-f]{16}", "$1[hash]"),
        ("operator-[a-z0-9]{5}", "[namespace]"),
    ];
    insta::with_settings!({filters => filters, sort_maps => true}, { insta::assert_yaml_snapshot!(name, found); });
}

fn family(name: &str, files: &[&str]) -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let mut found = Vec::new();
        for file in files {
            found.push(outcome(fixture, file).await?);
        }
        snapshot(name, &Value::Array(found));
        Ok(())
    })
}

const FALCON: &[&str] = &[
    "falcon-40b/base-model.yaml",
    "falcon-40b/server.yaml",
    "datasets/k8s-instructions.yaml",
    "falcon-40b/finetuned-model.yaml",
    "falcon-40b/notebook.yaml",
];
const OPT: &[&str] = &[
    "facebook-opt-125m/base-model.yaml",
    "facebook-opt-125m/base-server.yaml",
    "facebook-opt-125m/base-notebook.yaml",
    "datasets/squad.yaml",
    "facebook-opt-125m/finetuned-model.yaml",
];
const OPT_BUILT: &[&str] = &["facebook-opt-125m/finetuned-model-gitops.yaml"];
const LLAMA_7B: &[&str] =
    &["llama2-7b/base-model.yaml", "llama2-7b/server.yaml", "llama2-7b/finetuned-model.yaml", "llama2-7b/finetuned-server.yaml"];
const LLAMA_13B: &[&str] = &["llama2-13b-chat-gguf/base-model.yaml", "llama2-13b-chat-gguf/server-cpu.yaml"];
const NOTEBOOK: &[&str] = &["notebook/notebook.yaml"];
/// Carries a field that never was one: strict clients refuse it, others lose it.
const UNKNOWN_FIELD: &str = "facebook-opt-125m/finetuned-server.yaml";

#[test]
fn falcon_40b() -> Result<()> {
    family("first_operator_falcon_40b", FALCON)
}

#[test]
fn facebook_opt_125m() -> Result<()> {
    family("first_operator_facebook_opt_125m", OPT)
}

#[test]
fn facebook_opt_125m_built_from_git() -> Result<()> {
    family("first_operator_facebook_opt_125m_built", OPT_BUILT)
}

#[test]
fn llama2_7b() -> Result<()> {
    family("first_operator_llama2_7b", LLAMA_7B)
}

#[test]
fn llama2_13b_chat_gguf() -> Result<()> {
    family("first_operator_llama2_13b", LLAMA_13B)
}

#[test]
fn notebook_of_a_folder() -> Result<()> {
    family("first_operator_notebook", NOTEBOOK)
}

#[test]
fn unknown_field_is_refused_by_strict_clients_and_otherwise_lost() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let file = folder().join(UNKNOWN_FIELD);
        let refused = fixture.kubectl(&["apply", "-f", &file.display().to_string()]).await;
        let said = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(said.contains("modelName"), "{said}");
        fixture.post(&manifest(UNKNOWN_FIELD)?).await?;
        fixture.reason("Server", "fb-opt-125m-squad", "Serving", "ModelNotFound").await?;
        Ok(())
    })
}

#[test]
fn every_manifest_is_applied_by_a_test() -> Result<()> {
    let applied = [FALCON, OPT, OPT_BUILT, LLAMA_7B, LLAMA_13B, NOTEBOOK, &[UNKNOWN_FIELD]].concat();
    for family in std::fs::read_dir(folder())? {
        let family = family?.path();
        for file in std::fs::read_dir(&family)? {
            let file = file?.path();
            let name = file.strip_prefix(folder())?.display().to_string();
            ensure!(applied.contains(&name.as_str()), "{name} is applied by no test");
        }
    }
    Ok(())
}
