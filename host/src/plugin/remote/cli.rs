//! `substratus sandbox` and `substratus compile`: what the operator and its workers start, or a pod beside them. Confines the
//! process first and hands over; knows nothing of what comes down the socket.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use super::super::engine;
use super::compiler::REFUSED;
use super::confine::{self, Purpose};
use super::process::Process;
use super::serve;
use crate::limits;
use crate::telemetry::{self, Format};

const AFTER: &str = "\
Nobody types this: the operator and its workers start it for themselves, and in a cluster it is a container of the operator's pod.

It runs plugins for whoever connects to its socket, and has nothing that a plugin could want: it drops its environment, then
allows itself no new rights, and by a filter of system calls no file, no socket, no program and no other process. What a plugin may have of the outside, such as an answer of its hub, is asked of the other side of the socket, which
decides. `substratus operator --sandbox /path/of/the/socket` uses one that runs already.

  substratus sandbox --socket /run/substratus/sandbox.sock          serve
  substratus sandbox --socket /run/substratus/sandbox.sock --check  ask whether one serves there: a probe";

/// Run plugins for another process, with nothing at hand
#[derive(Debug, Args)]
#[command(after_long_help = AFTER)]
pub struct SandboxArgs {
    /// Socket to listen on; a leftover of an earlier run is replaced
    #[arg(long, value_name = "PATH", required_unless_present = "stdin")]
    socket: Option<PathBuf>,
    /// The socket is standard input, and listened on already; ends with its first connection
    #[arg(long, conflicts_with = "socket")]
    stdin: bool,
    /// Ask whether a sandbox answers there, and say so by the exit code
    #[arg(long, requires = "socket")]
    check: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = Format::Human)]
    log_format: Format,
}

/// Compile the component on standard input, and write native code to standard output
///
/// Nobody types this: the operator and its workers start it for every component that is new to them, and sign what it writes. It
/// has the bounds of a sandbox, and beside them two minutes of processor time and four GiB of memory.
#[derive(Debug, Args)]
pub struct CompileArgs {}

impl SandboxArgs {
    /// Serves until the end. To be called before there is any thread.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let (true, Some(socket)) = (self.check, self.socket.as_deref()) {
            return check(socket);
        }
        confine::without_environment()?;
        telemetry::init(self.log_format, "warn")?;
        let listener = match &self.socket {
            Some(path) => listen(path)?,
            None => UnixListener::from(std::io::stdin().as_fd().try_clone_to_owned().context("take the socket")?),
        };
        confine::confine(Purpose::Sandbox)?;
        runtime()?.block_on(serve::serve(listener, self.stdin))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// One thread for each processor that this process may use; without files it cannot read what a container is granted.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")
}

/// Also where an earlier process left its socket behind.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("replace the socket {}", path.display()));
        }
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))
}

fn check(socket: &Path) -> anyhow::Result<ExitCode> {
    let id = engine::id(&engine::compiler()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(Process::at(socket).connect(&id)).with_context(|| format!("the sandbox at {}", socket.display()))?;
    Ok(ExitCode::SUCCESS)
}

impl CompileArgs {
    /// Compiles. To be called before there is any thread.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self {} = self;
        confine::without_environment()?;
        confine::confine(Purpose::Compiler)?;
        let mut component = Vec::new();
        let most = limits::COMPONENT_BYTES;
        std::io::stdin().lock().take(most + 1).read_to_end(&mut component).context("read the component")?;
        if component.len() as u64 > most {
            bail!("the component has more than {most} bytes");
        }
        match engine::compiler()?.precompile_component(&component) {
            Ok(code) => {
                std::io::stdout().lock().write_all(&code).context("write native code")?;
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                // Whoever started this shows it as one line of its own.
                write!(std::io::stderr().lock(), "{error:#}").context("say what is wrong with the component")?;
                Ok(REFUSED.into())
            }
        }
    }
}
