//! A real OCI registry and a proxy before it that misbehaves when it is told to, and counts what is sent. It must not know who asks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use futures::StreamExt as _;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::proxy::{self, Rules, broken};

/// The only account of a registry that wants one.
pub const USER: &str = "user";
/// Its password, which must show nowhere.
pub const PASSWORD: &str = "pa55-of-the-registry";
/// Both as `htpasswd -B` writes them.
const HTPASSWD: &str = "user:$2b$05$/.AeTZmHNcBlAFqF0UmABuaTiL0atRL6Rvc0Rgs4o2T1SYk69aRdu";
/// Media type of an OCI manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry. Ends when dropped.
#[derive(Debug)]
pub struct Registry {
    /// Host and port, through the proxy.
    pub host: String,
    server: super::Registry,
    proxy: Arc<Proxy>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is answered with this status and body, and not passed on.
    Answer(u16, &'static str),
    /// The same with a challenge of this realm; nothing is passed on.
    Challenge(&'static str),
    /// The same with a redirect to there.
    Redirect(&'static str),
    /// The connection breaks before the answer; the request is not passed on.
    Reset,
    /// The request is passed on, and the connection breaks in place of the answer.
    LostAnswer,
    /// So many bytes of the request are passed on, and then both connections break.
    CutAfter(u64),
    /// The request's body arrives at no more than so many bytes a second.
    Slow(u64),
}

/// Which requests go wrong.
pub type Rule = proxy::Rule<Fault>;

/// A request that was answered, or would have been.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Method, path and query.
    pub line: String,
    /// Its `Authorization`.
    pub authorization: Option<String>,
    /// Status of the answer; none where the connection broke.
    pub status: Option<u16>,
}

#[derive(Debug)]
struct Proxy {
    client: reqwest::Client,
    upstream: SocketAddr,
    rules: Rules<Fault>,
    asked: Mutex<Vec<Asked>>,
    /// Bytes of bodies that came.
    received: AtomicU64,
}

impl Registry {
    /// Starts one that anybody may read and write; its proxy runs in `runtime`.
    pub fn start(runtime: &Handle) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), false, runtime)
    }

    /// The same for [`USER`] alone.
    pub fn start_private(runtime: &Handle) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), true, runtime)
    }

    /// The same, where pods of a node reach it.
    pub fn start_at(address: IpAddr, private: bool, runtime: &Handle) -> Result<Self> {
        let server = super::Registry::start_for(private.then_some(HTPASSWD))?;
        let upstream = server.host.parse().context("reading the registry's address")?;
        let (client, rules, asked, received) = (proxy::client()?, Rules::default(), Mutex::default(), AtomicU64::new(0));
        let proxy = Arc::new(Proxy { client, upstream, rules, asked, received });
        let router = Router::new().fallback(any(pass)).with_state(Arc::clone(&proxy));
        Ok(Self { host: proxy::listen(address, runtime, router)?.to_string(), server, proxy })
    }

    /// The registry's own address, past the proxy.
    pub fn upstream(&self) -> String {
        self.proxy.upstream.to_string()
    }

    /// From now on this goes wrong.
    pub fn fault(&self, rule: Rule) {
        self.proxy.rules.add(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.proxy.rules.clear();
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.proxy.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Digests of blobs whose last request was answered well, as often as it was.
    pub fn stored(&self) -> Vec<String> {
        let digest = |asked: &Asked| {
            let done = asked.line.starts_with("PUT ") && asked.line.contains("/blobs/uploads/") && asked.status == Some(201);
            let (_, digest) = asked.line.split_once("digest=").filter(|_| done)?;
            Some(digest.split('&').next().unwrap_or(digest).replace("%3A", ":"))
        };
        self.asked().iter().filter_map(digest).collect()
    }

    /// Bytes of all requests' bodies so far.
    pub fn received(&self) -> u64 {
        self.proxy.received.load(Ordering::Relaxed)
    }

    /// Where a blob lies on the registry's disk.
    pub fn blob(&self, digest: &str) -> Result<PathBuf> {
        self.server.blob(digest)
    }

    /// What lies under a tag or a digest: its digest and content; nothing where there is no such manifest.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Option<(String, Value)>> {
        let url = format!("http://{}/v2/{repository}/manifests/{reference}", self.proxy.upstream);
        let request = self.proxy.client.get(url).header(header::ACCEPT, MANIFEST).basic_auth(USER, Some(PASSWORD));
        let answer = request.send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        ensure!(answer.status().is_success(), "the registry answered {}", answer.status());
        let bytes = answer.bytes().await?;
        Ok(Some((digest(&bytes), serde_json::from_slice(&bytes)?)))
    }

    /// Puts a blob there.
    pub async fn put_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let (client, base) = (&self.proxy.client, format!("http://{}/v2/{repository}/blobs/uploads/", self.proxy.upstream));
        let begun = client.post(base).basic_auth(USER, Some(PASSWORD)).send().await?;
        let location = begun.headers().get(header::LOCATION).context("no location")?.to_str()?.to_owned();
        let digest = digest(bytes);
        let sign = if location.contains('?') { '&' } else { '?' };
        let put = client.put(format!("{location}{sign}digest={digest}")).basic_auth(USER, Some(PASSWORD));
        let answer = put.body(bytes.to_vec()).send().await?;
        ensure!(answer.status() == StatusCode::CREATED, "the registry answered {}", answer.status());
        Ok(digest)
    }

    /// Puts a manifest there as it is, under a tag; answers with its digest.
    pub async fn put_manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Result<String> {
        let text = manifest.to_string();
        let kind = manifest["mediaType"].as_str().unwrap_or(MANIFEST).to_owned();
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.proxy.upstream);
        let put = self.proxy.client.put(url).basic_auth(USER, Some(PASSWORD)).header(header::CONTENT_TYPE, kind);
        let answer = put.body(text.clone()).send().await?;
        ensure!(answer.status() == StatusCode::CREATED, "the registry answered {}: {}", answer.status(), answer.text().await?);
        Ok(digest(text.as_bytes()))
    }
}

