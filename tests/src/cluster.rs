//! A real single-node Kubernetes in a network namespace of its own. It must not know the operator that runs against it.
//!
//! A test asks for [`Cluster::node`] (or [`Cluster::control`], [`Cluster::api`]) and gets one that all tests of its binary
//! share. The cluster lives in another process, `substratus-cluster`, which ends it when a pipe from this process closes:
//! whatever happens to a test leaves nothing behind.
//!
//! | question | answer |
//! |---|---|
//! | In which order does it start? | [`supervisor`] |
//! | With which flags? | [`control`], [`node`], [`configuration`] |
//! | What is removed afterwards? | [`cleanup`] |
//! | What does a machine need? | [`preflight`] |
//! | What of a cluster that somebody else runs? | [`theirs`] |

pub mod cgroup;
pub mod cleanup;
pub mod configuration;
pub mod control;
pub mod folders;
pub mod layout;
pub mod leftovers;
pub mod netns;
pub mod node;
pub mod pki;
pub mod preflight;
pub mod process;
pub mod settings;
pub mod start;
pub mod supervisor;
pub mod sysctl;
pub mod theirs;
pub mod wait;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::{Namespace, Node, ServiceAccount};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Runtime;

use layout::Layout;
pub use layout::Mode;
use settings::Settings;
pub use wait::eventually;

/// What a supervisor tells once its cluster is healthy, also in `ready.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// How much of a cluster it is.
    pub mode: Mode,
    /// The cluster's directory.
    pub dir: PathBuf,
    /// The file that stands for its network namespace, outside of which none of its addresses exist; none for a cluster that
    /// somebody else runs.
    pub netns: Option<PathBuf>,
    /// An administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The address of the node (and of anything that a test serves to pods); our own node's only.
    pub node_address: Option<String>,
    /// `host:port` of the plain-HTTP registry from which every image comes; our own node's only.
    pub registry: Option<String>,
}

/// A running cluster, as its users see it.
#[derive(Debug)]
pub struct Cluster {
    ready: Ready,
    runtime: Runtime,
    client: ClientSlot,
    settings: Settings,
    supervisor: Option<Child>,
}

/// `Client` has no `Debug`.
struct ClientSlot(Client);

