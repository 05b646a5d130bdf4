//! Where the test cluster finds its programs and keeps its state. It must not know what is started from them.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;

/// What a machine may set once for all test clusters on it; environment variables work for tests, which take no flags.
#[derive(Debug, Clone, Parser)]
pub struct Settings {
    /// Directory with the programs that `tests/cluster/build-tools.sh` built
    #[arg(long, env = "SUBSTRATUS_TOOLS", value_name = "DIR", default_value_os_t = default_tools())]
    pub tools: PathBuf,

    /// Directory below which clusters without a `--dir` of their own live
    #[arg(long, env = "SUBSTRATUS_CLUSTERS", value_name = "DIR", default_value = "/tmp/substratus-clusters")]
    pub root: PathBuf,

    /// Directory of a node cluster that already runs, for tests to use instead of starting one
    #[arg(long, env = "SUBSTRATUS_CLUSTER_DIR", value_name = "DIR")]
    pub attach: Option<PathBuf>,
}

impl Settings {
    /// The settings of this process's environment alone, for callers without a command line.
    pub fn from_environment() -> Result<Self> {
        Self::try_parse_from(["substratus-cluster"]).context("reading the test cluster's settings from the environment")
    }

    /// The path of a program: our own build first, then `$KUBEBUILDER_ASSETS`, then `$PATH` and the system's folders.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        std::iter::once(self.tools.clone())
            .chain(assets)
            .chain(env::split_paths(&path))
            .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
            .map(|folder| folder.join(program))
            .find(|candidate| candidate.is_file())
    }

    /// Like [`Settings::find`], with an error that says how to get the program.
    pub fn require(&self, program: &str) -> Result<PathBuf> {
        self.find(program).with_context(|| {
            format!(
                "cannot find `{program}` in {} or on PATH; `substratus-cluster preflight` says how to get it",
                self.tools.display()
            )
        })
    }
}

fn default_tools() -> PathBuf {
    env::home_dir().unwrap_or_else(|| Path::new("/tmp").to_owned()).join(".cache/substratus/tools")
}
