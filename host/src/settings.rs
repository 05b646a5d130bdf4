//! Every setting of the operator, its flag, its environment variable and its default, in one place.
//! Knows nothing of a cluster or a network: it reads what was typed and says what is wrong with it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::kinds::shared::environment::Building;
use crate::plugin::Isolation;
use crate::telemetry::Format;
use crate::worker::allow::HostPattern;

mod building;
mod cloud;

pub use building::{BUILDER_IMAGE, BuildSettings};
pub use cloud::Bucket;

/// Image of Notebooks where nothing is said: the Jupyter project's own, by date, so that it stays what it is.
pub const NOTEBOOK_IMAGE: &str = "quay.io/jupyter/minimal-notebook:2024-05-27";

/// How long publishing may take where nothing is said: 100 GB on a line of a gigabit.
pub const PUBLISH_SECONDS: u32 = 900;

/// What may be typed: flags, or environment variables of the names that the first operator read. An empty variable is an absent one.
#[derive(Args, Clone, Debug)]
pub struct OperatorSettings {
    /// Where the cluster runs: picks the GPU policy that claims it (`local`, `kind`, `gcp`, …)
    #[arg(long, env = "CLOUD", default_value = "local")]
    pub cloud: String,
    /// Name of this cluster: part of every artifact's address, so keep it when a cluster is made anew
    #[arg(long, env = "CLUSTER_NAME", default_value = "substratus")]
    pub cluster_name: String,
    /// Where artifacts go: `tar:///path` (a folder of the node), `gs://bucket`, `s3://bucket`, …
    #[arg(long, env = "ARTIFACT_BUCKET_URL")]
    pub artifact_bucket_url: Option<String>,
    /// Name of the secret, in the namespace of each object, whose keys are the variables that reach the bucket
    /// (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …); where none is named, the cloud's own identity does
    #[arg(long, env = "BUCKET_SECRET")]
    pub bucket_secret: Option<String>,
    /// How pods see what lies in a bucket
    #[arg(long, env = "ARTIFACT_MOUNT", value_enum, default_value_t)]
    pub artifact_mount: ArtifactMount,
    /// Seconds for publishing what a container left in a bucket: the grace period of its pod, also when it is deleted
    #[arg(long, env = "PUBLISH_SECONDS", default_value_t = PUBLISH_SECONDS, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub publish_seconds: u32,
    /// Proxy of workers and of containers that copy, for https hosts; as a variable it is the operator's own towards registries too. Users see it in their pods
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true)]
    pub https_proxy: Option<String>,
    /// The same for http hosts
    #[arg(long, env = "HTTP_PROXY", hide_env_values = true)]
    pub http_proxy: Option<String>,
    /// Hosts, domains and ranges that workers reach without a proxy
    #[arg(long, env = "NO_PROXY")]
    pub no_proxy: Option<String>,
    /// Name of the ConfigMap, in the namespace of each object, whose key `ca.crt` holds certificates that workers trust beside the
    /// system's, as trust-manager writes one to every namespace
    #[arg(long, env = "CA_CONFIG_MAP")]
    pub ca_config_map: Option<String>,
    /// Let a `NetworkPolicy` say what the pods of workers may connect to; `false` where the network plugin or a mesh cannot have it
    #[arg(long, env = "WORKER_NETWORK_POLICY", default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub worker_network_policy: bool,
    /// Where the bucket is reached, for that policy: `https://s3.example.com`, `http://minio.storage.svc:9000`, `https://10.0.0.0/8`.
    /// The operator reads no bucket's secret, so where nothing is said and `BUCKET_SECRET` is, workers may connect to every address
    /// but link-local ones
    #[arg(long, env = "BUCKET_ENDPOINTS", value_delimiter = ',')]
    pub bucket_endpoint: Vec<String>,
    /// Registry and path of built images, such as `registry.example/team`
    #[arg(long, env = "REGISTRY_URL")]
    pub registry_url: Option<String>,
    /// How images are built.
    #[command(flatten)]
    pub build: BuildSettings,
    /// Cloud identity of the service accounts that read and write artifacts: on gcp the address of a service account, on eks the ARN of
    /// a role, on aks the client id of a managed identity
    #[arg(long, env = "PRINCIPAL")]
    pub principal: Option<String>,
    /// Project of the cloud; on gcp the bucket, registry and principal are named after it
    #[arg(long, env = "PROJECT_ID")]
    pub project_id: Option<String>,
    /// Region or zone of the cluster; on gcp the registry is named after it
    #[arg(long, env = "CLUSTER_LOCATION")]
    pub cluster_location: Option<String>,

    /// The operator's own namespace
    #[arg(long, env = "POD_NAMESPACE", default_value = "substratus")]
    pub namespace: String,
    /// The operator's own pod: its identity in leader election
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespaces to look after; all of them where none is named (rights: examples/deploy/overlays/namespaces)
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,
    /// Objects of a kind that are reconciled at the same time
    #[arg(long, env = "CONCURRENCY", default_value_t = 32)]
    pub concurrency: u16,

    /// The image this operator runs from
    #[arg(long, env = "OPERATOR_IMAGE")]
    pub operator_image: Option<String>,
    /// Image of the workers; the operator's own where none is named
    #[arg(long, env = "WORKER_IMAGE")]
    pub worker_image: Option<String>,
    /// Name of the secret, in the namespace of each load, that pulls the workers' image
    #[arg(long, env = "WORKER_PULL_SECRET")]
    pub worker_pull_secret: Option<String>,

    /// Image of Notebooks that name none; `jupyter` must be on its path
    #[arg(long, env = "NOTEBOOK_IMAGE", default_value = NOTEBOOK_IMAGE)]
    pub notebook_image: String,

    /// Folder of the bundled plugins
    #[arg(long, env = "PLUGINS_DIR", default_value = "/plugins")]
    pub plugins_dir: PathBuf,
    /// Folder for pulled plugins and their native code
    #[arg(long, env = "PLUGIN_CACHE_DIR", default_value = "/var/cache/substratus")]
    pub plugin_cache_dir: PathBuf,
    /// Room of that folder in MiB: as much as its volume has. What plugins and what runs need stays, whatever it takes; the rest goes
    /// when four fifths are full, and what nobody used for a week
    #[arg(long, env = "PLUGIN_CACHE_MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub plugin_cache_mib: u32,
    /// Registries (`host[:port]`) that speak plain HTTP
    #[arg(long, env = "INSECURE_REGISTRIES", value_delimiter = ',')]
    pub insecure_registry: Vec<String>,
    /// Where plugins run: `process`, in a child that holds nothing; the socket of a container that runs `substratus sandbox`; or
    /// `none`, in this process beside its token
    #[arg(long, env = "SANDBOX", default_value = "process", value_name = "process|PATH|none")]
    pub sandbox: Isolation,

    /// Where the store for workers listens
    #[arg(long, env = "STORE_BIND_ADDRESS", default_value = ":8090", value_parser = bind_address)]
    pub store_bind_address: SocketAddr,
    /// The store as workers reach it; the Service `substratus-store` where nothing is said
    #[arg(long, env = "STORE_URL")]
    pub store_url: Option<String>,
    /// The store as clients of users reach it that upload sources, by an Ingress or a node's port: `https://substratus.example.com`;
    /// as workers reach it where nothing is said. Only `/uploads/` has to be let through
    #[arg(long, env = "UPLOAD_URL")]
    pub upload_url: Option<String>,
    /// Folder for uploaded sources until they are built [default: `uploads` in the folder of the plugins]
    #[arg(long, env = "UPLOADS_DIR")]
    pub uploads_dir: Option<PathBuf>,
    /// Room of that folder in MiB, and the most that one upload may take; the oldest goes where a new one needs its room
    #[arg(long, env = "UPLOADS_MIB", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..))]
    pub uploads_mib: u32,
    /// Where metrics are served
    #[arg(long, env = "METRICS_BIND_ADDRESS", default_value = ":8080", value_parser = bind_address)]
    pub metrics_bind_address: SocketAddr,
    /// Where probes are answered
    #[arg(long, env = "HEALTH_PROBE_BIND_ADDRESS", default_value = ":8081", value_parser = bind_address)]
    pub health_probe_bind_address: SocketAddr,

    /// Let one of several operators act at a time
    #[arg(long, env = "LEADER_ELECT", default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Name of the Lease in the operator's namespace
    #[arg(long, env = "LEADER_ELECTION_ID", default_value = "substratus")]
    pub leader_election_id: String,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = Format::Json)]
    pub log_format: Format,
    /// What is logged: `info`, `debug`, `substratus=debug,kube=warn`, …
    #[arg(long, env = "LOG_FILTER", default_value = "info")]
    pub log_filter: String,
}