impl std::fmt::Debug for ClientSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Cluster {
    /// This process's API server without controllers; the first caller starts it.
    pub fn api() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        shared(&SHARED, Mode::Api)
    }

    /// This process's control plane without a node; the first caller starts it.
    pub fn control() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        shared(&SHARED, Mode::Control)
    }

    /// This process's cluster that runs pods; the first caller starts it, or attaches to `$SUBSTRATUS_CLUSTER_DIR`.
    pub fn node() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        shared(&SHARED, Mode::Node)
    }

    /// Starts a cluster that ends with the returned value or with this process.
    pub fn start(mode: Mode) -> Result<Self> {
        let (ready, process) = start::supervisor(mode)?;
        Self::open(ready, Some(process))
    }

    /// Uses the cluster that runs in `dir`, and leaves it running.
    pub fn attach(dir: &Path) -> Result<Self> {
        let path = dir.join("ready.json");
        let text = fs::read(&path)
            .with_context(|| format!("reading {}; is `substratus-cluster up --dir` running there?", path.display()))?;
        Self::open(serde_json::from_slice(&text).context("reading ready.json")?, None)
    }

    fn open(ready: Ready, supervisor: Option<Child>) -> Result<Self> {
        // Threads are born into the namespace of their parent: all of the runtime's live in the cluster's.
        let opened = thread::scope(|scope| {
            let make = || -> Result<(Runtime, Client)> {
                enter(&ready)?;
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                let client = runtime.block_on(client(&ready.kubeconfig, ready.netns.is_some()))?;
                Ok((runtime, client))
            };
            scope.spawn(make).join().map_err(|_| anyhow!("the thread that opens the cluster panicked"))
        });
        let (runtime, client) = opened??;
        let settings = Settings::from_environment()?;
        Ok(Self { ready, runtime, client: ClientSlot(client), settings, supervisor })
    }

    /// Addresses and paths.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// An administrator's client, for use inside [`Cluster::block_on`].
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// The administrator's kubeconfig, for `kubectl` and for an operator process.
    pub fn kubeconfig(&self) -> &Path {
        &self.ready.kubeconfig
    }

    /// `host:port` of the registry.
    pub fn registry(&self) -> Result<&str> {
        self.ready.registry.as_deref().context("this cluster has no registry; start it in node mode")
    }

    /// The address of our own node.
    pub fn node_address(&self) -> Result<&str> {
        self.ready.node_address.as_deref().context("this cluster's node is not on this machine")
    }

    /// Moves the calling thread, and all that it starts from now on, into the cluster's network if it has one of its own.
    pub fn enter(&self) -> Result<()> {
        enter(&self.ready)
    }

    /// Runs a future with the cluster's network around it. The calling thread enters it for good.
    pub fn block_on<T>(&self, future: impl Future<Output = Result<T>>) -> Result<T> {
        self.enter()?;
        self.runtime.block_on(future)
    }

    /// Where a program of the cluster lies, for what runs it by itself.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        self.settings.require(name)
    }

    /// A command that will run in the cluster's network as its administrator, whichever thread starts it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        let found = program.to_str().and_then(|name| self.settings.find(name));
        let program = found.as_deref().map_or(program, Path::as_os_str);
        let mut command = match &self.ready.netns {
            Some(netns) => {
                let mut inside = Command::new("nsenter");
                // A proxy of the machine is not reachable from inside.
                inside.arg(format!("--net={}", netns.display())).arg("--").arg(program).env("NO_PROXY", "*");
                inside
            }
            None => Command::new(program),
        };
        command.env("KUBECONFIG", &self.ready.kubeconfig);
        command
    }

    /// A namespace of a test's own, ready for pods; the name is `prefix` and random letters. It says whose it is, for
    /// [`leftovers::sweep`].
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let metadata =
            ObjectMeta { generate_name: Some(format!("{prefix}-")), labels: Some(leftovers::mark()), ..ObjectMeta::default() };
        let wanted = Namespace { metadata, ..Namespace::default() };
        let made = Api::all(self.client()).create(&PostParams::default(), &wanted).await;
        let name = made.context("creating a namespace")?.metadata.name.context("a namespace without a name")?;
        if self.ready.mode != Mode::Api {
            eventually("service account of a namespace", Duration::from_mins(1), async || {
                service_account(&self.client(), &name).await
            })
            .await?;
        }
        Ok(name)
    }

    /// Kills one of the cluster's own programs (`kube-apiserver`, `containerd`, …), and returns when it runs again and answers.
    /// Everybody on the cluster feels it.
    pub async fn restart(&self, program: &str) -> Result<()> {
        let wish = Layout::new(&self.ready.dir).restart();
        // The supervisor must not read half of a name.
        let draft = wish.with_extension("draft");
        fs::write(&draft, program).and_then(|()| fs::rename(&draft, &wish)).context("asking the supervisor for a restart")?;
        eventually(&format!("restart of {program}"), Duration::from_mins(2), async || Ok((!wish.exists()).then_some(()))).await
    }

    /// Lets the node offer GPUs it does not have, and wear a cloud's labels: pods that ask for them are scheduled and run.
    pub async fn advertise_gpus(&self, count: u32, labels: &[(&str, &str)]) -> Result<()> {
        let nodes = Api::<Node>::all(self.client());
        let gpus = json!({"nvidia.com/gpu": count.to_string()});
        let status = json!({"status": {"capacity": gpus, "allocatable": gpus}});
        let parameters = PatchParams::default();
        nodes.patch_status(layout::NODE_NAME, &parameters, &Patch::Merge(status)).await.context("advertising GPUs")?;
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let labels = json!({"metadata": {"labels": labels}});
        nodes.patch(layout::NODE_NAME, &parameters, &Patch::Merge(labels)).await.context("labelling the node")?;
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            // It reports its own failure on standard error.
            let _ = supervisor.wait();
        }
    }
}

/// A client for a kubeconfig; must be called on a thread inside the cluster's network.
async fn client(kubeconfig: &Path, isolated: bool) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    if isolated {
        // The proxy of the machine leads out of the namespace.
        config.proxy_url = None;
    }
    Ok(Client::try_from(config)?)
}

fn enter(ready: &Ready) -> Result<()> {
    ready.netns.as_deref().map_or(Ok(()), netns::enter)
}

/// Whether pods can be created in a namespace.
async fn service_account(client: &Client, namespace: &str) -> Result<Option<()>> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    Ok(accounts.get_opt("default").await?.map(|_| ()))
}

fn shared(slot: &'static OnceLock<Result<Cluster, String>>, mode: Mode) -> Result<&'static Cluster> {
    let start = || match Settings::from_environment()?.attach {
        Some(dir) if mode == Mode::Node => {
            let cluster = Cluster::attach(&dir)?;
            thread::scope(|scope| {
                let swept = scope.spawn(|| cluster.block_on(leftovers::sweep(&cluster.client())));
                swept.join().map_err(|_| anyhow!("the thread that sweeps panicked"))?
            })?;
            Ok(cluster)
        }
        _ => Cluster::start(mode),
    };
    // One failure is everybody's: the next test would only wait as long for the same.
    slot.get_or_init(|| start().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}
