//! The same repositories by ssh: a real server that knows one key. It must not know what a repository holds.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::Repository;
use crate::cluster::settings::Settings;
use crate::server::Server;

/// Root's home is a folder of the server's own, seen by it alone: who may log in is written there.
const SCRIPT: &str =
    r#"mount --bind "$1/home" /root && exec "$2" -F -E -s -m -j -k -e -r "$1/host-key" -P "$1/pid" -p "$3" 2>"$1/log""#;

/// A server; ends when dropped.
#[derive(Debug)]
pub struct SshServer {
    /// The private key that opens it.
    pub key: String,
    /// The line that says who it is.
    pub known_hosts: String,
    at: SocketAddr,
    _server: Server,
    _folder: TempDir,
}

impl SshServer {
    /// Starts it at a free port of `address`.
    pub fn start(address: SocketAddr) -> Result<Self> {
        let program = Settings::from_environment()?.require("dropbear")?;
        let folder = tempfile::tempdir().context("making a folder for an ssh server")?;
        let (path, home) = (folder.path(), folder.path().join("home/.ssh"));
        fs::create_dir_all(&home)?;
        for folder in [path.join("home"), home.clone()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
        let (own, host) = (path.join("key"), path.join("host-key"));
        run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", &own.to_string_lossy()])?;
        let said = run("dropbearkey", &["-t", "ed25519", "-f", &host.to_string_lossy()])?;
        let public = said.lines().find(|line| line.starts_with("ssh-ed25519 ")).context("no public key")?;
        fs::copy(own.with_extension("pub"), home.join("authorized_keys"))?;
        let at = TcpListener::bind(address)?.local_addr()?;
        let server = Server::start(Path::new("/usr/bin/unshare"), |command| {
            command.args(["--mount", "--", "/bin/sh", "-c", SCRIPT, "sh"]).arg(path).arg(&program).arg(at.to_string());
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        })?;
        let began = Instant::now();
        while TcpStream::connect(at).is_err() {
            let log = fs::read_to_string(path.join("log")).unwrap_or_default();
            ensure!(began.elapsed() < Duration::from_secs(30), "nobody listens at {at}: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let key = fs::read_to_string(&own)?;
        let name = public.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let known_hosts = format!("[{}]:{} {name}\n", at.ip(), at.port());
        Ok(Self { key, known_hosts, at, _server: server, _folder: folder })
    }

    /// Where a repository is found here.
    pub fn url(&self, repository: &Repository) -> String {
        format!("ssh://root@{}{}", self.at, repository.bare().display())
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
