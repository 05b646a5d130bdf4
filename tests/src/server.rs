//! Server processes of tests: each goes with whoever holds it, and with this process. Must not know what they serve.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A process. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts `program` with nothing of our environment; `set` says the rest.
    pub(crate) fn start(program: &Path, set: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        set(&mut command);
        Ok(Self(command.spawn().with_context(|| format!("starting {}", program.display()))?))
    }

    /// The same with a port of its own: what is free now may be somebody else's a moment later.
    pub(crate) fn listening(program: &Path, set: impl Fn(&mut Command, SocketAddr)) -> Result<(Self, SocketAddr)> {
        for _ in 0..5 {
            let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            let mut server = Self::start(program, |command| set(command, at))?;
            if server.listens(at)? {
                return Ok((server, at));
            }
        }
        bail!("{} ends again and again", program.display())
    }

    /// Waits until it listens; false where it ended.
    fn listens(&mut self, at: SocketAddr) -> Result<bool> {
        let began = Instant::now();
        while TcpStream::connect(at).is_err() && self.ended()?.is_none() {
            if began.elapsed() > Duration::from_mins(1) {
                bail!("nobody listens at {at}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Where somebody else listens, the server is about to end.
        std::thread::sleep(Duration::from_millis(200));
        Ok(self.ended()?.is_none())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.0.kill().context("ending a server")?;
        self.0.wait().context("waiting for a server's end")?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It fails only for a server that has ended.
        let _ = self.stop();
    }
}