/// How pods see what lies in a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ArtifactMount {
    /// Folders of nodes and claims are mounted, on gcp Google's driver mounts Google's buckets, anything else is copied
    #[default]
    Auto,
    /// What is no folder is copied: in before a container starts, out after it has ended
    Stage,
}

/// Settings that fit together, with every default filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the cluster runs.
    pub cloud: String,
    /// Name of this cluster.
    pub cluster_name: String,
    /// Where artifacts go.
    pub artifact_bucket: Bucket,
    /// Name of the secret with the variables that reach the bucket.
    pub bucket_secret: Option<String>,
    /// How pods see what lies in a bucket.
    pub artifact_mount: ArtifactMount,
    /// Seconds for publishing what a container left.
    pub publish_seconds: u32,
    /// Variables that lead workers through proxies.
    pub proxies: Vec<(String, String)>,
    /// Name of the ConfigMap with certificates that workers trust.
    pub ca_config_map: Option<String>,
    /// A `NetworkPolicy` says what pods of workers may connect to.
    pub worker_network_policy: bool,
    /// Where the bucket is reached, as host patterns.
    pub bucket_endpoints: Vec<String>,
    /// How images are built, and where they go.
    pub building: Building,
    /// Cloud identity of the service accounts that read and write artifacts.
    pub principal: Option<String>,
    /// The operator's own namespace.
    pub namespace: String,
    /// Who this process is in leader election and in Events.
    pub identity: String,
    /// The operator's own pod, where it is one.
    pub pod: Option<String>,
    /// Namespaces to look after, sorted; empty means all.
    pub watch_namespaces: Vec<String>,
    /// Objects of a kind that are reconciled at the same time.
    pub concurrency: u16,
    /// Image of the workers.
    pub worker_image: String,
    /// Name of the secret that pulls the workers' image.
    pub worker_pull_secret: Option<String>,
    /// Image of Notebooks that name none.
    pub notebook_image: String,
    /// Folder of the bundled plugins.
    pub plugins_dir: PathBuf,
    /// Folder for pulled plugins and their native code.
    pub plugin_cache_dir: PathBuf,
    /// Its room in bytes.
    pub plugin_cache_bytes: u64,
    /// Registries (`host[:port]`) that speak plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Where plugins run.
    pub sandbox: Isolation,
    /// Where the store for workers listens.
    pub store_bind_address: SocketAddr,
    /// The store as workers reach it, without a slash at the end.
    pub store_url: String,
    /// The store as clients of users reach it.
    pub upload_url: url::Url,
    /// Folder for uploaded sources.
    pub uploads_dir: PathBuf,
    /// Bytes that it may hold.
    pub uploads_bytes: u64,
    /// Where metrics and probes are served: one address, or two.
    pub admin_bind_addresses: Vec<SocketAddr>,
    /// Name of the Lease, where only one operator may act at a time.
    pub lease: Option<String>,
    /// How log lines look.
    pub log_format: Format,
    /// What is logged.
    pub log_filter: String,
}

