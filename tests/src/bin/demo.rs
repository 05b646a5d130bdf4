//! `substratus-demo`: shows the whole way on this machine. Only reads the command line; the demo is in `substratus_tests::demo`.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use substratus_tests::cluster::settings::Settings;
use substratus_tests::demo;

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
        Task::Up { dir, yes } => demo::up(&settings, &dir.unwrap_or(default), yes),
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
