//! Removes all that a cluster leaves on the machine, also one whose supervisor was killed. It must not know how one starts.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;
use super::{cgroup, folders, netns, process, sysctl};

/// Takes the lock of a cluster directory; `None` while another supervisor holds it.
pub fn lock(layout: &Layout) -> Result<Option<File>> {
    let path = layout.lock();
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening the lock {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("locking {}", path.display())),
    }
}

/// Stops the cluster of a directory wherever its supervisor runs, and removes it.
pub fn down(layout: &Layout) -> Result<()> {
    if !layout.dir().exists() {
        return remove(layout);
    }
    let asked = Instant::now();
    let held = loop {
        if let Some(held) = lock(layout)? {
            break held;
        }
        ensure!(asked.elapsed() < Duration::from_mins(1), "the supervisor of {} does not stop", layout.dir().display());
        if let Some(pid) = fs::read_to_string(pid_file(layout)).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?)) {
            // It may end between the two calls; then the lock is free.
            let _ = kill_process(pid, Signal::TERM);
        }
        sleep(Duration::from_millis(200));
        if !layout.dir().exists() {
            return Ok(());
        }
    };
    let removed = remove(layout);
    drop(held);
    removed
}

/// Where the supervisor writes its process id.
pub fn pid_file(layout: &Layout) -> PathBuf {
    layout.dir().join("supervisor.pid")
}

/// Removes what dead supervisors left below `root`.
pub fn sweep(root: &Path) -> Result<()> {
    for dir in list(root).into_iter().filter(|path| path.is_dir()) {
        let layout = Layout::new(dir);
        if let Some(_held) = lock(&layout)? {
            remove(&layout).with_context(|| format!("removing the remains in {}", layout.dir().display()))?;
        }
    }
    Ok(())
}

/// Removes everything of a cluster that no supervisor runs, its directory included.
pub fn remove(layout: &Layout) -> Result<()> {
    stop(layout)?;
    match fs::remove_dir_all(layout.dir()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", layout.dir().display()))
        }
        _ => Ok(()),
    }
}

/// Ends containers, unmounts, and removes cgroups and namespace: all but the directory itself.
pub fn stop(layout: &Layout) -> Result<()> {
    sysctl::restore(layout)?;
    let strays = strays(layout);
    kill_shims(layout)?;
    cgroup::remove(&layout.name())?;
    unmount(layout.dir())?;
    netns::delete(&layout.name())?;
    // Whoever looks for a running cluster must not find this one.
    let _ = fs::remove_file(layout.ready());
    for path in strays {
        // Already gone is what we want.
        let _ = fs::remove_file(path);
    }
    folders::restore(layout)
}

/// Shims outlive containerd by design and keep mounts busy.
fn kill_shims(layout: &Layout) -> Result<()> {
    for (pid, words) in process::all()? {
        let shim = words.first().is_some_and(|program| program.ends_with("containerd-shim-runc-v2"));
        let ours = words.iter().any(|word| word.starts_with(layout.dir()));
        if let Some(pid) = Pid::from_raw(pid).filter(|_| shim && ours) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

/// Unmounts everything below a folder, the deepest first; processes that just died may hold a mount for a moment.
fn unmount(folder: &Path) -> Result<()> {
    let mut last = String::new();
    for _ in 0..50 {
        let mut mounts = mounts_below(folder)?;
        if mounts.is_empty() {
            return Ok(());
        }
        mounts.sort();
        let output = Command::new("umount").args(mounts.iter().rev()).output().context("running `umount`")?;
        last = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            sleep(Duration::from_millis(100));
        }
    }
    bail!("cannot unmount all below {}: {}", folder.display(), last.trim())
}

fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    // The kernel writes a space as \040; our own paths have none, volume names of pods cannot.
    Ok(points.map(PathBuf::from).filter(|point| point.starts_with(folder)).collect())
}

/// What containerd and the kubelet put where every cluster puts it: sockets of shims, results of network set-up, links to logs.
/// To be asked while containerd's state still says which containers there were.
fn strays(layout: &Layout) -> Vec<PathBuf> {
    let bundles = layout.state("containerd").join("state/io.containerd.runtime.v2.task/k8s.io");
    let bundles = list(&bundles);
    let sockets = bundles
        .iter()
        .filter_map(|bundle| fs::read_to_string(bundle.join("address")).ok())
        .filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?)));
    let ours: Vec<String> = bundles
        .iter()
        .chain([&PathBuf::from(layout.name())])
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let results = list(Path::new("/var/lib/cni/results")).into_iter().filter(|result| {
        let name = result.to_string_lossy();
        ours.iter().any(|own| name.contains(own))
    });
    let links = list(Path::new("/var/log/containers"))
        .into_iter()
        .filter(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(layout.dir())));
    sockets.chain(results).chain(links).collect()
}

/// What is in a folder; nothing if there is none.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
