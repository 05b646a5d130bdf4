//! The folders that a node's programs make where every node has them, removed afterwards if they were not there before.
//! Nothing that holds anything is removed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layout::Layout;

/// Made by containerd, the kubelet, the network plugins and `ip netns`; a folder before what is in it.
const MADE: [&str; 10] = [
    "/run/containerd",
    "/run/containerd/s",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/cni/results",
    "/var/lib/kubelet",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet/plugins",
    "/var/lib/kubelet/plugins_registry",
    "/var/log/containers",
];
/// A kubelet leaves its socket behind.
const SOCKET: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";

/// Writes down which folders a node is about to make. With several clusters the first knows them all.
pub fn remember(layout: &Layout) -> Result<()> {
    let absent: Vec<&str> = MADE.into_iter().filter(|folder| !Path::new(folder).exists()).collect();
    fs::write(file(layout), serde_json::to_vec(&absent)?).context("writing down which folders there are")
}

/// Removes those that were written down and are empty again, and the socket of a kubelet that is gone.
pub fn restore(layout: &Layout) -> Result<()> {
    let Ok(text) = fs::read(file(layout)) else {
        return Ok(());
    };
    let absent: Vec<String> = serde_json::from_slice(&text).context("reading which folders there were")?;
    if UnixStream::connect(SOCKET).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
        // Another cleanup may have been faster.
        let _ = fs::remove_file(SOCKET);
    }
    for folder in MADE.iter().rev().filter(|folder| absent.iter().any(|name| name == *folder)) {
        // One that somebody uses meanwhile is not empty, and stays.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

fn file(layout: &Layout) -> PathBuf {
    layout.config("folders.json")
}
