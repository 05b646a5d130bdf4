//! `substratus-cluster`: starts, enters and removes the test cluster, and packs the operator's image. All work is in the library.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use substratus_tests::cluster::layout::{Layout, Mode};
use substratus_tests::cluster::settings::Settings;
use substratus_tests::cluster::{cleanup, eventually, netns, preflight, supervisor};
use substratus_tests::image;

/// A real single-node Kubernetes in a network namespace of its own, for tests and for the quick start
#[derive(Debug, Parser)]
#[command(name = "substratus-cluster", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a cluster and keep it until Ctrl-C or SIGTERM
    Up {
        /// Directory of the cluster (default: one of its own below the root)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// How much of a cluster
        #[arg(long, value_enum, default_value_t = Mode::Node)]
        mode: Mode,
        /// Also stop when standard input closes
        #[arg(long)]
        parent_pipe: bool,
    },
    /// Stop the cluster of a directory, or remove what a killed one left
    Down {
        /// Directory given to `up`; without it, the remains of all dead clusters below the root are removed
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Run a program inside the cluster's network, as its administrator
    Exec {
        /// Directory given to `up`
        #[arg(long)]
        dir: PathBuf,
        /// The program and its arguments, e.g. `kubectl get pods`
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Say whether this machine can run a cluster, and what a run changes
    Preflight {
        /// Fail unless this much is possible
        #[arg(long, value_enum, default_value_t = Mode::Node)]
        mode: Mode,
    },
    /// Print what a URL answers; tests run this inside pods
    Fetch {
        /// The URL, by any name that the pod can resolve
        url: url::Url,
        /// Seconds to keep trying until it answers with success
        #[arg(long, default_value_t = 60)]
        wait: u64,
    },
    /// Pack the operator's image as an OCI layout, without a container engine
    Image {
        /// The static `substratus` program
        #[arg(long)]
        binary: PathBuf,
        /// Folder of `*.wasm` components to ship
        #[arg(long)]
        plugins: Option<PathBuf>,
        /// The tar file to write
        #[arg(long)]
        output: PathBuf,
        /// The name that `docker load` and `ctr images import` will give it
        #[arg(long, default_value = "docker.io/substratusai/substratus:dev")]
        name: String,
    },
}

fn main() -> ExitCode {
    run(Arguments::parse()).unwrap_or_else(|error| {
        // Nobody is left to tell if standard error is gone.
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(Arguments { settings, task }: Arguments) -> Result<ExitCode> {
    match task {
        Task::Up { dir, mode, parent_pipe } => supervisor::up(&settings, dir, mode, parent_pipe)?,
        Task::Down { dir: Some(dir) } => cleanup::down(&Layout::new(std::path::absolute(dir)?))?,
        Task::Down { dir: None } => cleanup::sweep(&settings.root)?,
        Task::Exec { dir, command } => {
            exec(&settings, &Layout::new(std::path::absolute(dir)?), &command)?;
        }
        Task::Preflight { mode } => {
            io::stdout().write_all(preflight::report(&settings).as_bytes())?;
            if !preflight::missing(&settings, mode).is_empty() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Fetch { url, wait } => fetch(&url, Duration::from_secs(wait))?,
        Task::Image { binary, plugins, output, name } => {
            let built = image::operator(&binary, plugins.as_deref())?.build()?;
            built.write_layout(&output, &name)?;
            writeln!(io::stdout(), "{} {name}@{}", output.display(), built.digest())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(url: &url::Url, limit: Duration) -> Result<()> {
    let client = reqwest::Client::builder()
        .no_proxy()
        // A pod's image may have no certificates at all, which is an error where none are named.
        .tls_certs_only([])
        .timeout(Duration::from_secs(5))
        .build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let page = runtime.block_on(eventually(url.as_str(), limit, async || {
        let answer = client.get(url.clone()).send().await?.error_for_status()?;
        Ok(Some(answer.bytes().await?))
    }))?;
    Ok(io::stdout().write_all(&page)?)
}

/// Replaces this process; returns only with an error.
fn exec(settings: &Settings, layout: &Layout, command: &[OsString]) -> Result<()> {
    netns::enter(&layout.netns())?;
    let (program, arguments) = command.split_first().context("no program given")?;
    let found = program.to_str().and_then(|name| settings.find(name));
    let error = Command::new(found.map_or_else(|| program.clone(), PathBuf::into_os_string))
        .args(arguments)
        .env("KUBECONFIG", layout.kubeconfig("admin"))
        .env("NO_PROXY", "*")
        .exec();
    Err(error).with_context(|| format!("running {}", program.display()))
}
