//! A cgroup of our own above all pods, so that two kubelets never collect each other's. Both cgroup versions.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Makes the cgroup `name` in every hierarchy; the kubelet wants it to exist.
pub fn create(name: &str) -> Result<()> {
    for root in hierarchies()? {
        delegate(&root);
        let path = root.join(name);
        fs::create_dir_all(&path).with_context(|| format!("making the cgroup {}", path.display()))?;
        // Version 1 starts a cpuset empty, and a group without CPUs takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read(root.join(file)) {
                fs::write(path.join(file), value).with_context(|| format!("writing {file} of the cgroup {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Kills everything in the cgroup `name` of every hierarchy and removes it.
pub fn remove(name: &str) -> Result<()> {
    for root in hierarchies()? {
        let path = root.join(name);
        for _ in 0..50 {
            if !path.exists() {
                break;
            }
            kill_below(&path);
            remove_below(&path);
            sleep(Duration::from_millis(20));
        }
        anyhow::ensure!(!path.exists(), "the cgroup {} stays busy", path.display());
    }
    Ok(())
}

/// The mount points of all cgroup hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mount table")?;
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter_map(|words| match words.as_slice() {
            [_, path, "cgroup" | "cgroup2", ..] => Some(PathBuf::from(path)),
            _ => None,
        })
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// Version 2 hands controllers down only where the parent says so. A controller that refuses is one the kubelet will name.
fn delegate(root: &Path) {
    for controller in fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default().split_whitespace() {
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn kill_below(path: &Path) {
    for group in below(path) {
        let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn remove_below(path: &Path) {
    let mut groups = below(path);
    groups.sort();
    for group in groups.iter().rev() {
        // Busy until the kernel has reaped the last member; the caller tries again.
        let _ = fs::remove_dir(group);
    }
}

fn below(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
    }
    found
}
