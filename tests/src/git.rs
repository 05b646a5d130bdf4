//! A real git server on the loopback device or a node's address: git's own smart HTTP, and repositories that tests write to. What lies
//! below `private/` wants an account. It must not know who clones.

mod ssh;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use ssh::SshServer;

/// Largest body that a client sends: what it has already.
const MAX_BODY: usize = 16 << 20;

/// A server with repositories of its own. Ends when dropped.
#[derive(Debug)]
pub struct GitServer {
    /// Where it answers: `http://host:port`.
    pub url: String,
    root: TempDir,
    served: Arc<Served>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Served {
    root: PathBuf,
    account: String,
    fetches: AtomicUsize,
}

/// A repository of the server, and a work tree to commit in.
#[derive(Debug)]
pub struct Repository {
    /// Where clients find it.
    pub url: String,
    bare: PathBuf,
    work: PathBuf,
}

impl GitServer {
    /// Starts it at a free port of `address`, for `user` and `password` where an account is wanted.
    pub fn start(address: SocketAddr, (user, password): (&str, &str), runtime: &Handle) -> Result<Self> {
        let root = tempfile::tempdir().context("making a folder for repositories")?;
        let account = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
        let served = Arc::new(Served { root: root.path().join("bare"), account, fetches: AtomicUsize::new(0) });
        fs::create_dir(&served.root).context("making a folder for repositories")?;
        let listener = std::net::TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&served));
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                _ = axum::serve(listener, router) => {}
            }
        });
        Ok(Self { url, root, served, _stop: stop.drop_guard() })
    }

    /// Makes a repository; one whose name begins with `private/` wants the account.
    pub fn repository(&self, name: &str) -> Result<Repository> {
        let bare = self.served.root.join(format!("{name}.git"));
        let work = self.root.path().join("work").join(name);
        fs::create_dir_all(&work).context("making a work tree")?;
        let folder = bare.to_string_lossy().into_owned();
        git(&work, &["init", "--quiet", "--bare", "--initial-branch=main", &folder])?;
        git(&work, &["init", "--quiet", "--initial-branch=main"])?;
        git(&work, &["remote", "add", "origin", &folder])?;
        Ok(Repository { url: format!("{}/{name}.git", self.url), bare, work })
    }

    /// Requests for objects so far.
    pub fn fetches(&self) -> usize {
        self.served.fetches.load(Ordering::Relaxed)
    }
}

impl Repository {
    /// Commits these files on a branch, which begins where the work tree stands, and answers the commit.
    pub fn commit(&self, branch: &str, files: &[(&str, &str)]) -> Result<String> {
        // The first commit has no branch to come from.
        if git(&self.work, &["switch", "--quiet", branch]).is_err() {
            git(&self.work, &["switch", "--quiet", "--create", branch])
                .or_else(|_| git(&self.work, &["switch", "--quiet", "--orphan", branch]))?;
        }
        for (path, content) in files {
            let path = self.work.join(path);
            fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        }
        self.finish(branch)
    }

    /// Makes another repository a submodule of this one.
    pub fn submodule(&self, branch: &str, url: &str, path: &str, commit: &str) -> Result<String> {
        git(&self.work, &["switch", "--quiet", branch])?;
        fs::write(self.work.join(".gitmodules"), format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"))?;
        // An empty folder stands for one that nobody has checked out.
        fs::create_dir_all(self.work.join(path))?;
        git(&self.work, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")])?;
        self.finish(branch)
    }

    fn finish(&self, branch: &str) -> Result<String> {
        git(&self.work, &["add", "--all", "."])?;
        git(&self.work, &["commit", "--quiet", "--allow-empty", "--message", "as the test wants it"])?;
        git(&self.work, &["push", "--quiet", "origin", branch])?;
        git(&self.work, &["rev-parse", "HEAD"])
    }

    /// Tags what the work tree stands at.
    pub fn tag(&self, name: &str) -> Result<()> {
        git(&self.work, &["tag", "--annotate", "--message", name, name])?;
        git(&self.work, &["push", "--quiet", "origin", &format!("refs/tags/{name}")]).map(drop)
    }

    /// The folder that the server serves.
    pub fn bare(&self) -> &Path {
        &self.bare
    }
}

/// Runs git without anybody's settings.
fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = std::process::Command::new("git");
    command.current_dir(folder).args(["-c", "user.name=Test", "-c", "user.email=test@example.test"]).args(arguments);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null());
    let output = command.output().context("running git; it is in the package git")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), words.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn answer(State(served): State<Arc<Served>>, request: Request<Body>) -> Response<Body> {
    match backend(&served, request).await {
        Ok(response) => response,
        Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error:#}")),
    }
}

fn reply(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response
}

/// Hands a request to `git http-backend`, as any web server would.
async fn backend(served: &Served, request: Request<Body>) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let text = |name: header::HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = parts.uri.path();
    if path.starts_with("/private/") && text(header::AUTHORIZATION) != served.account {
        let mut response = reply(StatusCode::UNAUTHORIZED, "who are you?");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, "Basic realm=\"git\"".parse()?);
        return Ok(response);
    }
    if path.ends_with("/git-upload-pack") {
        served.fetches.fetch_add(1, Ordering::Relaxed);
    }
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &served.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        // The folders belong to whoever runs the test.
        .envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", path)
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env("GIT_PROTOCOL", parts.headers.get("git-protocol").and_then(|value| value.to_str().ok()).unwrap_or_default());
    let body = axum::body::to_bytes(body, MAX_BODY).await.context("reading a request")?;
    command.env("CONTENT_LENGTH", body.len().to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let mut input = child.stdin.take().context("no way to ask")?;
    tokio::spawn(async move {
        // It may have heard enough.
        drop(input.write_all(&body).await);
    });
    let output = child.wait_with_output().await.context("running git http-backend")?;
    response(&output.stdout)
}

/// What a CGI program prints: headers, an empty line, the body.
fn response(printed: &[u8]) -> Result<Response<Body>> {
    let end = printed.windows(4).position(|four| four == b"\r\n\r\n").context("git http-backend prints no headers")?;
    let (head, body) =
        (String::from_utf8_lossy(printed.get(..end).unwrap_or_default()), printed.get(end + 4..).unwrap_or_default());
    let mut response = Response::new(Body::from(Bytes::copy_from_slice(body)));
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            *response.status_mut() = code.parse().context("reading a status")?;
        } else {
            response.headers_mut().insert(name.parse::<header::HeaderName>()?, value.trim().parse()?);
        }
    }
    Ok(response)
}
