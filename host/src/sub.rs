//! The user's own commands, beside `kubectl`: one file each. Knows the API server and the terminal; nothing of plugins,
//! reconciling or workers.

pub mod cluster;
mod forward;
pub mod open_notebook;
mod screen;

use std::ffi::OsString;
use std::path::Path;

use clap::Subcommand;

/// What can be opened.
#[derive(Debug, Subcommand)]
pub enum OpenCommand {
    /// Open a Notebook in the browser: resume it, wait for it, forward a port to it
    ///
    /// As a kubectl plugin, link this program as `kubectl-open-notebook` into a folder of PATH, then: kubectl open notebook NAME
    Notebook(open_notebook::OpenNotebookArgs),
}

impl OpenCommand {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<std::process::ExitCode> {
        match self {
            Self::Notebook(args) => args.run().await,
        }
    }
}

/// The arguments as the program's own name means them: `kubectl-open-notebook NAME` is `substratus open notebook NAME`.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut given = given.into_iter();
    let program = given.next().unwrap_or_default();
    let named = Path::new(&program).file_name().is_some_and(|name| name == "kubectl-open-notebook");
    let implied: &[&str] = if named { &["open", "notebook"] } else { &[] };
    std::iter::once(program).chain(implied.iter().map(OsString::from)).chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_the_program_is_a_command() {
        let words = |given: &[&str]| -> Vec<String> {
            arguments(given.iter().map(OsString::from)).iter().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(words(&["/bin/kubectl-open-notebook", "lab"]), ["/bin/kubectl-open-notebook", "open", "notebook", "lab"]);
        assert_eq!(words(&["substratus", "crds"]), ["substratus", "crds"]);
        assert_eq!(words(&[]), [""]);
    }
}
