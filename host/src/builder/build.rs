//! `substratus builder build`: `BuildKit` without root, for one image. It must not know where the sources came from.
//!
//! The daemon runs in a user namespace of its own, and the client outside of it: what a Dockerfile runs is in the daemon's namespace
//! and cannot look into the client, which has the registry's account.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::Value;
use substratus_crds::conditions::reason;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::accounts;
use super::clone::COMMIT;
use super::context::{self, SOURCE};
use super::failure::{self, Failure};
use super::report::Report;
use super::tail::{self, Tail};

/// How long the daemon may take to answer.
const START: Duration = Duration::from_mins(1);
/// Between two questions whether it does.
const PAUSE: Duration = Duration::from_millis(200);
/// How tags begin of what later builds take steps from, beside the image.
pub(crate) const CACHE_TAG: &str = "_cache-";

/// Arguments of the step.
#[derive(Args, Debug)]
pub struct BuildArgs {
    /// The build that this belongs to
    #[arg(long)]
    inputs: String,
    /// Folder that `clone` wrote to
    #[arg(long)]
    from: PathBuf,
    /// Folder of the context, below the sources
    #[arg(long, default_value = "")]
    path: String,
    /// The image to be: `registry/repository:tag`
    #[arg(long)]
    image: String,
    /// Tag, beside the image, of what later builds take steps from
    #[arg(long)]
    cache_tag: String,
    /// Registries (`host[:port]`) that speak plain HTTP
    #[arg(long)]
    plain_http: Vec<String>,
    /// Folders of docker configurations (`*.json`); a later one counts
    #[arg(long)]
    accounts: Vec<PathBuf>,
    /// More arguments of `buildkitd`
    #[arg(long, allow_hyphen_values = true)]
    daemon_arg: Vec<String>,
    /// More arguments of `buildctl build`
    #[arg(long, allow_hyphen_values = true)]
    arg: Vec<String>,
    /// Folder for the daemon's files; on a disk that an overlay can lie on
    #[arg(long)]
    state: PathBuf,
    /// Folder of more certificates to trust
    #[arg(long)]
    ca_dir: Option<PathBuf>,
    /// File for the outcome [default: /dev/termination-log where it exists]
    #[arg(long)]
    termination_log: Option<PathBuf>,
}

