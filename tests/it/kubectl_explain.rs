//! What users meet before any operator runs: the words of `kubectl explain`, and names that are refused with a reason.
//! Must not know the operator; the definitions and a real API server are all there is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::{guests, install};

const LIMIT: Duration = Duration::from_secs(45);
/// A group of this test's own: its definition comes and goes without disturbing other tests.
const OTHER_GROUP: &str = "taken-over.example";

async fn definitions(cluster: &Cluster) -> Result<()> {
    install::apply(&cluster.client(), &install::objects(&guests::root().join("crds/yaml"))?).await
}

fn objects(cluster: &Cluster, namespace: &str, group: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    Api::namespaced_with(cluster.client(), namespace, &resource)
}

async fn create(api: &Api<DynamicObject>, group: &str, kind: &str, name: &str) -> Result<kube::Result<DynamicObject>> {
    let document = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": name}, "spec": {"image": "i"}});
    Ok(api.create(&PostParams::default(), &serde_json::from_value(document)?).await)
}

/// What the API server said against it.
fn refusal(result: kube::Result<DynamicObject>) -> Result<String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 422 => Ok(status.message),
        Err(error) => Err(error.into()),
        Ok(object) => anyhow::bail!("{:?} was taken", object.metadata.name),
    }
}

#[test]
fn kubectl_explains_every_field() -> Result<()> {
    let cluster = Cluster::api()?;
    let cache = tempfile::tempdir()?;
    for field in
        ["dataset.spec", "model.spec", "notebook.spec", "server.spec", "server.spec.volumes", "plugin.spec", "pluginsource.spec"]
    {
        let text = cluster.block_on(async {
            definitions(cluster).await?;
            // The API server publishes a new definition's schema a moment after it serves the kind.
            eventually("schema to be published", LIMIT, async || {
                let mut kubectl = cluster.command("kubectl");
                let output = kubectl.args(["explain", field, "--cache-dir"]).arg(cache.path()).output()?;
                ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                Ok(Some(String::from_utf8(output.stdout)?))
            })
            .await
        })?;
        insta::assert_snapshot!(field, text);
    }
    Ok(())
}

#[test]
fn a_name_that_cannot_work_is_refused_with_a_reason() -> Result<()> {
    let cluster = Cluster::api()?;
    let refusals = cluster.block_on(async {
        definitions(cluster).await?;
        let namespace = cluster.namespace("names").await?;
        let mut found = Vec::new();
        for (kind, name) in [
            ("Dataset", &*"d".repeat(49)),
            ("Model", &*"m".repeat(51)),
            ("Notebook", &*"n".repeat(48)),
            ("Server", &*"s".repeat(50)),
            ("Server", "falcon.40b"),
            ("Server", "40b"),
        ] {
            let api = objects(cluster, &namespace, substratus_crds::GROUP, kind);
            found.push(refusal(create(&api, substratus_crds::GROUP, kind, name).await?)?);
        }
        Ok(found)
    })?;
    insta::assert_snapshot!("refused_names", refusals.join("\n\n"));
    Ok(())
}

/// The definition of Model under another group, with or without the rules about names.
fn taken_over(rules: bool) -> Result<DynamicObject> {
    let crd = substratus_crds::crds().into_iter().find(|crd| crd.spec.names.kind == "Model").context("no Model")?;
    let mut document = serde_json::to_value(crd)?;
    let changes = [("/metadata/name", format!("models.{OTHER_GROUP}")), ("/spec/group", OTHER_GROUP.to_owned())];
    for (path, value) in changes {
        *document.pointer_mut(path).with_context(|| format!("no {path}"))? = json!(value);
    }
    let root =
        document.pointer_mut("/spec/versions/0/schema/openAPIV3Schema").and_then(Value::as_object_mut).context("no schema")?;
    ensure!(root.contains_key("x-kubernetes-validations"), "there is no rule to test");
    if !rules {
        root.remove("x-kubernetes-validations");
    }
    Ok(serde_json::from_value(document)?)
}

#[test]
fn an_object_that_was_there_before_the_rules_stays_editable() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        install::apply(&cluster.client(), &[taken_over(false)?]).await?;
        let namespace = cluster.namespace("before").await?;
        let api = objects(cluster, &namespace, OTHER_GROUP, "Model");
        let old = "o".repeat(60);
        create(&api, OTHER_GROUP, "Model", &old).await??;

        install::apply(&cluster.client(), &[taken_over(true)?]).await?;
        let mut tries = 0;
        eventually("rules to bind new objects", LIMIT, async || {
            tries += 1;
            let made = create(&api, OTHER_GROUP, "Model", &format!("{}-{tries}", "n".repeat(55))).await?;
            refusal(made).map(Some)
        })
        .await?;

        let edit = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"image": "another"}}));
        let edited = api.patch(&old, &PatchParams::default(), &edit).await.context("editing an object of an over-long name")?;
        ensure!(edited.data["spec"]["image"] == "another", "{edited:?}");
        Ok(())
    })
}

#[test]
fn a_pod_is_given_nothing_that_reaches_out_of_it() -> Result<()> {
    let cluster = Cluster::api()?;
    let refusals = cluster.block_on(async {
        definitions(cluster).await?;
        let namespace = cluster.namespace("options").await?;
        let api = objects(cluster, &namespace, substratus_crds::GROUP, "Server");
        let mut found = Vec::new();
        for spec in [
            json!({"volumes": [{"name": "two", "mountPath": "/two", "emptyDir": {}, "configMap": {"name": "x"}}]}),
            json!({"volumes": [{"name": "none", "mountPath": "/none"}]}),
            json!({"securityContext": {"allowPrivilegeEscalation": true}}),
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            json!({"replicas": -1}),
        ] {
            let object = json!({"apiVersion": "substratus.ai/v1", "kind": "Server", "metadata": {"name": "s"}, "spec": spec});
            found.push(refusal(api.create(&PostParams::default(), &serde_json::from_value(object)?).await)?);
        }
        Ok(found)
    })?;
    insta::assert_snapshot!("refused_options", refusals.join("\n\n"));
    Ok(())
}
