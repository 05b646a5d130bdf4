//! The process that owns a test cluster: starts it in order, watches it, removes it. It must not know who uses it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kube::Client;
use rustix::process::{Signal, getpid, kill_process};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::layout::{Layout, Mode, NODE_ADDRESS, REGISTRY};
use super::process::Children;
use super::settings::Settings;
use super::{Ready, cgroup, cleanup, configuration, control, eventually, folders, netns, node, pki, preflight, sysctl};

/// Longest start that is not called a failure; a busy machine with few processors takes a while.
const START_LIMIT: Duration = Duration::from_mins(4);

/// Runs a cluster until a signal or, with `parent_pipe`, until standard input closes; then removes it. Prints one line of
/// JSON (a [`Ready`]) on standard output when the cluster is healthy; progress goes to standard error.
pub fn up(settings: &Settings, dir: Option<PathBuf>, mode: Mode, parent_pipe: bool) -> Result<()> {
    preflight::require(settings, mode)?;
    let root = private_folder(&settings.root)?;
    let layout = match dir {
        Some(dir) => Layout::new(std::path::absolute(dir).context("finding the cluster's directory")?),
        None => Layout::new(root.join(format!("{:08x}", getpid().as_raw_nonzero()))),
    };
    // One supervisor at a time sweeps and claims a directory, so that none sweeps what another is about to claim.
    let gate = fs::File::create(root.join("gate.lock")).context("opening the lock of all test clusters")?;
    rustix::fs::flock(&gate, rustix::fs::FlockOperation::LockExclusive).context("waiting for the lock of all test clusters")?;
    cleanup::sweep(&root)?;
    fs::create_dir_all(layout.dir()).with_context(|| format!("making {}", layout.dir().display()))?;
    let Some(held) = cleanup::lock(&layout)? else {
        bail!("a cluster already runs in {}; use it, or stop it with `substratus-cluster down --dir`", layout.dir().display());
    };
    drop(gate);
    cleanup::stop(&layout).context("removing what a crashed run left behind")?;
    let outcome = supervise(settings, &layout, mode, parent_pipe);
    let removed = if outcome.is_err() { cleanup::stop(&layout) } else { cleanup::remove(&layout) };
    drop(held);
    outcome.and(removed)
}

fn supervise(settings: &Settings, layout: &Layout, mode: Mode, parent_pipe: bool) -> Result<()> {
    fs::write(cleanup::pid_file(layout), getpid().as_raw_nonzero().to_string()).context("writing the process id")?;
    for folder in [layout.logs(), layout.pki(""), layout.config(""), layout.state("")] {
        // A directory that is used again starts empty.
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    pki::write(layout)?;
    netns::create(&layout.name())?;
    netns::enter(&layout.netns())?;
    // One thread: children are tied to the thread that starts them, and this one lives as long as the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        if parent_pipe {
            std::thread::spawn(stop_when_input_ends);
        }
        let mut children = Children::new(layout, settings);
        let work = async {
            let ready = start(layout, mode, &mut children).await?;
            announce(layout, &ready)?;
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                children.check()?;
                restart_on_demand(layout, &mut children).await?;
            }
        };
        tokio::select! {
            failed = work => failed,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
        }
    })
}

/// Starts everything, in the order of need, and waits until it is of use.
async fn start(layout: &Layout, mode: Mode, children: &mut Children<'_>) -> Result<Ready> {
    let began = Instant::now();
    children.start(&control::etcd(layout))?;
    children.start(&control::api_server(layout))?;
    if mode == Mode::Node {
        cgroup::create(&layout.name())?;
        sysctl::remember(layout)?;
        folders::remember(layout)?;
        configuration::write(layout)?;
        children.start(&node::registry(layout))?;
        children.start(&node::containerd(layout))?;
    }
    let client = super::client(&layout.kubeconfig("admin"), true).await?;
    settle("API server", began, children, async || api_ready(&client).await).await?;
    if mode != Mode::Api {
        children.start(&control::controller_manager(layout))?;
        children.start(&control::scheduler(layout))?;
    }
    if mode == Mode::Node {
        settle("registry", began, children, async || node::push_pause().await.map(Some)).await?;
        for component in [node::kubelet(layout), node::proxy(layout), node::dns(layout)] {
            children.start(&component)?;
        }
    }
    if mode != Mode::Api {
        settle("default service account", began, children, async || super::service_account(&client, "default").await).await?;
    }
    if mode == Mode::Node {
        settle("DNS", began, children, async || node::dns_ready().await).await?;
        settle("node", began, children, async || node::ready(&client).await).await?;
    }
    Ok(Ready {
        mode,
        dir: layout.dir().to_owned(),
        netns: Some(layout.netns()),
        kubeconfig: layout.kubeconfig("admin"),
        node_address: Some(NODE_ADDRESS.to_owned()),
        registry: (mode == Mode::Node).then(|| REGISTRY.to_owned()),
    })
}

/// Starts anew what a test wants to be, waits until it answers, and says so by removing the wish.
async fn restart_on_demand(layout: &Layout, children: &mut Children<'_>) -> Result<()> {
    let Ok(program) = fs::read_to_string(layout.restart()) else { return Ok(()) };
    let began = Instant::now();
    children.restart(&program)?;
    let client = super::client(&layout.kubeconfig("admin"), true).await?;
    settle(&format!("{program} again"), began, children, async || {
        if program == "containerd" {
            UnixStream::connect(configuration::containerd_socket(layout)).await?;
        }
        api_ready(&client).await
    })
    .await?;
    fs::remove_file(layout.restart()).context("removing a wish that is done")
}

async fn api_ready(client: &Client) -> Result<Option<String>> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    Ok(client.request_text(request).await.map(Some)?)
}

/// Waits for one thing while watching all children; tells how long it took.
async fn settle<T>(
    what: &str,
    began: Instant,
    children: &mut Children<'_>,
    probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let outcome = {
        let ended = async {
            loop {
                if let Err(error) = children.check() {
                    return error;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::select! {
            outcome = eventually(what, START_LIMIT, probe) => outcome,
            error = ended => return Err(error.context(format!("waiting for the {what}"))),
        }
    };
    let found = outcome.with_context(|| children.tails())?;
    say(&format!("{what} after {:.1} s", began.elapsed().as_secs_f32()));
    Ok(found)
}

fn announce(layout: &Layout, ready: &Ready) -> Result<()> {
    let line = serde_json::to_string(ready)?;
    fs::write(layout.ready(), &line).context("writing ready.json")?;
    writeln!(io::stdout(), "{line}").context("telling that the cluster is ready")
}

fn say(line: &str) {
    // A reader that went away is told by its pipe, not here.
    let _ = writeln!(io::stderr(), "cluster: {line}");
}

/// The other end of the pipe lives in the process that wanted the cluster: however that one ends, the pipe closes.
fn stop_when_input_ends() {
    let mut buffer = [0; 64];
    while io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
    // Our own process exists; there is nothing to do about an error.
    let _ = kill_process(getpid(), Signal::TERM);
}

/// A folder that nobody else can have prepared for us.
fn private_folder(path: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let path = std::path::absolute(path).context("finding the folder of test clusters")?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).with_context(|| format!("making {}", path.display()))?;
    let owner = fs::symlink_metadata(&path).with_context(|| format!("reading {}", path.display()))?;
    if !owner.is_dir() || owner.uid() != rustix::process::getuid().as_raw() {
        bail!("{} belongs to somebody else; choose another folder with SUBSTRATUS_CLUSTERS", path.display());
    }
    Ok(path)
}
