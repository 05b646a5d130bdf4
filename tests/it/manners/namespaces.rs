//! An operator that looks after some namespaces: with rights in these alone it works there, and elsewhere nothing happens.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};
use substratus_crds::{Model, Server};
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::install;
use substratus_tests::operator::Operator;

const LIMIT: Duration = Duration::from_mins(1);
const PORT: u16 = 18_300;
/// The account of this test: the other tests' operator has more rights under its own name.
const NAME: &str = "few-rights";

/// A manifest of the overlay, for this test's account and these namespaces.
fn overlay(file: &str, namespaces: &[&str]) -> Result<Vec<DynamicObject>> {
    let text = fs::read_to_string(install::deploy("overlays/namespaces").join(file))?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let mut objects = Vec::new();
    for namespace in namespaces {
        for document in &documents {
            let mut document = document.clone();
            document["metadata"]["name"] = json!(NAME);
            if document["metadata"]["namespace"].is_string() {
                document["metadata"]["namespace"] = json!(namespace);
            }
            if document["roleRef"].is_object() {
                document["roleRef"]["name"] = json!(NAME);
                document["subjects"][0]["name"] = json!(NAME);
            }
            objects.push(serde_json::from_value(document)?);
        }
    }
    Ok(objects)
}

async fn rights(cluster: &Cluster, namespaces: &[&str]) -> Result<()> {
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": "substratus"}]});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": "substratus"}});
    let mut objects = vec![serde_json::from_value(account)?, serde_json::from_value(binding)?];
    objects.extend(overlay("cluster-role.yaml", &["none"])?);
    objects.extend(overlay("namespace.yaml", namespaces)?);
    install::apply(&cluster.client(), &objects).await
}

#[test]
fn named_namespaces_are_looked_after_with_rights_in_them_alone() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        super::api::installed(cluster).await?;
        let (one, two, other) =
            (cluster.namespace("one").await?, cluster.namespace("two").await?, cluster.namespace("other").await?);
        rights(cluster, &[&one, &two]).await?;
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        let mut config: Value = serde_saphyr::from_str(&fs::read_to_string(cluster.kubeconfig())?)?;
        config["users"][0]["user"] = json!({"token": super::api::token(cluster, "substratus", NAME, None, None).await?});
        fs::write(&kubeconfig, config.to_string())?;

        let create = async |namespace: &str, name: &str| -> Result<()> {
            let models = Api::<Model>::namespaced(cluster.client(), namespace);
            let model: Model = serde_json::from_value(
                json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": name}, "spec": {"image": "example.com/loader:1"}}),
            )?;
            models.create(&PostParams::default(), &model).await.map(drop).context("create a Model")
        };
        for namespace in [&one, &two, &other] {
            create(namespace, "early").await?;
        }
        let scope = format!("--watch-namespace={one},{two}");
        let arguments = [scope.as_str(), "--store-bind-address=127.0.0.1:18301"];
        let admin = format!("127.0.0.1:{PORT}");
        let operator = Operator::spawn_as(cluster, &kubeconfig, tempfile::tempdir()?, &admin, &arguments).await?;
        operator.ready().await?;
        for namespace in [&one, &two, &other] {
            create(namespace, "late").await?;
        }
        let server = json!({"apiVersion": "substratus.ai/v1", "kind": "Server", "metadata": {"name": "s"}, "spec": {"image": "i", "model": {"name": "late"}}});
        let servers = Api::<Server>::namespaced(cluster.client(), &two);
        servers.create(&PostParams::default(), &serde_json::from_value(server)?).await?;
        let answered = async |namespace: &str, name: &str| -> Result<Option<()>> {
            let model = Api::<Model>::namespaced(cluster.client(), namespace).get(name).await?;
            Ok(model.status.filter(|status| !status.conditions.is_empty()).map(drop))
        };
        for (namespace, name) in [(&one, "early"), (&one, "late"), (&two, "early"), (&two, "late")] {
            eventually(&format!("answer to {name}"), LIMIT, async || answered(namespace, name).await)
                .await
                .with_context(|| operator.tail())?;
        }
        // Across kinds of one namespace, as ever.
        eventually("answer to the Server", LIMIT, async || {
            let status = servers.get("s").await?.status.unwrap_or_default();
            Ok(status.conditions.iter().any(|condition| condition.reason == "ModelNotReady").then_some(()))
        })
        .await?;
        for name in ["early", "late"] {
            ensure!(answered(&other, name).await?.is_none(), "a Model of another namespace was answered");
        }
        let log = fs::read_to_string(&operator.log)?;
        ensure!(!log.contains("orbidden"), "it asks for what it may not have: {}", operator.tail());
        operator.stop().await.map(drop)
    })
}

#[test]
fn the_overlay_grants_what_the_base_grants_and_no_more() -> Result<()> {
    let rules = |value: &Value| -> Vec<String> {
        let mut rules: Vec<String> = Vec::new();
        for rule in super::list(&value["rules"]) {
            for group in super::texts(&rule["apiGroups"]) {
                for resource in super::texts(&rule["resources"]) {
                    rules.extend(super::texts(&rule["verbs"]).into_iter().map(|verb| format!("{verb} {group}/{resource}")));
                }
            }
        }
        rules.sort();
        rules
    };
    let base = super::find(&super::base()?, "ClusterRole", "substratus")?;
    let read = |file: &str| -> Result<Vec<Value>> {
        Ok(serde_saphyr::from_multiple(&fs::read_to_string(install::deploy("overlays/namespaces").join(file))?)?)
    };
    let mut parts = rules(&super::find(&read("cluster-role.yaml")?, "ClusterRole", "substratus")?);
    parts.extend(rules(&super::find(&read("namespace.yaml")?, "Role", "substratus")?));
    parts.sort();
    ensure!(parts == rules(&base), "{parts:?}\nis not\n{:?}", rules(&base));
    Ok(())
}
