//! The configuration files of a node's programs. It must not know in which order those start.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::layout::{Layout, NODE_ADDRESS, POD_RANGE, REGISTRY};

/// What every pod's first container runs; the name is pulled like any other, from the local registry.
pub(super) const PAUSE_REPOSITORY: &str = "substratus/pause";
/// Where CoreDNS says that it has read the cluster's Services.
pub(super) const DNS_READY: &str = "10.250.0.1:8181";

/// Writes all configuration files of the node.
pub fn write(layout: &Layout) -> Result<()> {
    let files = [
        ("containerd.toml", containerd_toml(layout)),
        ("cni/10-substratus.conflist", format!("{:#}", pod_network(layout))),
        ("registries/_default/hosts.toml", registries()),
        ("kubelet.json", format!("{:#}", kubelet_configuration(layout))),
        ("proxy.json", format!("{:#}", proxy_configuration(layout))),
        ("Corefile", corefile(layout)),
        ("resolv.conf", format!("nameserver {NODE_ADDRESS}\n")),
        ("registry.json", format!("{:#}", registry_configuration(layout))),
    ];
    for (name, text) in files {
        let path = layout.config(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    // The plugin folder is one the kubelet would otherwise make below /usr.
    fs::create_dir_all(layout.state("volume-plugins")).context("making the folder of volume plugins")
}

fn containerd_toml(layout: &Layout) -> String {
    let state = |folder: &str| layout.state("containerd").join(folder).display().to_string();
    let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
    format!(
        r#"version = 2
root = "{root}"
state = "{run}"
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
[{cri}]
sandbox_image = "{REGISTRY}/{PAUSE_REPOSITORY}:1"
# Without CAP_SYS_RESOURCE the runtime otherwise dies at every start of a container.
restrict_oom_score_adj = true
disable_hugetlb_controller = true
netns_mounts_under_state_dir = true
[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{runc}"
[{cri}.cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
[{cri}.registry]
config_path = "{registries}"
"#,
        root = state("root"),
        run = state("state"),
        socket = containerd_socket(layout),
        opt = state("opt"),
        runc = state("runc"),
        cni = layout.config("cni").display(),
        registries = layout.config("registries").display(),
    )
}

/// Every registry's images come from the local one: `ghcr.io/org/image:tag` is what was pushed as `org/image:tag`.
fn registries() -> String {
    format!("server = \"http://{REGISTRY}\"\n[host.\"http://{REGISTRY}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
}

/// Where the container runtime answers.
pub fn containerd_socket(layout: &Layout) -> String {
    layout.state("containerd").join("containerd.sock").display().to_string()
}

fn pod_network(layout: &Layout) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": layout.name(),
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": layout.state("addresses"),
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn kubelet_configuration(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.pki("kubelet-server.crt"),
        "tlsPrivateKeyFile": layout.pki("kubelet-server.key"),
        "containerRuntimeEndpoint": format!("unix://{}", containerd_socket(layout)),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.name()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": layout.config("resolv.conf"),
        "podLogsDir": layout.state("pod-logs"),
        "volumePluginDir": layout.state("volume-plugins"),
        "serializeImagePulls": false,
        // The machine's own disk may be nearly full; that is no reason to evict or to collect images here.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}

fn proxy_configuration(layout: &Layout) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": layout.kubeconfig("proxy")},
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "oomScoreAdj": 0,
        // Zero leaves the machine's connection tracking settings alone.
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
}

fn corefile(layout: &Layout) -> String {
    format!(
        ".:53 {{\n  bind {NODE_ADDRESS}\n  errors\n  ready {DNS_READY}\n  \
         kubernetes cluster.local in-addr.arpa ip6.arpa {{\n    kubeconfig {}\n    pods insecure\n    ttl 5\n  }}\n}}\n",
        layout.kubeconfig("admin").display()
    )
}

fn registry_configuration(layout: &Layout) -> Value {
    json!({
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": layout.state("registry")},
            "delete": {"enabled": true},
        },
        "http": {"addr": REGISTRY},
    })
}
