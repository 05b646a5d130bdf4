//! The operator as a process beside a test's API server. Knows how it is started and stopped, not what it does.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bundle;
use crate::cluster::{Cluster, eventually};

/// Where the probes and metrics of the process answer.
pub const ADMIN: &str = "127.0.0.1:8081";

/// A running operator; killed when dropped.
pub struct Operator {
    child: Child,
    /// Its log.
    pub log: PathBuf,
    home: tempfile::TempDir,
    admin: String,
}

/// The program under test: built by `make build` beside the test binary.
pub fn program() -> Result<PathBuf> {
    let here = std::env::current_exe().context("find the test binary")?;
    let program = here.ancestors().map(|folder| folder.join("substratus")).find(|path| path.is_file());
    program.context("the program `substratus` is not built; run the tests with `make test`, or `cargo build --workspace` first")
}

impl Operator {
    /// Starts it in the cluster's network and waits until it is ready. `args` come after the usual ones.
    pub async fn start(cluster: &Cluster, args: &[&str]) -> Result<Self> {
        Self::start_in(cluster, tempfile::tempdir()?, ADMIN, args).await
    }

    async fn start_in(cluster: &Cluster, home: tempfile::TempDir, admin: &str, args: &[&str]) -> Result<Self> {
        let operator = Self::spawn(cluster, home, admin, args).await?;
        operator.ready().await?;
        Ok(operator)
    }

    /// Starts it and waits for nothing: its cache is in `home`, its probes answer at `admin`.
    pub async fn spawn(cluster: &Cluster, home: tempfile::TempDir, admin: &str, args: &[&str]) -> Result<Self> {
        Self::spawn_as(cluster, cluster.kubeconfig(), home, admin, args).await
    }

    /// The same with the rights of another kubeconfig.
    pub async fn spawn_as(
        cluster: &Cluster,
        kubeconfig: &Path,
        home: tempfile::TempDir,
        admin: &str,
        args: &[&str],
    ) -> Result<Self> {
        // As the image has them.
        let plugins = tokio::task::spawn_blocking(|| bundle::first_party(&program()?)).await??;
        let log = home.path().join("operator.log");
        let output = std::fs::File::options().create(true).append(true).open(&log)?;
        let mut command = cluster.command("setpriv");
        command
            .env("KUBECONFIG", kubeconfig)
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program()?)
            .arg("operator")
            .args(["--operator-image", "registry.test/substratus:test"])
            .args(["--health-probe-bind-address", admin, "--metrics-bind-address", admin])
            .arg("--plugins-dir")
            .arg(plugins)
            .arg("--plugin-cache-dir")
            .arg(home.path().join("cache"))
            .args(["--log-filter", "info,substratus=debug"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        if !args.iter().any(|argument| argument.starts_with("--namespace")) {
            command.args(["--namespace", "substratus"]);
        }
        let child = spawn(command).context("start the operator")?;
        Ok(Self { child, log, home, admin: admin.to_owned() })
    }

    /// Waits until it says so.
    pub async fn ready(&self) -> Result<()> {
        let url = format!("http://{}/readyz", self.admin);
        let result = eventually("the operator to be ready", Duration::from_mins(1), async || {
            Ok(reqwest::get(&url).await?.error_for_status().ok().map(drop))
        });
        result.await.with_context(|| self.tail())
    }

    /// Stops it as a kubelet would, and starts it again on the same cache.
    pub async fn restart(self, cluster: &Cluster, args: &[&str]) -> Result<Self> {
        let admin = self.admin.clone();
        Self::start_in(cluster, self.stop().await?, &admin, args).await
    }

    /// Stops it as a kubelet would, and keeps its cache.
    pub async fn pause(self) -> Result<Paused> {
        Ok(Paused { admin: self.admin.clone(), home: self.stop().await? })
    }

    /// Kills it, as a node that loses power does; returns its cache.
    pub fn kill(mut self) -> Result<tempfile::TempDir> {
        self.child.kill().context("kill the operator")?;
        self.child.wait().context("wait for the killed operator")?;
        Ok(std::mem::replace(&mut self.home, tempfile::tempdir()?))
    }

    /// Kills it, so that it can end nothing in order, and starts it again on the same cache.
    pub async fn crash(self, cluster: &Cluster, args: &[&str]) -> Result<Self> {
        let admin = self.admin.clone();
        Self::start_in(cluster, self.kill()?, &admin, args).await
    }

    /// Asks it to end and waits for that.
    pub async fn stop(mut self) -> Result<tempfile::TempDir> {
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        eventually("the operator to end", Duration::from_secs(30), async || Ok(self.child.try_wait()?.map(drop))).await?;
        Ok(std::mem::replace(&mut self.home, tempfile::tempdir()?))
    }

    /// The metrics page.
    pub async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(format!("http://{}/metrics", self.admin)).await?.error_for_status()?.text().await?)
    }

    /// The sum of all samples whose name and labels begin so: a whole family, or one kind of it.
    pub async fn count(&self, prefix: &str) -> Result<u64> {
        let text = self.metrics().await?;
        let samples = text.lines().filter(|line| line.starts_with(prefix));
        Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Its plugin store.
    pub fn cache(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    /// The end of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(40);
        format!("the operator's last words:\n{}", lines.get(from..).unwrap_or_default().join("\n"))
    }
}

/// An operator that was stopped and can go on.
pub struct Paused {
    home: tempfile::TempDir,
    admin: String,
}

impl Paused {
    /// Its plugin store.
    pub fn cache(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    /// Starts it again on the same cache.
    pub async fn resume(self, cluster: &Cluster, args: &[&str]) -> Result<Operator> {
        Operator::start_in(cluster, self.home, &self.admin, args).await
    }
}

/// Starts it from a thread that never ends: the kernel kills it with the thread that started it, so that it ends with this
/// process, also where it is shared by all tests and never dropped.
fn spawn(mut command: Command) -> Result<Child> {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // The other end waits for this alone.
        drop(send.send(command.spawn()));
        loop {
            std::thread::park();
        }
    });
    Ok(receive.recv()??)
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
