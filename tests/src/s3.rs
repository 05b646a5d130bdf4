//! A real S3 server on the loopback device, and a proxy before it that misbehaves when it is told to. It must not know who asks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::{Method, StatusCode, header};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::bench::child;
use crate::cluster::settings::Settings;

/// The only account.
pub const ACCESS_KEY: &str = "substratus";
/// Its secret, which must show nowhere.
pub const SECRET_KEY: &str = "it-is-a-secret-of-the-bucket";
/// A bucket that is there.
pub const BUCKET: &str = "artifacts";

/// A server with one bucket. Ends when dropped.
#[derive(Debug)]
pub struct S3 {
    /// Where it is asked, through the proxy.
    pub url: String,
    folder: TempDir,
    server: Child,
    proxy: Arc<Proxy>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status and code, and not passed on.
    Answer(u16, &'static str),
    /// The connection breaks before the answer; the request is not passed on.
    Reset,
    /// The request is passed on, and the connection breaks in place of the answer.
    LostAnswer,
}

/// Which requests go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The method.
    pub method: &'static str,
    /// Part of path and query.
    pub part: &'static str,
    /// What happens.
    pub fault: Fault,
    /// How often.
    pub times: u32,
}

#[derive(Debug)]
struct Proxy {
    client: reqwest::Client,
    upstream: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<String>>,
}

impl S3 {
    /// Starts it; its proxy runs in `runtime`.
    pub fn start(runtime: &Handle) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), runtime)
    }

    /// The same, where pods of a node reach it.
    pub fn start_at(address: IpAddr, runtime: &Handle) -> Result<Self> {
        let program = Settings::from_environment()?.require("versitygw")?;
        let folder = tempfile::tempdir().context("making a folder for buckets")?;
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let (server, upstream) = serve(&program, folder.path())?;
        let listener = TcpListener::bind((address, 0)).context("listening for the proxy")?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let proxy = Arc::new(Proxy { client, upstream, rules: Mutex::default(), requests: Mutex::default() });
        let router = Router::new().fallback(any(pass)).with_state(Arc::clone(&proxy));
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, folder, server, proxy })
    }

    /// The environment with which the bucket is reached.
    pub fn env(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ])
    }

    /// Where the server itself is asked: nothing goes wrong there.
    pub fn direct_url(&self) -> String {
        format!("http://{}", self.proxy.upstream)
    }

    /// Processor time of the server so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        child::cpu_seconds(self.server.id())
    }

    /// Where the server keeps an object.
    pub fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// Every object below `prefix`, by its key after it; uploads that are not complete are none.
    pub fn objects(&self, prefix: &str) -> Result<BTreeMap<String, PathBuf>> {
        let (base, mut found) = (self.object(prefix), BTreeMap::new());
        walk(&base, &base, &mut found)?;
        Ok(found)
    }

    /// Uploads in parts that were begun and neither completed nor given up.
    pub fn uploads(&self) -> Result<usize> {
        let mut count = 0;
        let Ok(objects) = std::fs::read_dir(self.object(".sgwtmp/multipart")) else { return Ok(0) };
        for object in objects {
            count += std::fs::read_dir(object?.path())?.count();
        }
        Ok(count)
    }

    /// From now on this goes wrong.
    pub fn fault(&self, rule: Rule) {
        self.proxy.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.proxy.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Method, path and query of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.proxy.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // Both fail only for a server that has ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Starts the server at a port of its own: what is free now may be somebody else's a moment later.
fn serve(program: &Path, folder: &Path) -> Result<(Child, SocketAddr)> {
    for _ in 0..5 {
        let upstream = free_port()?;
        let mut server = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", &upstream.to_string(), "--quiet", "posix"])
            .arg(folder)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting versitygw")?;
        if listens(&mut server, upstream)? {
            return Ok((server, upstream));
        }
    }
    bail!("versitygw ends again and again")
}

/// Waits until it listens; false where it ended.
fn listens(server: &mut Child, at: SocketAddr) -> Result<bool> {
    let began = Instant::now();
    while TcpStream::connect(at).is_err() && server.try_wait()?.is_none() {
        if began.elapsed() > Duration::from_secs(20) {
            bail!("versitygw does not listen");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Where somebody else listens, the server is about to end.
    std::thread::sleep(Duration::from_millis(200));
    Ok(server.try_wait()?.is_none())
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn walk(base: &Path, folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(base, &path, found)?;
        } else {
            found.insert(path.strip_prefix(base)?.to_string_lossy().into_owned(), path);
        }
    }
    Ok(())
}

impl Proxy {
    fn fault(&self, method: &Method, target: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rule: &&mut Rule| rule.times > 0 && rule.method == method.as_str() && target.contains(rule.part);
        let rule = rules.iter_mut().find(fits)?;
        rule.times -= 1;
        Some(rule.fault)
    }
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    proxy.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {target}", head.method));
    let fault = proxy.fault(&head.method, &target);
    match fault {
        Some(Fault::Reset) => return broken(),
        Some(Fault::Answer(status, code)) => {
            // A client that is answered in the middle of its body may not see the answer.
            let _ = axum::body::to_bytes(body, usize::MAX).await;
            return refused(status, code);
        }
        Some(Fault::LostAnswer) | None => {}
    }
    let mut headers = head.headers;
    headers.remove(header::CONNECTION);
    // The host is part of what was signed.
    let asked = proxy.client.request(head.method, format!("http://{}{target}", proxy.upstream)).headers(headers);
    match asked.body(reqwest::Body::wrap_stream(body.into_data_stream())).send().await {
        Ok(_) if fault == Some(Fault::LostAnswer) => broken(),
        Ok(answer) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            response.headers_mut().remove(header::TRANSFER_ENCODING);
            *response.body_mut() = Body::from_stream(answer.bytes_stream());
            response
        }
        Err(_) => broken(),
    }
}

/// An answer that breaks off before its first byte.
fn broken() -> Response {
    let nothing = futures::stream::once(async { Err::<&[u8], _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) });
    let mut response = Response::new(Body::from_stream(nothing));
    response.headers_mut().insert(header::CONTENT_LENGTH, 10_u16.into());
    response
}

fn refused(status: u16, code: &str) -> Response {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said the proxy</Message></Error>");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
