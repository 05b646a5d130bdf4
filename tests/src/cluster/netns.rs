//! One network namespace per cluster, so that fixed addresses never clash. It must not know what runs inside.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::layout::{NODE_ADDRESS, SERVICE_RANGE};

/// Makes the namespace `name`, with the node's address and a route for Services.
pub fn create(name: &str) -> Result<()> {
    let node = format!("{NODE_ADDRESS}/32");
    ip(&["netns", "add", name])?;
    ip(&["-n", name, "link", "set", "lo", "up"])?;
    ip(&["-n", name, "address", "add", &node, "dev", "lo"])?;
    // Without it the node's own processes have no route to Service addresses and kube-proxy never sees their packets.
    ip(&["-n", name, "route", "add", SERVICE_RANGE, "dev", "lo", "src", NODE_ADDRESS])
}

/// Removes the namespace if it exists; its interfaces, routes and packet filters go with it.
pub fn delete(name: &str) -> Result<()> {
    if Path::new("/run/netns").join(name).exists() {
        ip(&["netns", "delete", name])?;
    }
    Ok(())
}

/// Moves the calling thread, and all that it starts from now on, into the namespace at `path`. Only the network changes:
/// mounts stay shared, so that the kubelet's are visible to containerd.
pub fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("opening the network namespace {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("entering the network namespace {}; this needs root", path.display()))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running `ip`; it is in the package iproute2")?;
    ensure!(output.status.success(), "`ip {}` failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
