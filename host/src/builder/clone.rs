//! `substratus builder clone`: a git repository as a build context. It must not know who builds it, and has no account of a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use substratus_crds::conditions::reason;
use tokio::process::Command;

use super::accounts::{self, Opener};
use super::context::{self, SOURCE};
use super::failure::{self, Failure};
use super::report::Report;
use super::tail::Tail;

/// File beside the sources that names the commit.
pub(super) const COMMIT: &str = "commit";

/// Arguments of the step.
#[derive(Args, Debug)]
pub struct CloneArgs {
    /// The build that this belongs to
    #[arg(long)]
    inputs: String,
    /// The repository
    #[arg(long)]
    url: String,
    /// Branch, or a tag of this name
    #[arg(long)]
    branch: Option<String>,
    /// Tag, or a branch of this name; wins
    #[arg(long)]
    tag: Option<String>,
    /// Commit, in full; wins over both
    #[arg(long)]
    commit: Option<String>,
    /// Folder that is the context
    #[arg(long, default_value = "")]
    path: String,
    /// Check out submodules, too
    #[arg(long)]
    submodules: bool,
    /// Commits of the history to fetch; all of them for 0
    #[arg(long, default_value_t = 1)]
    depth: u32,
    /// Folder of the Secret that opens the repository
    #[arg(long)]
    secret: Option<PathBuf>,
    /// Folder for what git and ssh read of it
    #[arg(long, default_value = "/tmp")]
    private: PathBuf,
    /// More certificates to trust, in PEM format
    #[arg(long, env = crate::worker::network::CA_BUNDLE)]
    ca_file: Option<PathBuf>,
    /// Folder to write to
    #[arg(long)]
    to: PathBuf,
    /// File for the outcome of a failure [default: /dev/termination-log where it exists]
    #[arg(long)]
    termination_log: Option<PathBuf>,
}

/// Certificates of the system, in the places of the usual images.
const CERTIFICATES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt"];

impl CloneArgs {
    /// Fetches, and leaves an outcome where that fails: the next step has the last word.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.fetch().await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(failure) => {
                let report = Report::failed(&self.inputs, failure);
                report.leave(self.termination_log.as_deref())?;
                Ok(report.exit_code())
            }
        }
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let broken = |error: anyhow::Error| Failure::passing(reason::CLONE_FAILED, format!("{error:#}"));
        let source = self.to.join(SOURCE);
        // What an earlier container of this pod left is not whole.
        drop(fs::remove_dir_all(&source));
        let opener = accounts::opener(&self.url, self.secret.as_deref(), &self.private).map_err(broken)?;
        let trusted = self.trusted().map_err(broken)?;
        let tail = Tail::hiding(opener.secrets.clone());
        let mut git = Git { source: source.clone(), opener, trusted, tail };
        fs::create_dir_all(&source).map_err(|error| broken(error.into()))?;
        git.must("make a repository", &["init", "--quiet"]).await?;
        git.must("make a repository", &["remote", "add", "origin", &self.url]).await?;
        let commit = self.check_out(&mut git).await?;
        if self.submodules {
            let depth = format!("--depth={}", self.depth);
            let mut arguments = vec!["submodule", "--quiet", "update", "--init", "--recursive"];
            arguments.extend((self.depth > 0).then_some(depth.as_str()));
            git.must(&format!("fetch the submodules of {}", self.url), &arguments).await?;
        }
        forget_history(&source).map_err(broken)?;
        let place = format!("{} of {}", self.wanted(), self.url);
        context::check(&source, &self.path, &place, "spec.build.git.path names the folder that has it")?;
        fs::write(self.to.join(COMMIT), commit).map_err(|error| broken(error.into()))
    }

    /// Fetches what is asked for, the first of its meanings that there is, and answers its commit.
    async fn check_out(&self, git: &mut Git) -> Result<String, Failure> {
        let meanings = match (&self.commit, &self.tag, &self.branch) {
            (Some(commit), _, _) => vec![commit.clone()],
            (None, Some(tag), _) => vec![format!("refs/tags/{tag}"), format!("refs/heads/{tag}")],
            (None, None, Some(branch)) => vec![format!("refs/heads/{branch}"), format!("refs/tags/{branch}")],
            (None, None, None) => vec!["HEAD".to_owned()],
        };
        let depth = format!("--depth={}", self.depth);
        let what = format!("fetch {} of {}", self.wanted(), self.url);
        let mut found = "FETCH_HEAD";
        let last = meanings.len().saturating_sub(1);
        for (at, meaning) in meanings.iter().enumerate() {
            let mut arguments = vec!["fetch", "--quiet", "--no-tags"];
            arguments.extend((self.depth > 0).then_some(depth.as_str()));
            arguments.extend(["origin", meaning.as_str()]);
            if git.run(&arguments).await? {
                break;
            }
            let missing = git.tail.lines().rev().take(3).any(failure::is_missing);
            if missing && let Some(commit) = &self.commit {
                // Not every server hands out a commit by its name: with all branches it is there, or nowhere.
                let everything =
                    ["fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
                git.must(&what, &everything).await?;
                found = commit;
                break;
            }
            if !missing || at == last {
                return Err(git.failure(&what));
            }
        }
        if !git.run(&["checkout", "--quiet", "--detach", found]).await? {
            let message = format!("{what}: the repository has no such branch, tag or commit");
            return Err(Failure::new(reason::REF_NOT_FOUND, message).after(git.tail.lines()));
        }
        git.says(&["rev-parse", "HEAD"]).await
    }

    fn wanted(&self) -> String {
        match (&self.commit, &self.tag, &self.branch) {
            (Some(commit), _, _) => format!("commit {commit}"),
            (None, Some(tag), _) => format!("tag {tag}"),
            (None, None, Some(branch)) => format!("branch {branch}"),
            (None, None, None) => "the default branch".to_owned(),
        }
    }

    /// The system's certificates and the administrator's in one file, where there are such.
    fn trusted(&self) -> anyhow::Result<Option<PathBuf>> {
        let Some(own) = self.ca_file.as_ref().filter(|file| file.is_file()) else { return Ok(None) };
        let mut all = fs::read(own).with_context(|| format!("read {}", own.display()))?;
        if let Some(system) = CERTIFICATES.iter().find_map(|file| fs::read(file).ok()) {
            all.push(b'\n');
            all.extend(system);
        }
        let file = self.private.join("certificates.pem");
        fs::write(&file, all).with_context(|| format!("write {}", file.display()))?;
        Ok(Some(file))
    }
}