impl BuildArgs {
    /// Builds and pushes; the exit code says whether another try could end otherwise.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut stop = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let outcome = tokio::select! {
            outcome = self.build() => outcome,
            // Both programs end with us; the Job starts another pod.
            _ = stop.recv() => Err(Failure::passing(reason::BUILDER_FAILED, "the builder was told to end")),
        };
        let report = match outcome {
            Ok((digest, commit)) => Report::Built { inputs: self.inputs.clone(), digest, commit },
            Err(failure) => Report::failed(&self.inputs, failure),
        };
        report.leave(self.termination_log.as_deref())?;
        Ok(report.exit_code())
    }

    /// The digest of the image, and the commit it was made from.
    async fn build(&self) -> Result<(String, Option<String>), Failure> {
        let broken = |error: anyhow::Error| Failure::passing(reason::BUILDER_FAILED, format!("{error:#}"));
        let context = context::find(&self.from.join(SOURCE), &self.path)?;
        self.prepare().map_err(broken)?;
        accounts::merge(&self.accounts, &self.state.join("docker/config.json"))
            .map_err(|error| Failure::new(reason::PUSH_DENIED, format!("an account of a registry cannot be read: {error:#}")))?;
        let daemon = self.daemon().await?;
        let built = self.solve(&context).await;
        daemon.end().await;
        built?;
        let commit = fs::read_to_string(self.from.join(COMMIT)).ok().map(|commit| commit.trim().to_owned());
        Ok((self.digest().map_err(broken)?, commit.filter(|commit| !commit.is_empty())))
    }

    fn prepare(&self) -> anyhow::Result<()> {
        for folder in ["home", "run", "root", "tmp"] {
            let folder = self.state.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let mut settings = String::new();
        for host in &self.plain_http {
            // `host[:port]`, as the settings had it; quotes would end the name.
            let host = host.replace(['"', '\\'], "");
            writeln!(settings, "[registry.\"{host}\"]\n  http = true")?;
        }
        fs::write(self.state.join("buildkitd.toml"), settings).context("write the settings of buildkitd")
    }

    fn address(&self) -> String {
        format!("unix://{}", self.state.join("run/buildkitd.sock").display())
    }

    /// A program with a home of its own.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command.env("HOME", self.state.join("home")).env("XDG_RUNTIME_DIR", self.state.join("run"));
        // A pod has no USER; to a daemon without one it is root's, with folders of root's.
        command.env("TMPDIR", self.state.join("tmp")).env("USER", "user");
        if let Some(folder) = self.ca_dir.as_ref().filter(|folder| folder.is_dir()) {
            command.env("SSL_CERT_DIR", format!("/etc/ssl/certs:{}", folder.display()));
        }
        command
    }

    /// Starts the daemon and waits until it answers.
    async fn daemon(&self) -> Result<Daemon, Failure> {
        let mut command = self.program("rootlesskit");
        command.arg(format!("--state-dir={}", self.state.join("rootlesskit").display())).arg("buildkitd");
        command.arg(format!("--config={}", self.state.join("buildkitd.toml").display()));
        command.arg(format!("--addr={}", self.address())).arg(format!("--root={}", self.state.join("root").display()));
        // In a pod no process may have a /proc of its own.
        command.arg("--oci-worker-no-process-sandbox").args(&self.daemon_arg);
        let mut daemon = Daemon::start(&mut command)?;
        let began = tokio::time::Instant::now();
        loop {
            let mut question = self.program("buildctl");
            question.arg(format!("--addr={}", self.address())).args(["debug", "workers"]);
            // What it says while the daemon is not there yet interests nobody.
            let answers = tail::start(&mut question).map_err(|error| missing("buildctl", &error))?.wait_with_output().await;
            if answers.is_ok_and(|output| output.status.success()) {
                return Ok(daemon);
            }
            if let Some(said) = daemon.ended().await {
                return Err(failure::of_daemon(said.lines()));
            }
            if began.elapsed() > START {
                let message = format!("buildkitd does not answer within {} s", START.as_secs());
                return Err(Failure::passing(reason::BUILDER_FAILED, message));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Has the image built and pushed.
    async fn solve(&self, context: &Path) -> Result<(), Failure> {
        let mut command = self.program("buildctl");
        command.env("DOCKER_CONFIG", self.state.join("docker"));
        command.arg(format!("--addr={}", self.address())).args(["build", "--progress=plain", "--frontend=dockerfile.v0"]);
        // By no name: whatever a folder is called, it is one word of no option.
        command.current_dir(context).args(["--local=context=.", "--local=dockerfile=."]);
        let insecure = if self.is_plain() { ",registry.insecure=true" } else { "" };
        command.arg(format!("--output=type=image,name={},push=true{insecure}", self.image));
        let cache = self.cache();
        command.arg(format!("--import-cache=type=registry,ref={cache}{insecure}"));
        command.arg(format!("--export-cache=type=registry,ref={cache},mode=max,ignore-error=true{insecure}"));
        command.arg(format!("--metadata-file={}", self.metadata().display())).args(&self.arg);
        let mut tail = Tail::default();
        let status = tail.run(&mut command).await.map_err(|error| missing("buildctl", &error))?;
        if status.success() { Ok(()) } else { Err(failure::of_build(tail.lines(), &self.image)) }
    }

    fn is_plain(&self) -> bool {
        let host = self.image.split('/').next().unwrap_or_default();
        self.plain_http.iter().any(|plain| plain == host)
    }

    fn cache(&self) -> String {
        let repository = self.image.rsplit_once(':').map_or(self.image.as_str(), |(repository, _)| repository);
        format!("{repository}:{}", self.cache_tag)
    }

    fn metadata(&self) -> PathBuf {
        self.state.join("metadata.json")
    }

    fn digest(&self) -> anyhow::Result<String> {
        let text = fs::read(self.metadata()).context("read what buildctl says of the image")?;
        let said: Value = serde_json::from_slice(&text).context("read what buildctl says of the image")?;
        let digest = said.get("containerimage.digest").and_then(Value::as_str);
        digest.map(str::to_owned).ok_or_else(|| anyhow!("buildctl does not say the digest of the image"))
    }
}

fn missing(program: &str, error: &std::io::Error) -> Failure {
    let message = format!("{program} cannot be run in the image of the setting BUILDER_IMAGE: {error}");
    Failure::passing(reason::BUILDER_FAILED, message)
}

/// The daemon, and what it prints.
struct Daemon {
    child: Child,
    listener: Option<JoinHandle<Tail>>,
}

impl Daemon {
    fn start(command: &mut Command) -> Result<Self, Failure> {
        let mut child = tail::start(command).map_err(|error| missing("rootlesskit", &error))?;
        let errors = child.stderr.take();
        let listener = errors.map(|errors| {
            tokio::spawn(async move {
                let mut tail = Tail::default();
                // A stream that breaks has said what it had to say.
                drop(tail.follow(errors).await);
                tail
            })
        });
        Ok(Self { child, listener })
    }

    /// What it said, where it has ended.
    async fn ended(&mut self) -> Option<Tail> {
        self.child.try_wait().ok().flatten()?;
        match self.listener.take() {
            Some(listener) => Some(listener.await.unwrap_or_default()),
            None => Some(Tail::default()),
        }
    }

    async fn end(mut self) {
        // It keeps nothing that anybody needs.
        drop(self.child.kill().await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(image: &str, plain: &[&str]) -> BuildArgs {
        BuildArgs {
            inputs: "i".to_owned(),
            from: PathBuf::from("/from"),
            path: String::new(),
            image: image.to_owned(),
            cache_tag: "_cache-1".to_owned(),
            plain_http: plain.iter().map(|host| (*host).to_owned()).collect(),
            accounts: Vec::new(),
            daemon_arg: Vec::new(),
            arg: Vec::new(),
            state: PathBuf::from("/state"),
            ca_dir: None,
            termination_log: None,
        }
    }

    #[test]
    fn plain_http_is_spoken_to_the_registries_that_are_named() {
        assert!(arguments("r.test:5000/team/x:v1", &["r.test:5000"]).is_plain());
        assert!(!arguments("r.test:5000/team/x:v1", &["r.test"]).is_plain());
        assert!(!arguments("r.test/x:v1", &[]).is_plain());
    }

    #[test]
    fn steps_are_kept_beside_the_image() {
        assert_eq!(arguments("r.test:5000/team/x:v1", &[]).cache(), "r.test:5000/team/x:_cache-1");
    }

    #[tokio::test]
    async fn a_builder_image_without_a_builder_says_which_setting_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("source")).unwrap();
        let own = |name: &str| folder.path().join(name);
        let arguments = BuildArgs { from: folder.path().to_owned(), state: own("state"), ..arguments("r.test/x:1", &[]) };
        let Err(failure) = arguments.build().await else { panic!("nothing builds here") };
        assert_eq!((failure.reason, failure.passing), (reason::BUILDER_FAILED, true));
        assert!(failure.message.contains("BUILDER_IMAGE") || failure.message.contains("builder"), "{}", failure.message);
    }
}
