//! `substratus-demo`: shows the whole way. Only reads the command line; the demo is in `substratus_tests::demo`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};
use substratus_tests::cluster::settings::Settings;
use substratus_tests::demo::stage::Place;
use substratus_tests::demo::theirs::Wishes;
use substratus_tests::demo::{self, Plan, Wish};

/// Substratus on a real Kubernetes: a model imported, interrupted, resumed and served
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
        #[command(flatten)]
        place: At,
        /// Also import and serve a model from this hub, such as <https://huggingface.co> or a mirror
        #[arg(long, env = "HUB", value_name = "URL")]
        hub: Option<String>,
        /// The model, `org/name`: a repository with GGUF files that is small enough for this machine's processors
        #[arg(long, env = "MODEL", value_name = "ORG/NAME")]
        model: Option<String>,
    },
    /// Only install, for tests on a cluster that is not of their own
    Install {
        #[command(flatten)]
        place: At,
    },
    /// Let this machine's programs talk to the Server of a demo on a cluster of its own
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
        #[command(flatten)]
        place: At,
    },
}

#[derive(Debug, Args)]
struct At {
    /// Whose cluster
    #[arg(long, env = "CLUSTER", value_enum, default_value_t = Place::Own)]
    cluster: Place,
    /// Folder of the demo's state
    #[arg(long)]
    dir: Option<PathBuf>,
    #[command(flatten)]
    wishes: Wishes,
    /// Go on without asking
    #[arg(long, env = "YES", value_parser = clap::builder::FalseyValueParser::new())]
    yes: bool,
}

impl From<At> for Plan {
    fn from(At { cluster, dir, wishes, yes }: At) -> Self {
        Self { place: cluster, dir, wishes, consent: yes }
    }
}

fn main() -> ExitCode {
    let Arguments { settings, task } = Arguments::parse();
    let outcome = match task {
        Task::Up { place, hub, model } => wish(hub, model).and_then(|wish| demo::up(&settings, &place.into(), wish.as_ref())),
        Task::Install { place } => demo::install(&settings, &place.into()),
        Task::Forward { dir, port } => demo::forward(&dir.unwrap_or_else(|| demo::default_dir(&settings, Place::Own)), port),
        Task::Down { place } => demo::down(&settings, &place.into()),
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

/// An empty variable is an absent one.
fn wish(hub: Option<String>, model: Option<String>) -> Result<Option<Wish>> {
    let given = |value: Option<String>| value.filter(|text| !text.is_empty());
    match (given(hub), given(model)) {
        (Some(hub), Some(model)) => Ok(Some(Wish { hub, model })),
        (None, None) => Ok(None),
        _ => bail!("--hub (HUB) and --model (MODEL) belong together: the hub's address, and org/name of a GGUF repository there"),
    }
}
