//! The referrers API before a registry that lacks it: notes the subject of every manifest that passes, and lists by it, as the
//! distribution specification 1.1 says. Everything else goes to the registry as it came.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::proxy;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry with the referrers API. It runs in the runtime that started it.
#[derive(Debug)]
pub struct Referrers {
    /// `host:port`, spoken to without TLS.
    pub host: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: reqwest::Client,
    upstream: String,
    page: usize,
    /// Descriptors by repository and subject.
    attached: Mutex<BTreeMap<(String, String), Vec<Value>>>,
    /// The status of every list from now on, where it is no list.
    broken: Mutex<Option<StatusCode>>,
    lists: Mutex<usize>,
}

impl Referrers {
    /// Starts before the registry at `upstream`; a list has `page` entries per page.
    pub fn start(upstream: &str, page: usize) -> Result<Self> {
        let inner = Arc::new(Inner {
            client: proxy::client()?,
            upstream: upstream.to_owned(),
            page,
            attached: Mutex::default(),
            broken: Mutex::default(),
            lists: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        let at = proxy::listen(Ipv4Addr::LOCALHOST.into(), &Handle::current(), router)?;
        Ok(Self { host: at.to_string(), inner })
    }

    /// Every list is this status from now on.
    pub fn fail(&self, status: StatusCode) {
        *self.inner.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
    }

    /// Lists these for a digest from now on, whatever is attached to it.
    pub fn pretend(&self, repository: &str, digest: &str, entries: Vec<Value>) {
        let mut attached = self.inner.attached.lock().unwrap_or_else(PoisonError::into_inner);
        attached.insert((repository.to_owned(), digest.to_owned()), entries);
    }

    /// How many lists were asked for.
    pub fn lists(&self) -> usize {
        *self.inner.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    match inner.answer(request).await {
        Ok(response) => response,
        Err(error) => reply(StatusCode::BAD_GATEWAY, format!("{error:#}")),
    }
}

fn reply(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

impl Inner {
    async fn answer(&self, request: Request) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let below = path.strip_prefix("/v2/").unwrap_or_default();
        if let (&Method::GET, Some((repository, digest))) = (&parts.method, below.split_once("/referrers/")) {
            return self.list(repository, digest, &query);
        }
        let body = axum::body::to_bytes(body, usize::MAX).await?;
        let subject = match (&parts.method, below.split_once("/manifests/")) {
            (&Method::PUT, Some((repository, _))) => self.note(repository, &parts.headers, &body),
            _ => None,
        };
        let pass = format!("http://{}{}", self.upstream, parts.uri);
        // With our own name in it: the registry says where uploads go on.
        let sent = self.client.request(parts.method, pass).headers(parts.headers).body(body).send().await?;
        let (status, mut headers) = (sent.status(), sent.headers().clone());
        headers.remove(header::TRANSFER_ENCODING);
        let mut response = reply(status, sent.bytes().await?);
        if let (Some(subject), true) = (subject, status.is_success()) {
            headers.insert("oci-subject", subject.parse()?);
        }
        *response.headers_mut() = headers;
        Ok(response)
    }

    /// Remembers what a manifest is attached to.
    fn note(&self, repository: &str, headers: &HeaderMap, body: &Bytes) -> Option<String> {
        let manifest: Value = serde_json::from_slice(body).ok()?;
        let subject = manifest.pointer("/subject/digest")?.as_str()?.to_owned();
        let media = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(body)));
        let kind = manifest.get("artifactType").or_else(|| manifest.pointer("/config/mediaType")).cloned();
        let mut entry = json!({"mediaType": media, "digest": digest, "size": body.len(), "artifactType": kind});
        if let (Some(annotations), Some(entry)) = (manifest.get("annotations"), entry.as_object_mut()) {
            entry.insert("annotations".to_owned(), annotations.clone());
        }
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = attached.entry((repository.to_owned(), subject.clone())).or_default();
        if entries.iter().all(|known| known.get("digest") != entry.get("digest")) {
            entries.push(entry);
        }
        Some(subject)
    }

    fn list(&self, repository: &str, digest: &str, query: &str) -> Result<Response> {
        *self.lists.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if let Some(status) = *self.broken.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(reply(status, Body::empty()));
        }
        let queries: BTreeMap<String, String> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = attached.get(&(repository.to_owned(), digest.to_owned())).cloned().unwrap_or_default();
        if let Some(kind) = queries.get("artifactType") {
            entries.retain(|entry| entry.get("artifactType").and_then(Value::as_str) == Some(kind));
        }
        let start: usize = queries.get("start").map_or(Ok(0), |start| start.parse())?;
        let next = start + self.page;
        let page: Vec<Value> = entries.iter().skip(start).take(self.page).cloned().collect();
        let mut response = Response::builder().header(header::CONTENT_TYPE, INDEX);
        if next < entries.len() {
            response = response.header(header::LINK, format!("</v2/{repository}/referrers/{digest}?start={next}>; rel=\"next\""));
        }
        if queries.contains_key("artifactType") {
            response = response.header("oci-filters-applied", "artifactType");
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": page});
        Ok(response.body(Body::from(index.to_string()))?)
    }
}
