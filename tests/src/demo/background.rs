//! The demo's cluster, which outlives the command that started it. It must not know what runs on it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::screen::Screen;
use crate::cluster::layout::Layout;
use crate::cluster::settings::Settings;
use crate::cluster::{cleanup, process, start};

/// Starts a supervisor in the background and waits until its cluster is healthy; one that runs already is used again.
pub fn start(settings: &Settings, layout: &Layout, screen: &Screen) -> Result<()> {
    while is_supervised(layout)? {
        if layout.ready().is_file() {
            screen.step("the cluster of an earlier demo still runs; it is used again");
            return Ok(());
        }
        // Started by a demo that was interrupted, and still starting; or still ending.
        sleep(Duration::from_millis(200));
    }
    // What a supervisor says that was killed is not true any more.
    let _ = fs::remove_file(layout.ready());
    let log = log(layout);
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let output = fs::File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let mut supervisor = Command::new(start::program()?)
        .args(["up", "--mode", "node", "--dir"])
        .arg(layout.dir())
        .env("SUBSTRATUS_CLUSTERS", &settings.root)
        .env("SUBSTRATUS_TOOLS", &settings.tools)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        // Ctrl-C in the terminal is for the demo, not for the cluster.
        .process_group(0)
        .spawn()
        .context("starting the supervisor of the cluster")?;
    while !layout.ready().is_file() {
        if let Some(status) = supervisor.try_wait().context("watching the supervisor")? {
            bail!("the cluster did not start ({status}):\n{}", process::tail(&log));
        }
        sleep(Duration::from_millis(200));
    }
    screen.step("Kubernetes runs: etcd, API server, controllers, scheduler, kubelet, containerd, DNS, registry");
    Ok(())
}

/// Removes the supervisor's log, which lies beside the cluster's folder because that one is emptied at every start.
pub fn forget(layout: &Layout) -> Result<()> {
    match fs::remove_file(log(layout)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("removing the supervisor's log"),
        _ => Ok(()),
    }
}

/// Whether a supervisor lives. One that was killed holds no lock.
fn is_supervised(layout: &Layout) -> Result<bool> {
    Ok(layout.dir().is_dir() && cleanup::lock(layout)?.is_none())
}

fn log(layout: &Layout) -> PathBuf {
    layout.dir().with_extension("log")
}
