//! Two operators: one acts, the other is ready to. When the first dies, the second goes on, and writes nothing that is there.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use substratus_crds::Model;
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::operator::Operator;

/// A Lease that nobody renews is taken after 15 seconds.
const LIMIT: Duration = Duration::from_mins(1);

async fn operator(cluster: &Cluster, namespace: &str, name: &str, port: u16) -> Result<Operator> {
    let arguments = [
        "--leader-elect".to_owned(),
        format!("--namespace={namespace}"),
        format!("--watch-namespace={namespace}"),
        format!("--pod-name={name}"),
        format!("--store-bind-address=127.0.0.1:{}", port + 1),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let operator = Operator::spawn(cluster, tempfile::tempdir()?, &format!("127.0.0.1:{port}"), &arguments).await?;
    operator.ready().await?;
    Ok(operator)
}

async fn leads(operator: &Operator) -> Result<bool> {
    Ok(operator.metrics().await?.contains("substratus_leader 1\n"))
}

async fn load(models: &Api<Model>, name: &str) -> Result<()> {
    let model = json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": name}, "spec": {"image": "example.com/loader:1"}});
    models.create(&PostParams::default(), &serde_json::from_value(model)?).await?;
    let answered = async || Ok(models.get(name).await?.status.filter(|status| !status.conditions.is_empty()).map(drop));
    eventually(&format!("answer to Model {name}"), LIMIT, answered).await
}

#[test]
fn a_standby_is_ready_and_takes_over_without_writing_anything_twice() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        super::api::installed(cluster).await?;
        let namespace = cluster.namespace("standby").await?;
        let models = Api::<Model>::namespaced(cluster.client(), &namespace);
        let first = operator(cluster, &namespace, "first", 18_200).await?;
        eventually("the first to lead", LIMIT, async || Ok(leads(&first).await?.then_some(()))).await?;
        // Ready, although it is not its turn: a rolling update may go on.
        let second = operator(cluster, &namespace, "second", 18_210).await?;
        ensure!(!leads(&second).await? && leads(&first).await?, "two lead at once");
        load(&models, "before").await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(second.count("substratus_reconciles_total").await? == 0, "a standby acts");
        let before = versions(cluster, &namespace).await?;

        drop(first.kill()?);
        eventually("the second to lead", LIMIT, async || Ok(leads(&second).await?.then_some(()))).await?;
        let lease = Api::<Lease>::namespaced(cluster.client(), &namespace).get("substratus").await?;
        ensure!(lease.spec.and_then(|spec| spec.holder_identity).as_deref() == Some("second"));
        eventually("a pass over the Model", LIMIT, async || {
            Ok((second.count("substratus_reconciles_total{kind=\"Model\"").await? > 0).then_some(()))
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(versions(cluster, &namespace).await? == before, "the successor wrote what was there");
        load(&models, "after").await?;
        second.stop().await.map(drop)
    })
}

/// Of the Model and of its Job.
async fn versions(cluster: &Cluster, namespace: &str) -> Result<Vec<Option<String>>> {
    let model = Api::<Model>::namespaced(cluster.client(), namespace).get("before").await?;
    let jobs = Api::<Job>::namespaced(cluster.client(), namespace).list(&ListParams::default()).await?;
    ensure!(jobs.items.len() == 1, "{} Jobs", jobs.items.len());
    let children = jobs.items.into_iter().map(|job| job.metadata.resource_version);
    Ok(std::iter::once(model.metadata.resource_version).chain(children).collect())
}
