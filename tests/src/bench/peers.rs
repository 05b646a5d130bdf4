//! The programs that are compared, each as its users would call it for the same work. Must not know what a run costs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::turns::Program;
use crate::engine;
use crate::hub::Hub;

/// A proxy of the machine would stand between a client and the hub.
pub(super) const PROXIES: [&str; 6] = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
/// With its defaults, which fetch eight files at a time.
const SNAPSHOT: &str = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1], local_dir=sys.argv[2])";

/// Files of a repository of the hub.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) repo: &'static str,
    pub(super) files: Vec<String>,
    pub(super) size_of_each: u64,
}

/// The program that is measured, and what it needs.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// The `substratus` program.
    pub substratus: &'a Path,
    /// Folder of the bundled plugins.
    pub plugins: &'a Path,
    /// Connections of `substratus load`; its own default where nothing is said.
    pub connections: Option<u16>,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Peer {
    Substratus,
    Curl,
    /// What one has to add to have what `substratus load` gives.
    CurlSafe,
    Aria2,
    /// By the Python that has it.
    HuggingfaceHub(PathBuf),
}

impl Peer {
    /// All that this machine has, and who is missing.
    pub(super) fn present() -> (Vec<Self>, Vec<String>) {
        let (mut peers, mut missing) = (vec![Self::Substratus], Vec::new());
        for (program, rows) in [("curl", [Self::Curl, Self::CurlSafe].as_slice()), ("aria2c", &[Self::Aria2])] {
            if answers(program) {
                peers.extend_from_slice(rows);
            } else {
                missing.push(format!("{program} is not here"));
            }
        }
        match engine::cache().and_then(|cache| engine::python(&cache)) {
            Ok(python) => peers.push(Self::HuggingfaceHub(python)),
            Err(error) => missing.push(format!("huggingface_hub is not here: {error:#}")),
        }
        missing.push("hf-fetch-model asks huggingface.co only and cannot be measured on a hub of this machine".to_owned());
        (peers, missing)
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Substratus => "substratus load",
            Self::Curl => "curl",
            Self::CurlSafe => "curl; sha256sum; sync",
            Self::Aria2 => "aria2c -x16",
            Self::HuggingfaceHub(_) => "huggingface_hub",
        }
    }

    /// As a row of a table.
    pub(super) fn program(&self) -> Program {
        let verifies = matches!(self, Self::Substratus | Self::CurlSafe);
        Program { name: self.name(), verifies, is_ours: *self == Self::Substratus }
    }

    /// Does `work` into the folder `target`; `scratch` is for everything else that the program writes.
    pub(super) fn command(&self, own: &Own<'_>, work: &Work, hub: &Hub, scratch: &Path, target: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Substratus => substratus(own, work, hub, scratch, target),
            Self::Curl => curl(work, hub, scratch, target)?,
            Self::CurlSafe => then_check(&curl(work, hub, scratch, target)?, target),
            Self::Aria2 => aria2(work, hub, scratch, target)?,
            Self::HuggingfaceHub(python) => {
                let mut command = Command::new(python);
                command.args(["-B", "-c", SNAPSHOT, work.repo]).arg(target);
                command.env("HF_ENDPOINT", &hub.url).env("HF_HOME", scratch.join("hf")).env("NO_PROXY", "*");
                command
            }
        };
        for proxy in PROXIES {
            command.env_remove(proxy);
        }
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Where the files lie afterwards.
    pub(super) fn files_below(&self, target: &Path) -> PathBuf {
        if *self == Self::Substratus { target.join("artifacts") } else { target.to_owned() }
    }
}

pub(super) fn answers(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// `substratus load` of a repository.
pub(super) fn substratus(own: &Own<'_>, work: &Work, hub: &Hub, scratch: &Path, target: &Path) -> Command {
    let mut command = Command::new(own.substratus);
    command.args(["load", &format!("hf://{}", work.repo), "--config", &format!("endpoint={}", hub.url)]);
    command.args(["--grant", &hub.url, "--grant", &hub.cdn_url]).arg("--to").arg(target);
    command.arg("--plugins").arg(own.plugins).arg("--plugin-cache").arg(scratch.join("cache"));
    command.arg("--termination-log").arg(scratch.join("outcome"));
    if let Some(connections) = own.connections {
        command.arg("--connections").arg(connections.to_string());
    }
    command
}

fn url(work: &Work, hub: &Hub, file: &str) -> String {
    format!("{}/{}/resolve/main/{file}", hub.url, work.repo)
}

fn curl(work: &Work, hub: &Hub, scratch: &Path, target: &Path) -> Result<Command> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--location"]);
    if let [file] = work.files.as_slice() {
        command.arg(url(work, hub, file)).arg("--output").arg(target.join(file));
        return Ok(command);
    }
    let list = list(scratch, work, |file| {
        format!("url = \"{}\"\noutput = \"{}\"\n", url(work, hub, file), target.join(file).display())
    })?;
    command.args(["--parallel", "--parallel-max", "16", "--config"]).arg(list);
    Ok(command)
}

/// The same, then hashed, then made durable.
fn then_check(curl: &Command, target: &Path) -> Command {
    const SCRIPT: &str =
        r#"target=$1; shift; "$@" && find "$target" -type f -exec sha256sum {} + >/dev/null && sync -f "$target""#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh"]).arg(target).arg(curl.get_program()).args(curl.get_args());
    command
}

fn aria2(work: &Work, hub: &Hub, scratch: &Path, target: &Path) -> Result<Command> {
    let mut command = Command::new("aria2c");
    command.args(["-x16", "-s16", "-j16", "-k1M", "--file-allocation=none", "--quiet", "-d"]).arg(target);
    if let [file] = work.files.as_slice() {
        command.args([&url(work, hub, file), "-o", file]);
    } else {
        command.arg("-i").arg(list(scratch, work, |file| format!("{}\n  out={file}\n", url(work, hub, file)))?);
    }
    Ok(command)
}

/// A file with an entry for each file of the work.
fn list(scratch: &Path, work: &Work, entry: impl Fn(&str) -> String) -> Result<PathBuf> {
    let path = scratch.join("list");
    let text = work.files.iter().fold(String::new(), |mut text, file| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", entry(file));
        text
    });
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
