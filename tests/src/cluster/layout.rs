//! Names, paths and addresses of one test cluster, all derived from its directory. It does no I/O.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The node's address, on `lo`: the kubelet refuses a loopback one.
pub const NODE_ADDRESS: &str = "10.250.0.1";
/// The node's name.
pub const NODE_NAME: &str = "substratus";
/// Where Services get their addresses from.
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
/// The address of `kubernetes.default.svc`.
pub const FIRST_SERVICE: &str = "10.96.0.1";
/// Where pods get their addresses from.
pub const POD_RANGE: &str = "10.244.0.0/24";
/// The plain-HTTP registry that answers for every public registry.
pub const REGISTRY: &str = "10.250.0.1:5000";
/// The API server.
pub const API_SERVER: &str = "https://10.250.0.1:6443";
/// Issuer and default audience of service account tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// How much of a cluster to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// etcd and the API server: nothing acts on objects but the test
    Api,
    /// And the controllers (Jobs, Deployments, garbage collection, …) and the scheduler, without a node
    Control,
    /// And a node that runs pods, with DNS and a registry (needs root)
    Node,
}

/// The directory of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// `dir` must be absolute; the names below depend on its spelling.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of the network namespace, the cgroup and the pod network; eight digits keep it unique on the machine.
    pub fn name(&self) -> String {
        let hash = Sha256::digest(self.dir.as_os_str().as_encoded_bytes());
        let digits = hex::encode(hash);
        format!("substratus-{}", digits.get(..8).unwrap_or(&digits))
    }

    /// The file that stands for the network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(self.name())
    }

    /// Held by the supervisor as long as it lives.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("supervisor.lock")
    }

    /// Written once the cluster is healthy.
    pub fn ready(&self) -> PathBuf {
        self.dir.join("ready.json")
    }

    /// Written by whoever wants a component to be started anew: its name. The supervisor removes it when that is done.
    pub fn restart(&self) -> PathBuf {
        self.state("restart")
    }

    /// The log of one component.
    pub fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    /// The folder of logs, kept when a start fails.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// A certificate, key or other file below `pki`.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }

    /// A generated configuration file.
    pub fn config(&self, file: &str) -> PathBuf {
        self.dir.join("config").join(file)
    }

    /// The kubeconfig of one user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.config(&format!("{user}.kubeconfig"))
    }

    /// The folder that a component may write to.
    pub fn state(&self, component: &str) -> PathBuf {
        self.dir.join("state").join(component)
    }
}