/// One repository, and what git prints.
struct Git {
    source: PathBuf,
    opener: Opener,
    trusted: Option<PathBuf>,
    tail: Tail,
}

impl Git {
    fn command(&self, arguments: &[&str]) -> Command {
        let config = [
            // Nothing of a repository runs.
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("init.defaultBranch", "main"),
            ("advice.detachedHead", "false"),
            // A server that falls silent is one that does not answer.
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "60"),
        ];
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.source).args(arguments).env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_LFS_SKIP_SMUDGE", "1");
        // Submodules name URLs, too: no local path and no program is one.
        command.env("GIT_ALLOW_PROTOCOL", "http:https:ssh");
        command.env(
            "GIT_SSH_COMMAND",
            self.opener.ssh.as_deref().unwrap_or("ssh -F /dev/null -o BatchMode=yes -o ConnectTimeout=20"),
        );
        command.envs(self.trusted.as_ref().map(|file| ("GIT_SSL_CAINFO", file)));
        let mut count = 0;
        for (key, value) in config.iter().chain(&self.opener.config) {
            command.env(format!("GIT_CONFIG_KEY_{count}"), key).env(format!("GIT_CONFIG_VALUE_{count}"), value);
            count += 1;
        }
        command.env("GIT_CONFIG_COUNT", count.to_string());
        command
    }

    /// Whether it ended well.
    async fn run(&mut self, arguments: &[&str]) -> Result<bool, Failure> {
        let mut command = self.command(arguments);
        self.tail.run(&mut command).await.map(|status| status.success()).map_err(|error| no_git(&error))
    }

    async fn must(&mut self, what: &str, arguments: &[&str]) -> Result<(), Failure> {
        if self.run(arguments).await? { Ok(()) } else { Err(self.failure(what)) }
    }

    async fn says(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.command(arguments).output().await.map_err(|error| no_git(&error))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn failure(&self, what: &str) -> Failure {
        failure::of_git(what, self.opener.is_there, self.tail.lines())
    }
}

fn no_git(error: &std::io::Error) -> Failure {
    Failure::passing(reason::BUILDER_FAILED, format!("git cannot be run in the image of the setting GIT_IMAGE: {error}"))
}

/// Removes what git keeps for itself: a context with it would be another one at every clone, and nothing of it would be cached.
fn forget_history(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let (path, kind) = (entry.path(), entry.file_type().context("look at a file")?);
        match (entry.file_name() == ".git", kind.is_dir()) {
            (true, true) => fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?,
            (true, false) => fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?,
            (false, true) => forget_history(&path)?,
            (false, false) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "clone_tests.rs"]
mod tests;
