//! A Notebook that nobody uses suspends itself, with a real `JupyterLab`; one whose kernel computes does not, nor one whose page
//! is open.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::Api;
use reqwest::Client;
use serde_json::{Value, json};
use substratus_crds::Notebook;
use substratus_crds::conditions::SERVING;
use substratus_tests::cluster::eventually;
use substratus_tests::platform;

use super::notebook::Opened;
use super::{LIMIT, condition, stage, tell};

const TIMEOUT: Duration = Duration::from_secs(15);
const MANIFEST: &str = r"
apiVersion: substratus.ai/v1
kind: Notebook
metadata: {name: NAME}
spec: {idleTimeout: 15s}
";

/// How long the cell computes, and how long the page is open: longer than the timeout.
const BUSY: Duration = Duration::from_secs(30);
/// What the clock of this test may be behind: the use began a moment before it was looked at.
const LATE: Duration = Duration::from_secs(3);
/// Runs a cell as a notebook does, and goes without waiting for its end: what is left is a kernel that nobody is connected to.
const CELL: &str = "
import sys, time
from jupyter_client import BlockingKernelClient, find_connection_file
client = BlockingKernelClient(connection_file=find_connection_file(sys.argv[1]))
client.load_connection_file()
client.start_channels()
client.wait_for_ready(timeout=60)
client.execute(f'import time; time.sleep({sys.argv[2]}); open(\"/content/cell.txt\", \"w\").write(\"computed\")')
while client.get_iopub_msg(timeout=60)['content'].get('execution_state') != 'busy': pass
";

/// Keeps the connection of a page to an idle kernel, and does nothing with it.
const PAGE: &str = "
import os, sys, time, requests, websocket
kernels, token = 'localhost:8888/api/kernels', os.environ['NOTEBOOK_TOKEN']
kernel = requests.post(f'http://{kernels}', headers={'Authorization': f'token {token}'}).json()['id']
page = websocket.create_connection(f'ws://{kernels}/{kernel}/channels?token={token}')
time.sleep(float(sys.argv[1]))
";

/// Runs a program in a Notebook's container.
fn python(namespace: &str, notebook: &str, program: &[&str]) -> Result<String> {
    let pod = format!("{notebook}-notebook");
    let python = ["exec", &pod, "--container", "notebook", "--namespace", namespace, "--", "/usr/bin/python3", "-c"];
    platform::kubectl(stage()?.cluster, &python.into_iter().chain(program.iter().copied()).collect::<Vec<_>>())
}

/// Waits until a Notebook is suspended, and says when it was.
async fn suspended(notebooks: &Api<Notebook>, name: &str) -> Result<Instant> {
    eventually("Notebook to be suspended", LIMIT, async || {
        Ok((notebooks.get(name).await?.spec.suspend == Some(true)).then_some(Instant::now()))
    })
    .await
}

#[test]
fn notebook_that_nobody_uses_is_suspended_and_one_that_computes_is_not() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("idle").await?;
        platform::publish_notebook(cluster).await?;
        platform::apply_text(cluster, &namespace, &MANIFEST.replace("NAME", "lab"))?;
        let notebooks = Api::<Notebook>::namespaced(cluster.client(), &namespace);
        let client = Client::builder().no_proxy().timeout(LIMIT).build()?;

        let first = Opened::start(cluster, &namespace, "suspend")?;
        tell("idle", began, "answers through the forwarded port");
        let note = json!({"type": "file", "format": "text", "content": "the work of a day"});
        ensure!(client.put(first.at("/api/contents/work.txt")).json(&note).send().await?.status().is_success());
        let kernel: Value = client.post(first.at("/api/kernels")).json(&json!({"name": "python3"})).send().await?.json().await?;
        let kernel = kernel["id"].as_str().context("no kernel was started")?;
        let seconds = BUSY.as_secs().to_string();
        python(&namespace, "lab", &[CELL, kernel, &seconds])?;
        let computes = Instant::now();
        tell("idle", began, "a kernel computes, and nobody is connected to it");

        // The sidecar knows of nothing else that happens here: the page is not open, and no request is made.
        let suspended = suspended(&notebooks, "lab").await?;
        ensure!(suspended - computes + LATE > BUSY + TIMEOUT, "suspended {:?} after its kernel began", suspended - computes);
        first.ended()?;
        tell("idle", began, "suspended by itself, after the kernel was done");
        let status = eventually("status to say so", LIMIT, async || {
            let status = notebooks.get("lab").await?.status.context("no status")?;
            Ok((condition(&status.conditions, SERVING).0 == "Suspended").then_some(status))
        })
        .await?;
        let (_, words) = condition(&status.conditions, SERVING);
        ensure!(words.contains("nobody used it since") && words.contains("15s") && status.idle_since.is_some(), "{words}");
        let events = platform::kubectl(cluster, &["get", "events", "--namespace", &namespace, "--output", "json"])?;
        ensure!(events.contains(&words), "no Event says so: {events}");

        let second = Opened::start(cluster, &namespace, "suspend")?;
        tell("idle", began, "resumed");
        for (file, content) in [("work.txt", "the work of a day"), ("cell.txt", "computed")] {
            let kept: Value = client.get(second.at(&format!("/api/contents/{file}"))).send().await?.json().await?;
            ensure!(kept["content"] == content, "{file}: {kept}");
        }
        second.stop()
    })
}

#[test]
fn notebook_whose_page_is_open_is_not_suspended() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("page").await?;
        platform::publish_notebook(cluster).await?;
        platform::apply_text(cluster, &namespace, &MANIFEST.replace("NAME", "page"))?;
        let ready = ["wait", "notebook", "page", "--for", "jsonpath={.status.ready}=true", "--timeout=240s", "--namespace"];
        platform::kubectl(cluster, &ready.into_iter().chain([namespace.as_str()]).collect::<Vec<_>>())?;
        tell("page", began, "ready");
        let notebooks = Api::<Notebook>::namespaced(cluster.client(), &namespace);
        // A pod that goes takes the program with it, and that is an error.
        python(&namespace, "page", &[PAGE, &BUSY.as_secs().to_string()]).context("the page was cut off")?;
        let closed = Instant::now();
        ensure!(notebooks.get("page").await?.spec.suspend != Some(true), "suspended while its page was open");
        tell("page", began, "the page is closed");
        let suspended = suspended(&notebooks, "page").await?;
        ensure!(suspended - closed + LATE > TIMEOUT, "suspended {:?} after its page was closed", suspended - closed);
        tell("page", began, "suspended by itself");
        Ok(())
    })
}
