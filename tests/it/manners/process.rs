//! The operator as a process: ready when it says so, gone when it is told to, and back without a write.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{ListParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use substratus_crds::Model;
use substratus_tests::cluster::{Cluster, eventually};

const HEALTH: &str = "127.0.0.1:18081";
const LIMIT: Duration = Duration::from_mins(1);

/// The operator's program, beside the programs of this package.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.parent().and_then(|deps| deps.parent()).context("a test program lies in a folder")?.join("substratus");
    ensure!(program.exists(), "build the operator first: cargo build -p substratus");
    Ok(program)
}

/// Ends with the value, whatever becomes of the test.
struct Operator(Child);

impl Operator {
    fn start(cluster: &Cluster, namespace: &str, folder: &tempfile::TempDir) -> Result<Self> {
        let mut command = cluster.command(program()?);
        command
            .args(["operator", "--leader-elect", "--worker-image=none", "--metrics-bind-address=127.0.0.1:18080"])
            .args(["--store-bind-address=127.0.0.1:18090", &format!("--health-probe-bind-address={HEALTH}")])
            .args([format!("--namespace={namespace}"), format!("--plugins-dir={}", folder.path().display())])
            .arg(format!("--plugin-cache-dir={}", folder.path().join("cache").display()))
            .stderr(Stdio::null());
        Ok(Self(command.spawn().context("starting the operator")?))
    }

    async fn ready(&self) -> Result<()> {
        eventually("operator to be ready", LIMIT, async || Ok((get("/readyz").await?.0 == 200).then_some(()))).await
    }

    /// Asks it to end, as a kubelet does.
    async fn stop(&mut self) -> Result<()> {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM)?;
        let status = eventually("operator to end", Duration::from_secs(10), async || Ok(self.0.try_wait()?)).await?;
        ensure!(status.success(), "the operator ended with {status}");
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn get(path: &str) -> Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let response = client.get(format!("http://{HEALTH}{path}")).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

async fn versions(cluster: &Cluster, namespace: &str) -> Result<Vec<Option<String>>> {
    let model = Api::<Model>::namespaced(cluster.client(), namespace).get("opt").await?;
    let jobs = Api::<Job>::namespaced(cluster.client(), namespace).list(&ListParams::default()).await?;
    let children = jobs.items.into_iter().map(|job| job.metadata.resource_version);
    Ok(std::iter::once(model.metadata.resource_version).chain(children).collect())
}

#[test]
fn the_operator_ends_in_peace_and_comes_back_without_a_write() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        super::api::installed(cluster).await?;
        let namespace = cluster.namespace("process").await?;
        let folder = tempfile::tempdir()?;
        let model = serde_json::from_value(json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": "opt"}, "spec": {"image": "example.com/loader:1"}}))?;
        let models = Api::<Model>::namespaced(cluster.client(), &namespace);
        models.create(&PostParams::default(), &model).await?;

        let mut first = Operator::start(cluster, &namespace, &folder)?;
        first.ready().await?;
        ensure!(get("/livez").await?.0 == 200);
        // Who stands by is ready, too.
        let leads = async || Ok(get("/metrics").await?.1.contains("substratus_leader 1\n").then_some(()));
        eventually("turn of the operator", LIMIT, leads).await?;
        let answered = async || Ok(models.get("opt").await?.status.filter(|status| !status.conditions.is_empty()));
        eventually("answer of the operator", LIMIT, answered).await?;
        // Steady: a second look finds what the first one found.
        let steady = async || {
            let before = versions(cluster, &namespace).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok((before == versions(cluster, &namespace).await?).then_some(before))
        };
        let before = eventually("writes to end", LIMIT, steady).await?;
        first.stop().await?;
        let lease = Api::<Lease>::namespaced(cluster.client(), &namespace).get("substratus").await?;
        ensure!(lease.spec.and_then(|spec| spec.holder_identity).as_deref() == Some(""), "the lease was not given back");

        let started = Instant::now();
        let mut second = Operator::start(cluster, &namespace, &folder)?;
        second.ready().await?;
        ensure!(started.elapsed() < Duration::from_secs(10), "a restart took {:?}", started.elapsed());
        eventually("a pass over the Model", LIMIT, async || {
            Ok(get("/metrics").await?.1.contains("substratus_reconciles_total{kind=\"Model\"").then_some(()))
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(versions(cluster, &namespace).await? == before, "a restart wrote");
        second.stop().await
    })
}
