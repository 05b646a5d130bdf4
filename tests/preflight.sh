#!/bin/sh
# Says in two seconds where the demo or the tests would run, what that changes on this machine, and what is missing. It
# changes nothing, and needs nothing that a fresh machine may lack.
#
#   tests/preflight.sh mode              # prints own, current, kind or none
#   tests/preflight.sh demo|test|soak    # the page; fails if something is missing that nobody here can install
#
# CLUSTER is own, current, kind, or empty for what fits this machine. PACKAGES are the Debian packages that will be needed.
set -eu

task=${1:?usage: tests/preflight.sh mode|demo|test|soak}
tools=${TOOLS:-$HOME/.cache/substratus/tools}
clusters=${SUBSTRATUS_CLUSTERS:-/tmp/substratus-clusters}

has() { command -v "$1" >/dev/null 2>&1 || [ -x "$HOME/.cargo/bin/$1" ] || [ -x "$tools/$1" ]; }

case ${CLUSTER:-} in
    own | current | kind) mode=$CLUSTER ;;
    '')
        if [ "$(id -u)" = 0 ]; then mode=own; elif has kind; then mode=kind; else mode=none; fi
        ;;
    *)
        echo "CLUSTER=$CLUSTER is nothing known: own (a Kubernetes on this machine, needs root), current (the cluster of your kubeconfig) or kind" >&2
        exit 2
        ;;
esac
if [ "$task" = mode ]; then
    echo "$mode"
    exit
fi

if [ "$mode" = none ]; then
    cat >&2 <<'END'
This machine can start no Kubernetes: you are not root, and there is no `kind` on PATH. Do one of these:
  - run it as root: it starts a Kubernetes in a network namespace of its own, and removes it afterwards
  - use a cluster that you have: CLUSTER=current REGISTRY=host/path (KUBECONFIG as for kubectl; REGISTRY is where images go)
  - get kind, which needs Docker or Podman: https://kind.sigs.k8s.io
END
    exit 1
fi
if [ "$task" = soak ] && [ "$mode" != own ]; then
    echo "make soak kills things, which is for a cluster of this machine's own only; run it as root, without CLUSTER=" >&2
    exit 1
fi

missing=
lack() { missing="$missing
  - $1"; }

has cargo || lack "cargo: https://rustup.rs"
has rustup || lack "rustup, for the targets that Rust compiles to: https://rustup.rs"
install=
if command -v dpkg >/dev/null 2>&1; then
    for package in ${PACKAGES:-}; do
        dpkg -s "$package" >/dev/null 2>&1 || install="$install $package"
    done
    if [ -n "$install" ] && [ "$(id -u)" != 0 ]; then
        lack "packages: sudo apt-get install --no-install-recommends$install"
    fi
else
    for program in musl-gcc strip python3 busybox; do
        has "$program" || lack "$program: your system's package of that name (musl-gcc: musl-tools, strip: binutils)"
    done
fi
case $mode in
    own)
        [ "$(id -u)" = 0 ] || lack "root: a network namespace and pods need it; CLUSTER=current or kind do not"
        [ -x "$tools/kubelet" ] || has go || lack "go, which builds Kubernetes once: https://go.dev/dl"
        [ -w /sys/fs/cgroup/cgroup.procs ] || [ -w /sys/fs/cgroup/memory/cgroup.procs ] ||
            lack "writable cgroups below /sys/fs/cgroup: a container needs --privileged and its own cgroups"
        ;;
    current)
        has kubectl || lack "kubectl: https://kubernetes.io/docs/tasks/tools"
        [ -n "${REGISTRY:-}" ] || lack "REGISTRY=host[:port]/path: a registry that you may push to and the cluster can pull from"
        ;;
    kind)
        has kind || lack "kind: https://kind.sigs.k8s.io"
        has kubectl || lack "kubectl: https://kubernetes.io/docs/tasks/tools"
        ;;
esac

case $mode in
    own) echo "mode: own, a Kubernetes that this machine starts, in a network namespace" ;;
    current) echo "mode: current, the cluster of your kubeconfig" ;;
    kind) echo "mode: kind, a cluster in containers (this mode was never tried against a real kind)" ;;
esac
echo "what stays on this machine:"
echo "  - packages: ${install:-all that is needed is installed}"
echo "  - builds, below target/ (5 GB), the caches of cargo and Go, and $(dirname "$tools") (2 GB)"
free=$(df -Pm . | awk 'NR == 2 {printf "%d", $4 / 1024}')
echo "  - disk: $free GB are free here"
[ "$free" -ge 12 ] || [ -d target/x86_64-unknown-linux-musl ] || lack "disk: 12 GB for a first build"
case $mode in
    own)
        cat <<END
what is used while it runs, and taken back at its end (demo: by make demo-down):
  - $clusters with mounts, one network namespace with addresses and iptables of its own, one cgroup
  - 1 GB of memory; kernel settings that every kubelet changes (vm.overcommit_memory, kernel.panic, ...)
END
        ;;
    current)
        echo "what it makes on the cluster is listed once it is known which one that is, before anything is changed"
        ;;
    kind)
        echo "what is used until make demo-down: one container that is a node, with 1 GB of memory"
        ;;
esac
if [ "$task" = test ] && [ "$mode" != own ]; then
    cat <<'END'
what is skipped: all that needs a cluster of this machine's own (it::badinput, it::cluster, it::e2e, it::engine,
  it::kubectl_explain, it::manners, it::operator), and with it every fault; soak is refused
END
fi
if [ -n "$missing" ]; then
    echo "missing:$missing" >&2
    exit 1
fi
