//! Starting a supervisor from a test, with the pipe that ends it. It must not know what a supervisor does.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Ready;
use super::layout::Mode;

/// Starts a supervisor and waits for its cluster. The child's standard input is the pipe: the cluster ends when it closes.
pub fn supervisor(mode: Mode) -> Result<(Ready, Child)> {
    let mut supervisor = Command::new(program()?)
        .args(["up", "--parent-pipe", "--mode"])
        .arg(format!("{mode:?}").to_lowercase())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the supervisor of the test cluster")?;
    let mut line = String::new();
    if let Some(output) = supervisor.stdout.take() {
        BufReader::new(output).read_line(&mut line).context("waiting for the test cluster")?;
    }
    if line.is_empty() {
        let status = supervisor.wait().context("waiting for the supervisor")?;
        bail!("the test cluster did not start ({status}); the reason is on standard error");
    }
    let ready = serde_json::from_str(&line).context("reading the supervisor's answer")?;
    Ok((ready, supervisor))
}

/// The path of `substratus-cluster`. Cargo puts it beside our own program, or one folder above a test's.
pub fn program() -> Result<PathBuf> {
    let own = env::current_exe().context("finding our own program")?;
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("substratus-cluster"))
        .find(|program| program.is_file())
        .context("cannot find `substratus-cluster` near our own program; `cargo build -p substratus-tests --bins` makes it")
}