/// Settings that do not fit together.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// Nothing was said and nothing can be assumed.
    #[error("setting --{flag} ({env}) is missing: {hint}")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// The environment variable.
        env: &'static str,
        /// What to write.
        hint: &'static str,
    },
    /// The value cannot be used.
    #[error("setting --{flag} has the value '{value}': {reason}")]
    Invalid {
        /// The flag.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl OperatorSettings {
    /// Fills in what follows from the rest and refuses what cannot work.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let cloud = cloud::defaults(&self)?;
        let namespace = label("namespace", self.namespace)?;
        let store_url = store_url(given(self.store_url), &namespace, self.store_bind_address)?;
        let worker_image = given(self.worker_image).or_else(|| given(self.operator_image)).ok_or(SettingsError::Missing {
            flag: "worker-image",
            env: "WORKER_IMAGE",
            hint: "name the image that workers run from, or OPERATOR_IMAGE for the operator's own",
        })?;
        if self.concurrency == 0 {
            return Err(invalid("concurrency", "0", "at least one object must be reconciled at a time"));
        }
        let mut watch_namespaces = Vec::new();
        for name in self.watch_namespace.into_iter().filter(|name| !name.is_empty()) {
            watch_namespaces.push(label("watch-namespace", name)?);
        }
        watch_namespaces.sort();
        watch_namespaces.dedup();
        let mut admin_bind_addresses = vec![self.metrics_bind_address, self.health_probe_bind_address];
        admin_bind_addresses.dedup();
        Ok(Settings {
            cloud: label("cloud", self.cloud)?,
            cluster_name: cluster_name(self.cluster_name)?,
            artifact_bucket: cloud.bucket,
            bucket_secret: given(self.bucket_secret),
            artifact_mount: self.artifact_mount,
            publish_seconds: self.publish_seconds,
            ca_config_map: given(self.ca_config_map),
            proxies: proxies(self.https_proxy, self.http_proxy, self.no_proxy),
            worker_network_policy: self.worker_network_policy,
            bucket_endpoints: endpoints(self.bucket_endpoint)?,
            building: self.build.check(cloud.registry),
            principal: cloud.principal,
            upload_url: upload_url(given(self.upload_url), &store_url)?,
            uploads_dir: self.uploads_dir.unwrap_or_else(|| self.plugin_cache_dir.join("uploads")),
            uploads_bytes: u64::from(self.uploads_mib) << 20,
            store_url,
            identity: given(self.pod_name.clone()).unwrap_or_else(process_identity),
            pod: given(self.pod_name),
            namespace,
            watch_namespaces,
            concurrency: self.concurrency,
            worker_image,
            worker_pull_secret: given(self.worker_pull_secret),
            notebook_image: given(Some(self.notebook_image)).unwrap_or_else(|| NOTEBOOK_IMAGE.to_owned()),
            plugins_dir: self.plugins_dir,
            plugin_cache_dir: self.plugin_cache_dir,
            plugin_cache_bytes: u64::from(self.plugin_cache_mib) << 20,
            insecure_registries: self.insecure_registry.into_iter().filter(|name| !name.is_empty()).collect(),
            sandbox: self.sandbox,
            store_bind_address: self.store_bind_address,
            admin_bind_addresses,
            lease: if self.leader_elect { Some(label("leader-election-id", self.leader_election_id)?) } else { None },
            log_format: self.log_format,
            log_filter: self.log_filter,
        })
    }
}

