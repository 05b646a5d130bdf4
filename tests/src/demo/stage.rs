//! What the demo plays on: a cluster, a way to bring images to it, and how much of it is ours. It must not know what is shown.

use std::path::PathBuf;

use crate::cluster::Cluster;
use crate::cluster::layout::Layout;
use crate::platform::shelf::Shelf;

/// Whose cluster it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// One that this machine starts for the demo, in a network namespace of its own (needs root)
    Own,
    /// The one of the current context of your kubeconfig
    Current,
    /// One that `kind` starts (not tried against a real kind yet)
    Kind,
}

/// A cluster to play on.
#[derive(Debug)]
pub struct Stage {
    /// Whose it is.
    pub place: Place,
    /// The cluster.
    pub cluster: Cluster,
    /// Where images go.
    pub shelf: Shelf,
    /// The folder of its node that is the artifact bucket.
    pub bucket: PathBuf,
    /// What `--dir` says, for hints.
    pub layout: Layout,
}

impl Stage {
    /// The arguments of another task for this demo.
    pub fn command(&self, task: &str) -> String {
        let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("substratus-demo"));
        let place = match self.place {
            Place::Own => "",
            Place::Current => " --cluster current",
            Place::Kind => " --cluster kind",
        };
        format!("{} {task}{place} --dir {}", own.display(), self.layout.dir().display())
    }

    /// A `kubectl` line that works in the user's shell.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let command = self.cluster.command("kubectl");
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let program: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).filter(|word| word != "--").collect();
        let config = match self.place {
            Place::Current => String::new(),
            Place::Own | Place::Kind => format!(" --kubeconfig {}", self.cluster.kubeconfig().display()),
        };
        format!("{}{config} {}", program.join(" "), arguments.join(" "))
    }
}
