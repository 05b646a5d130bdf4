//! `substratus-demo`: shows the whole way on this machine. Only reads the command line; the demo is in `substratus_tests::demo`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use substratus_tests::cluster::settings::Settings;
use substratus_tests::demo::{self, Wish};

/// Substratus on this machine: a real Kubernetes, a model imported, interrupted, resumed and served
#[derive(Debug, Parser)]
#[command(name = "substratus-demo", version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start it; the cluster keeps running until `down`
    Up {
        /// Folder of the cluster
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Start without asking
        #[arg(long, env = "YES", value_parser = clap::builder::FalseyValueParser::new())]
        yes: bool,
        /// Also import and serve a model from this hub, such as <https://huggingface.co> or a mirror
        #[arg(long, env = "HUB", value_name = "URL")]
        hub: Option<String>,
        /// The model, `org/name`: a repository with GGUF files that is small enough for this machine's processors
        #[arg(long, env = "MODEL", value_name = "ORG/NAME")]
        model: Option<String>,
    },
    /// Let this machine's programs talk to the demo's Server
    Forward {
        /// Folder given to `up`
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Port on 127.0.0.1; 0 takes a free one
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// End it and remove all that it used
    Down {
        /// Folder given to `up`
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let Arguments { settings, task } = Arguments::parse();
    let default = demo::default_dir(&settings);
    let outcome = match task {
        Task::Up { dir, yes, hub, model } => {
            // An empty variable is an absent one.
            let given = |value: Option<String>| value.filter(|text| !text.is_empty());
            match (given(hub), given(model)) {
                (Some(hub), Some(model)) => demo::up(&settings, &dir.unwrap_or(default), yes, Some(&Wish { hub, model })),
                (None, None) => demo::up(&settings, &dir.unwrap_or(default), yes, None),
                _ => Err(anyhow::anyhow!(
                    "--hub (HUB) and --model (MODEL) belong together: the hub's address, and org/name of a GGUF repository there"
                )),
            }
        }
        Task::Forward { dir, port } => demo::forward(&dir.unwrap_or(default), port),
        Task::Down { dir } => demo::down(&dir.unwrap_or(default)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if standard error is gone.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
