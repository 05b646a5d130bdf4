//! What pure code knows of the place it works for: names and addresses, no client.

use std::str::FromStr;

use crate::bucket::BucketUrl;

/// Settings that decide what children look like.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The `CLOUD` setting: `local`, `kind`, `gcp`, …
    pub cloud: String,
    /// The `CLUSTER_NAME` setting; part of every artifact URL.
    pub cluster: String,
    /// The artifact bucket.
    pub bucket: BucketUrl,
    /// Image of the worker: the operator's own.
    pub worker_image: String,
    /// Secret to pull that image with.
    pub worker_pull_secret: Option<String>,
    /// Secret of the object's namespace with the variables that reach the bucket.
    pub bucket_secret: Option<String>,
    /// Pods get copies also where a driver could mount the bucket.
    pub copies_always: bool,
    /// Seconds that a pod which is to end has for publishing what its container left.
    pub publish_seconds: u32,
    /// Registries (`host[:port]`) that speak plain HTTP.
    pub plain_http: Vec<String>,
    /// Variables that lead workers through the administrator's proxies.
    pub proxies: Vec<(String, String)>,
    /// ConfigMap of the object's namespace with certificates that workers trust beside the system's.
    pub certificates: Option<String>,
    /// Where workers fetch plugins and report progress.
    pub store_url: String,
    /// The port that the store itself listens on, behind whatever `store_url` names.
    pub store_port: u16,
    /// A `NetworkPolicy` says what pods of workers may connect to.
    pub confines_workers: bool,
    /// Where the bucket is reached, as host patterns; empty where nobody said so.
    pub bucket_endpoints: Vec<String>,
    /// Image of Notebooks that name none.
    pub notebook_image: String,
    /// Annotation value for workload identity, where the cloud has it.
    pub principal: Option<String>,
    /// How images are built.
    pub building: Building,
}

/// How images are built, and where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Building {
    /// Registry and path of built images, without a slash at the end; nothing is built where there is none.
    pub registry: Option<String>,
    /// Image of the builder.
    pub image: String,
    /// Image that clones repositories.
    pub git_image: String,
    /// More arguments of the builder's daemon.
    pub daemon_args: Vec<String>,
    /// More arguments of a build.
    pub args: Vec<String>,
    /// Secret of the object's namespace that pushes.
    pub push_secret: Option<String>,
    /// Secret of the object's namespace that pulls what was pushed.
    pub pull_secret: Option<String>,
    /// Seccomp profile of the builder; the node's default where there is none.
    pub seccomp: Option<Profile>,
    /// `AppArmor` profile of the builder; the node's default where there is none.
    pub apparmor: Option<Profile>,
}

/// A profile that confines a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The node's default: nothing is said.
    Node,
    /// No confinement of this sort.
    Unconfined,
    /// A profile that the nodes have, by its name.
    Localhost(String),
}

impl Profile {
    /// As Kubernetes spells it: type and name.
    pub fn spelled(&self) -> Option<(&'static str, Option<&str>)> {
        match self {
            Self::Node => None,
            Self::Unconfined => Some(("Unconfined", None)),
            Self::Localhost(name) => Some(("Localhost", Some(name))),
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None if text.is_empty() => Ok(Self::Node),
            None if text.eq_ignore_ascii_case("unconfined") => Ok(Self::Unconfined),
            Some((kind, name)) if kind.eq_ignore_ascii_case("localhost") && !name.is_empty() => {
                Ok(Self::Localhost(name.to_owned()))
            }
            _ => Err("write `Unconfined` or `Localhost/NAME`".to_owned()),
        }
    }
}

impl Environment {
    /// Where the artifacts of an object lie; `kind` in lower case.
    pub fn place(&self, namespace: &str, kind: &str, name: &str) -> BucketUrl {
        self.bucket.join(&crate::bucket::artifact_hash(&self.cluster, namespace, kind, name))
    }

    /// Google's clusters bring a driver that mounts Google's buckets.
    pub fn has_driver(&self) -> bool {
        self.is_google() && !self.copies_always
    }

    /// Google's cloud.
    pub fn is_google(&self) -> bool {
        matches!(self.cloud.as_str(), "gcp" | "gke")
    }

    /// A machine of one's own: nothing is reserved by default, and GPU types are free text.
    pub fn is_local(&self) -> bool {
        matches!(self.cloud.as_str(), "local" | "kind" | "")
    }
}

/// A place for unit tests.
#[cfg(test)]
pub(crate) fn of(cloud: &str) -> Environment {
    Environment {
        cloud: cloud.to_owned(),
        cluster: "c".to_owned(),
        bucket: "tar:///bucket".parse().unwrap(),
        worker_image: "operator".to_owned(),
        worker_pull_secret: None,
        bucket_secret: None,
        copies_always: false,
        publish_seconds: 900,
        plain_http: Vec::new(),
        proxies: Vec::new(),
        certificates: None,
        store_url: "http://substratus-store.substratus.svc:8090".to_owned(),
        store_port: 8090,
        confines_workers: true,
        bucket_endpoints: Vec::new(),
        notebook_image: "lab".to_owned(),
        principal: None,
        building: Building::default(),
    }
}
