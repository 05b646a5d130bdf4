//! Lets pods reach a hub of the outside world: the demo's cluster has a network of its own with no way out. Passes requests on
//! from an address inside to the hub, and to those places that the hub itself redirects to. It must not know what is asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::runtime::Handle;
use url::Url;

/// A relay inside; it ends with the runtime that serves it.
#[derive(Debug)]
pub struct Relay {
    /// Where the hub's API is, for pods.
    pub hub: String,
    /// Where redirects lead, for pods: an address of its own, so that a token for the hub is never sent there.
    pub elsewhere: String,
}

#[derive(Debug)]
struct Shared {
    client: reqwest::Client,
    upstream: Url,
    hub: String,
    elsewhere: String,
    /// Where the hub has redirected to; a path `/7/…` stands for the seventh.
    targets: Mutex<Vec<Url>>,
}

impl Relay {
    /// Listens in the network of the calling thread; requests go out from the network of `runtime`.
    pub fn start(upstream: &str, inside: SocketAddr, runtime: &Handle) -> Result<Self> {
        let upstream: Url = upstream.parse().with_context(|| format!("reading the hub's address {upstream}"))?;
        let bind = || -> Result<std::net::TcpListener> {
            let listener = std::net::TcpListener::bind(inside).with_context(|| format!("listening on {inside}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (hub, elsewhere) = (bind()?, bind()?);
        let shared = Arc::new(Shared {
            client: reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(20))
                .build()?,
            upstream,
            hub: format!("http://{}", hub.local_addr()?),
            elsewhere: format!("http://{}", elsewhere.local_addr()?),
            targets: Mutex::default(),
        });
        let _context = runtime.enter();
        for (listener, router) in
            [(hub, Router::new().fallback(any(to_hub))), (elsewhere, Router::new().fallback(any(to_elsewhere)))]
        {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let router = router.with_state(Arc::clone(&shared));
            runtime.spawn(async move { axum::serve(listener, router).await });
        }
        Ok(Self { hub: shared.hub.clone(), elsewhere: shared.elsewhere.clone() })
    }
}

async fn to_hub(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let base = shared.upstream.as_str().trim_end_matches('/');
    match format!("{base}{path}").parse() {
        Ok(url) => shared.pass(url, request, true).await,
        Err(_) => plain(StatusCode::BAD_REQUEST, "not a path of a hub"),
    }
}

async fn to_elsewhere(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let number = request.uri().path().split('/').nth(1).and_then(|number| number.parse::<usize>().ok());
    let target = number.and_then(|number| shared.targets.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned());
    match target {
        Some(url) => shared.pass(url, request, false).await,
        None => plain(StatusCode::NOT_FOUND, "the hub never redirected here"),
    }
}

impl Shared {
    async fn pass(&self, url: Url, request: Request, is_hub: bool) -> Response {
        let (head, body) = request.into_parts();
        let mut headers = head.headers;
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        if !is_hub {
            headers.remove(header::AUTHORIZATION);
        }
        let mut outgoing = self.client.request(head.method.clone(), url.clone()).headers(headers);
        if head.method == Method::POST {
            outgoing = outgoing.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        match outgoing.send().await {
            Ok(answer) => self.answer(&url, answer),
            Err(error) => plain(
                StatusCode::BAD_GATEWAY,
                &format!("the demo's relay cannot reach {}: {error}", url.host_str().unwrap_or_default()),
            ),
        }
    }

    fn answer(&self, asked: &Url, answer: reqwest::Response) -> Response {
        let status = answer.status();
        let mut headers: HeaderMap = answer.headers().clone();
        for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        rewrite(&mut headers, header::LOCATION, |text| self.inside(asked, text));
        let base = self.upstream.as_str().trim_end_matches('/');
        rewrite(&mut headers, header::LINK, |text| Some(text.replace(base, &self.hub)));
        let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    /// What a redirect is for pods: the hub stays the hub, any other place gets a number.
    fn inside(&self, asked: &Url, location: &str) -> Option<String> {
        let target = asked.join(location).ok()?;
        if target.origin() == self.upstream.origin() {
            let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
            return Some(format!("{}{}{query}", self.hub, target.path()));
        }
        let name = target.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default().to_owned();
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.push(target);
        Some(format!("{}/{}/{name}", self.elsewhere, targets.len() - 1))
    }
}

fn rewrite(headers: &mut HeaderMap, name: HeaderName, change: impl Fn(&str) -> Option<String>) {
    let changed =
        headers.get(&name).and_then(|value| change(value.to_str().ok()?)).and_then(|text| HeaderValue::from_str(&text).ok());
    if let Some(value) = changed {
        headers.insert(name, value);
    }
}

fn plain(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = status;
    response
}
