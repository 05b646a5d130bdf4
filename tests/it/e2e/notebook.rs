//! A Notebook with a real `JupyterLab`, opened as users open it: resumed, forwarded to, suspended, resumed with its work.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use reqwest::{Client, StatusCode, Url};
use serde_json::{Value, json};
use substratus_tests::cluster::{Cluster, eventually};
use substratus_tests::platform;

use super::{LIMIT, stage, tell};

const MANIFEST: &str = r"
apiVersion: substratus.ai/v1
kind: Notebook
metadata: {name: lab}
spec: {suspend: true}
";

#[test]
fn notebook_is_opened_suspended_and_opened_again_with_its_work() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("notebook").await?;
        platform::publish_notebook(cluster).await?;
        platform::apply_text(cluster, &namespace, MANIFEST)?;
        let client = Client::builder().no_proxy().timeout(LIMIT).build()?;

        work_survives(cluster, &namespace, began, async |first| {
            let mut stranger = first.at("/api/contents");
            stranger.set_query(Some("token=default"));
            ensure!(client.get(stranger).send().await?.status() == StatusCode::FORBIDDEN, "a guessed token is let in");
            Ok(())
        })
        .await
    })
}

/// Opens the Notebook `lab`, lets `look` see it, leaves it running by Ctrl-C, leaves work in it, suspends it by Ctrl-C, and finds the work when it is resumed.
pub(super) async fn work_survives(
    cluster: &Cluster,
    namespace: &str,
    began: Instant,
    look: impl AsyncFnOnce(&Opened) -> Result<()>,
) -> Result<()> {
    let client = Client::builder().no_proxy().timeout(LIMIT).build()?;
    let pods = Api::<Pod>::namespaced(cluster.client(), namespace);
    let glance = Opened::start(cluster, namespace, "leave")?;
    tell("notebook", began, "answers through the forwarded port");
    glance.stop()?;
    let left = pods.get("lab-notebook").await?.metadata;
    let first = Opened::start(cluster, namespace, "suspend")?;
    let still = pods.get("lab-notebook").await?.metadata;
    ensure!(still.uid == left.uid && still.deletion_timestamp.is_none(), "Ctrl-C did not leave it as it was");
    let answer = client.get(first.at("/api")).send().await?.status();
    ensure!(answer == StatusCode::OK, "/api answers {answer} to the token");
    look(&first).await?;
    let note = json!({"type": "file", "format": "text", "content": "the work of a day"});
    let written = client.put(first.at("/api/contents/workspace.txt")).json(&note).send().await?;
    ensure!(written.status().is_success(), "Jupyter refused the file: {}", written.text().await?);
    first.stop()?;
    eventually("Notebook's Pod to go", LIMIT, async || Ok(pods.get_opt("lab-notebook").await?.is_none().then_some(()))).await?;
    tell("notebook", began, "suspended by Ctrl-C");

    let second = Opened::start(cluster, namespace, "suspend")?;
    tell("notebook", began, "resumed");
    let kept: Value = client.get(second.at("/api/contents/workspace.txt")).send().await?.json().await?;
    ensure!(kept["content"] == "the work of a day", "{kept}");
    second.stop()
}

/// A running `kubectl open notebook lab`.
pub(super) struct Opened {
    process: Child,
    url: Url,
}

impl Opened {
    pub(super) fn start(cluster: &Cluster, namespace: &str, on_exit: &str) -> Result<Self> {
        let mut process = cluster
            .command(platform::program()?)
            .args(["open", "notebook", "lab", "--on-exit", on_exit, "--output", "json", "--namespace", namespace])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the command")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut line)?;
        let Ok(opened) = serde_json::from_str::<Value>(&line) else {
            bail!("the command ended with {} before it opened anything", process.wait()?);
        };
        let url = opened["url"].as_str().context("no URL")?.parse()?;
        Ok(Self { process, url })
    }

    /// A path of `JupyterLab`, with the token.
    pub(super) fn at(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(path);
        url
    }

    /// Waits for the command to end by itself, which it does when the Notebook is suspended.
    pub(super) fn ended(mut self) -> Result<()> {
        ensure!(self.process.wait()?.success(), "the command failed");
        Ok(())
    }

    /// Ctrl-C.
    pub(super) fn stop(mut self) -> Result<()> {
        let interrupted = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status()?;
        ensure!(interrupted.success(), "the command is gone");
        ensure!(self.process.wait()?.success(), "the command failed");
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // A failed test leaves nothing behind; one that ended well has nothing to kill.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
