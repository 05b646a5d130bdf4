//! One large file from the local hub: `substratus load`, which verifies it, next to `curl` and `aria2c`, which do not.
//! Must not look into the worker.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::child::{self, Cost};
use super::stats::{mebibytes, median};
use super::table::Table;
use crate::hub::{Content, Hub, Repo};

const REPO: &str = "bench/noise";
const FILE: &str = "model.safetensors";
/// A proxy of the machine would stand between a client and the hub.
const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];

/// How to measure.
#[derive(Debug)]
pub struct Options<'a> {
    /// The `substratus` program.
    pub substratus: &'a Path,
    /// Folder of the bundled plugins.
    pub plugins: &'a Path,
    /// Bytes of the file.
    pub size: u64,
    /// Times that each program runs, in turn with the others.
    pub runs: u32,
    /// Connections of `substratus load`; its own default where nothing is said.
    pub connections: Option<u16>,
}

/// One program's medians.
#[derive(Debug, Serialize)]
pub struct Row {
    program: String,
    seconds: f64,
    mebibytes_per_second: f64,
    peak_mebibytes: f64,
    cpu_seconds: f64,
    verified: bool,
    runs: Vec<f64>,
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Substratus,
    Curl,
    Aria2,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Self::Substratus => "substratus load",
            Self::Curl => "curl",
            Self::Aria2 => "aria2c -x16",
        }
    }

    /// A program that is missing is left out, and said.
    fn is_there(self) -> bool {
        let program = match self {
            Self::Substratus => return true,
            Self::Curl => "curl",
            Self::Aria2 => "aria2c",
        };
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

/// Runs every peer in turn, `runs` times.
pub fn measure(options: &Options<'_>) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let repo = Repo::model(REPO)
        .file("config.json", r#"{"architectures":["LlamaForCausalLM"]}"#)
        .file(FILE, Content::noise(1, options.size));
    let hub = Hub::builder().repo(repo).start(Ipv4Addr::LOCALHOST.into(), runtime.handle())?;
    let folder = tempfile::tempdir().context("making a folder to load into")?;
    let peers: Vec<Peer> = [Peer::Substratus, Peer::Curl, Peer::Aria2].into_iter().filter(|peer| peer.is_there()).collect();
    let mut costs: Vec<(Peer, Vec<Cost>)> = peers.into_iter().map(|peer| (peer, Vec::new())).collect();
    // The first load compiles the loader; all that are timed find it in the cache.
    once(Peer::Substratus, options, &hub, folder.path())?;
    for _ in 0..options.runs {
        for (peer, costs) in &mut costs {
            costs.push(once(*peer, options, &hub, folder.path())?);
        }
    }
    Ok(costs.iter().filter_map(|(peer, costs)| row(*peer, costs, options.size)).collect())
}

fn row(peer: Peer, costs: &[Cost], size: u64) -> Option<Row> {
    let of = |number: fn(&Cost) -> f64| median(&costs.iter().map(number).collect::<Vec<_>>());
    let seconds = of(|cost| cost.seconds)?;
    Some(Row {
        program: peer.name().to_owned(),
        seconds,
        mebibytes_per_second: mebibytes(size) / seconds,
        peak_mebibytes: of(|cost| mebibytes(cost.peak_bytes))?,
        cpu_seconds: of(|cost| cost.cpu_seconds)?,
        verified: peer == Peer::Substratus,
        runs: costs.iter().map(|cost| cost.seconds).collect(),
    })
}

/// One run into an empty folder; the file must be whole.
fn once(peer: Peer, options: &Options<'_>, hub: &Hub, folder: &Path) -> Result<Cost> {
    let target = folder.join("target");
    if target.exists() {
        fs::remove_dir_all(&target).context("removing the run before")?;
    }
    fs::create_dir(&target)?;
    let (mut command, file) = command(peer, options, hub, folder, &target);
    for proxy in PROXIES {
        command.env_remove(proxy);
    }
    let log = fs::File::create(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let (status, cost) = child::run(&mut command)?;
    if !status.success() {
        bail!("{} failed: {}", peer.name(), fs::read_to_string(folder.join("log")).unwrap_or_default());
    }
    let size = fs::metadata(&file).with_context(|| format!("looking for what {} loaded", peer.name()))?.len();
    ensure!(size == options.size, "{} loaded {size} bytes of {}", peer.name(), options.size);
    Ok(cost)
}

fn command(peer: Peer, options: &Options<'_>, hub: &Hub, folder: &Path, target: &Path) -> (Command, PathBuf) {
    let url = format!("{}/{REPO}/resolve/main/{FILE}", hub.url);
    let file = target.join(FILE);
    match peer {
        Peer::Substratus => {
            let mut command = Command::new(options.substratus);
            command.args(["load", &format!("hf://{REPO}"), "--config", &format!("endpoint={}", hub.url)]);
            command.args(["--grant", &hub.url, "--grant", &hub.cdn_url]).arg("--to").arg(target);
            command.arg("--plugins").arg(options.plugins).arg("--plugin-cache").arg(folder.join("cache"));
            command.arg("--termination-log").arg(folder.join("outcome"));
            if let Some(connections) = options.connections {
                command.arg("--connections").arg(connections.to_string());
            }
            (command, target.join("artifacts").join(FILE))
        }
        Peer::Curl => {
            let mut command = Command::new("curl");
            command.args(["--silent", "--show-error", "--fail", "--location", &url, "--output"]).arg(&file);
            (command, file)
        }
        Peer::Aria2 => {
            let mut command = Command::new("aria2c");
            command.args(["-x16", "-s16", "-k1M", "--file-allocation=none", "--quiet", &url, "-o", FILE, "-d"]).arg(target);
            (command, file)
        }
    }
}

/// For people.
pub fn table(rows: &[Row], options: &Options<'_>) -> Table {
    let cells = |row: &Row| {
        vec![
            row.program.clone(),
            format!("{:.2}", row.seconds),
            format!("{:.0}", row.mebibytes_per_second),
            format!("{:.1}", row.peak_mebibytes),
            format!("{:.2}", row.cpu_seconds),
            if row.verified { "yes" } else { "no" }.to_owned(),
        ]
    };
    Table {
        title: format!(
            "load: one file of {:.0} MiB from a hub on this machine, median of {} runs",
            mebibytes(options.size),
            options.runs
        ),
        columns: vec!["program", "seconds", "MiB/s", "peak MiB", "CPU s", "sha256"],
        rows: rows.iter().map(cells).collect(),
    }
}