/// As registries write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A docker configuration with the account of a registry.
pub fn docker_config(host: &str, password: &str) -> Value {
    json!({"auths": {host: {"username": USER, "password": password}}})
}

impl Proxy {
    fn answered(&self, line: String, authorization: Option<String>, status: Option<u16>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { line, authorization, status });
    }
}

async fn pass(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let line = format!("{} {target}", head.method);
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let fault = proxy.rules.strike(&head.method, &target);
    match fault {
        Some(Fault::Reset) => {
            proxy.answered(line, authorization, None);
            return broken();
        }
        Some(Fault::Answer(status, text)) => {
            // A client that is answered in the middle of its body may not see the answer.
            let _ = axum::body::to_bytes(body, usize::MAX).await;
            proxy.answered(line, authorization, Some(status));
            return answer(status, text, None, None);
        }
        Some(Fault::Challenge(realm)) => {
            let _ = axum::body::to_bytes(body, usize::MAX).await;
            proxy.answered(line, authorization, Some(401));
            return answer(401, "", Some(format!("Bearer realm=\"{realm}\",service=\"test\"")), None);
        }
        Some(Fault::Redirect(to)) => {
            proxy.answered(line, authorization, Some(307));
            return answer(307, "", None, Some(to));
        }
        _ => {}
    }
    let mut headers = head.headers;
    headers.remove(header::CONNECTION);
    let counted = Arc::clone(&proxy);
    let mut left = if let Some(Fault::CutAfter(bytes)) = fault { bytes } else { u64::MAX };
    let pace = if let Some(Fault::Slow(bytes)) = fault { Some(bytes.max(1)) } else { None };
    let body = body.into_data_stream().then(move |chunk| async move {
        if let (Some(pace), Ok(chunk)) = (pace, &chunk) {
            tokio::time::sleep(Duration::from_micros(chunk.len() as u64 * 1_000_000 / pace)).await;
        }
        chunk
    });
    let body = body.map(move |chunk| {
        let chunk = chunk.map_err(std::io::Error::other)?;
        let bytes = chunk.len() as u64;
        counted.received.fetch_add(bytes, Ordering::Relaxed);
        if bytes > left {
            return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        }
        left -= bytes;
        Ok(chunk)
    });
    let asked = proxy.client.request(head.method.clone(), format!("http://{}{target}", proxy.upstream)).headers(headers);
    // A body that nobody sent would be announced as one of unknown length.
    let asked =
        if matches!(head.method, Method::GET | Method::HEAD) { asked } else { asked.body(reqwest::Body::wrap_stream(body)) };
    match asked.send().await {
        Ok(_) if fault == Some(Fault::LostAnswer) => {
            proxy.answered(line, authorization, None);
            broken()
        }
        Ok(answer) => {
            proxy.answered(line, authorization, Some(answer.status().as_u16()));
            proxy::answered(answer)
        }
        Err(_) => {
            proxy.answered(line, authorization, None);
            broken()
        }
    }
}

fn answer(status: u16, text: &str, challenge: Option<String>, location: Option<&str>) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(challenge) = challenge.and_then(|challenge| challenge.parse().ok()) {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(location) = location.and_then(|location| location.parse().ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