/// An empty variable, as a ConfigMap may hold it, is an absent one.
fn given(value: Option<String>) -> Option<String> {
    value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn invalid(flag: &'static str, value: impl Into<String>, reason: &'static str) -> SettingsError {
    SettingsError::Invalid { flag, value: value.into(), reason }
}

/// Variables that lead through proxies; exceptions alone lead nowhere.
fn proxies(https: Option<String>, http: Option<String>, except: Option<String>) -> Vec<(String, String)> {
    let named = |name: &str, value: Option<String>| Some((name.to_owned(), given(value)?));
    let mut proxies: Vec<_> = [named("HTTPS_PROXY", https), named("HTTP_PROXY", http)].into_iter().flatten().collect();
    if !proxies.is_empty() {
        proxies.extend(named("NO_PROXY", except));
    }
    proxies
}

/// Host patterns, as grants have them.
fn endpoints(given: Vec<String>) -> Result<Vec<String>, SettingsError> {
    let mut endpoints: Vec<String> = given.into_iter().map(|text| text.trim().to_owned()).collect();
    endpoints.retain(|text| !text.is_empty());
    match endpoints.iter().find(|text| text.parse::<HostPattern>().is_err()) {
        Some(text) => Err(invalid(
            "bucket-endpoint",
            text.clone(),
            "write scheme://host[:port], https://*.example.com or scheme://address/bits[:port]",
        )),
        None => Ok(endpoints),
    }
}

/// A DNS-1123 label.
fn label(flag: &'static str, value: String) -> Result<String, SettingsError> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = !value.starts_with('-') && !value.ends_with('-');
    if (1..=63).contains(&value.len()) && edges && value.bytes().all(inner) {
        return Ok(value);
    }
    Err(invalid(flag, value, "use at most 63 lower-case letters, digits and '-', with no '-' at the ends"))
}

/// The name is hashed into addresses, so anything readable will do; a slash would make two clusters one.
fn cluster_name(value: String) -> Result<String, SettingsError> {
    if value.is_empty() || value.contains(|c: char| c == '/' || c.is_whitespace()) {
        return Err(invalid("cluster-name", value, "name the cluster, without slashes and spaces"));
    }
    Ok(value)
}

fn store_url(given: Option<String>, namespace: &str, bind: SocketAddr) -> Result<String, SettingsError> {
    let Some(text) = given else { return Ok(format!("http://substratus-store.{namespace}.svc:{}", bind.port())) };
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(invalid("store-url", text, "write http://host[:port]")),
    }
}

fn upload_url(given: Option<String>, store: &str) -> Result<url::Url, SettingsError> {
    let text = given.unwrap_or_else(|| store.to_owned());
    match url::Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() => Ok(url),
        _ => Err(invalid("upload-url", text, "write https://host[:port][/path]")),
    }
}

/// `:8080`, `127.0.0.1:8080` or `[::1]:8080`. Without a host it is every address of both families.
fn bind_address(text: &str) -> Result<SocketAddr, String> {
    let parsed = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| "write ':port' or 'address:port'".to_owned())
}

/// Outside a pod two operators may share a machine, so the process is part of the name.
fn process_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests;
