//! What runs in the pod of a build: fetches a repository, drives `BuildKit` and says how it ended, as the container's termination
//! message. It uses programs of the builder's image — git, `BuildKit` — and no part of the operator; it has no API access.
//!
//! ```text
//! install ─► clone ──────────────────────────────► build ───────────────────────────► registry
//! (worker's  (image with git, no privilege,        (builder's image, its own user
//!  image)     the repository's Secret)              namespace, the registry's Secret)
//!            fetch
//!            (worker's image, no privilege,
//!             a token for the operator's store)
//! ```

mod accounts;
pub mod build;
pub mod clone;
mod context;
mod failure;
pub mod fetch;
pub mod report;
mod tail;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;

/// Steps of a build.
#[derive(Debug, Subcommand)]
pub enum BuilderCommand {
    /// Copy this program to where containers of other images find it
    Install {
        /// The file to be
        to: PathBuf,
    },
    /// Fetch a git repository
    Clone(clone::CloneArgs),
    /// Fetch what a user sent
    Fetch(fetch::FetchArgs),
    /// Build an image with `BuildKit`, and push it
    Build(build::BuildArgs),
}

impl BuilderCommand {
    /// Runs one step.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Install { to } => install(&to),
            Self::Clone(args) => args.run().await,
            Self::Fetch(args) => args.run().await,
            Self::Build(args) => args.run().await,
        }
    }
}

fn install(to: &std::path::Path) -> anyhow::Result<ExitCode> {
    let own = std::env::current_exe().context("find this program")?;
    std::fs::copy(&own, to).with_context(|| format!("copy {} to {}", own.display(), to.display()))?;
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(to, everybody).with_context(|| format!("make {} a program", to.display()))?;
    Ok(ExitCode::SUCCESS)
}
