//! Says in a second whether a machine can run a test cluster, how to enable it, and what a run changes. It changes nothing.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::Path;

use anyhow::{Result, bail};

use super::layout::Mode;
use super::settings::Settings;

/// Programs of Debian packages: program, package, only for a node.
const PACKAGES: [(&str, &str, bool); 12] = [
    ("ip", "iproute2", false),
    ("nsenter", "util-linux", false),
    ("setpriv", "util-linux", false),
    ("umount", "mount", true),
    ("containerd", "containerd", true),
    ("containerd-shim-runc-v2", "containerd", true),
    ("runc", "runc", true),
    ("iptables", "iptables", true),
    ("conntrack", "conntrack", true),
    ("busybox", "busybox-static", true),
    ("docker-registry", "docker-registry", true),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", true),
];

/// Programs that `build-tools.sh` makes: program, the least mode that needs it.
const TOOLS: [(&str, Mode); 7] = [
    ("etcd", Mode::Api),
    ("kube-apiserver", Mode::Api),
    ("kube-controller-manager", Mode::Control),
    ("kube-scheduler", Mode::Control),
    ("kubelet", Mode::Node),
    ("kube-proxy", Mode::Node),
    ("coredns", Mode::Node),
];

/// What keeps this machine from running a cluster of `mode`, each with a way out; empty when nothing does.
pub fn missing(settings: &Settings, mode: Mode) -> Vec<String> {
    let mut problems = Vec::new();
    let node = mode == Mode::Node;
    if !rustix::process::geteuid().is_root() {
        problems.push(
            "not root: network namespaces and pods need it; run it as root, or let `CLUSTER=current` use the cluster of your \
             kubeconfig (`kind create cluster` makes one where there is a container engine)"
                .to_owned(),
        );
    }
    let mut packages: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _, for_node)| (node || !for_node) && settings.find(program).is_none())
        .map(|(_, package, _)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        problems.push(format!("missing programs: apt-get install --no-install-recommends {}", packages.join(" ")));
    }
    let tools: Vec<&str> = TOOLS
        .iter()
        .filter(|(program, least)| *least as u8 <= mode as u8 && settings.find(program).is_none())
        .map(|(program, _)| *program)
        .collect();
    if !tools.is_empty() {
        problems.push(format!("missing {}: tests/cluster/build-tools.sh {}", tools.join(", "), settings.tools.display()));
    }
    if node && !cgroups_writable() {
        problems.push("no writable cgroups below /sys/fs/cgroup: a container needs --privileged and its own cgroups".to_owned());
    }
    problems
}

/// Fails with all that is missing.
pub fn require(settings: &Settings, mode: Mode) -> Result<()> {
    let problems = missing(settings, mode);
    if !problems.is_empty() {
        bail!("this machine cannot run the test cluster\n  - {}", problems.join("\n  - "));
    }
    Ok(())
}

/// A page for people: what works here, and what a run will touch.
pub fn report(settings: &Settings) -> String {
    let mut page = String::new();
    let mut problems = Vec::new();
    for mode in [Mode::Api, Mode::Control, Mode::Node] {
        problems = missing(settings, mode);
        let verdict = if problems.is_empty() { "ready" } else { "not possible" };
        // Writing to a String cannot fail.
        let _ = writeln!(page, "{}: {verdict}", format!("{mode:?}").to_lowercase());
    }
    for problem in problems {
        let _ = writeln!(page, "  - {problem}");
    }
    let _ = write!(
        page,
        "a run uses, and removes at its end:
  - state below {root}/<id> (or --dir), mounts included
  - the network namespace substratus-<id> in /run/netns; the machine's own addresses and packet filters stay untouched
  - the cgroup substratus-<id> in every hierarchy
  - kernel settings that a kubelet changes (vm.overcommit_memory, kernel.panic, …), put back at the end
  - empty folders that a node makes: below /var/lib/kubelet, /var/lib/cni, /var/log/containers, /run/containerd
",
        root = settings.root.display()
    );
    page
}

fn cgroups_writable() -> bool {
    ["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"]
        .iter()
        .any(|file| OpenOptions::new().append(true).open(Path::new(file)).is_ok())
}
