//! A proxy on the loopback device before a server of buckets: it writes down what is asked, and misbehaves when it is told to. It
//! must not know which server it stands before.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Method, StatusCode, header};
use tokio::runtime::Handle;

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
pub struct Rule<F = Fault> {
    /// The method.
    pub method: &'static str,
    /// Part of path and query.
    pub part: &'static str,
    /// What happens.
    pub fault: F,
    /// How often.
    pub times: u32,
}

/// Rules that hold now.
#[derive(Debug)]
pub(crate) struct Rules<F = Fault>(Mutex<Vec<Rule<F>>>);

impl<F> Default for Rules<F> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<F: Copy> Rules<F> {
    pub(crate) fn add(&self, rule: Rule<F>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What goes wrong with a request, counted.
    pub(crate) fn strike(&self, method: &Method, target: &str) -> Option<F> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rule: &&mut Rule<F>| rule.times > 0 && rule.method == method.as_str() && target.contains(rule.part);
        let rule = rules.iter_mut().find(fits)?;
        rule.times -= 1;
        Some(rule.fault)
    }
}

/// How a request is passed on; an error breaks the connection.
pub(crate) type Pass = Arc<dyn Fn(Parts, Body) -> BoxFuture<'static, Result<Response>> + Send + Sync>;

/// A proxy. Ends with its runtime.
#[derive(Debug)]
pub struct Proxy {
    /// Where it is asked.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    pass: Pass,
    rules: Rules,
    requests: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Proxy {
    /// Starts it in `runtime`.
    pub(crate) fn start(address: IpAddr, runtime: &Handle, pass: Pass) -> Result<Self> {
        let shared = Arc::new(Shared { pass, rules: Rules::default(), requests: Mutex::default() });
        let router = Router::new().fallback(any(answer)).with_state(Arc::clone(&shared));
        Ok(Self { url: format!("http://{}", listen(address, runtime, router)?), shared })
    }

    /// From now on this goes wrong.
    pub fn fault(&self, rule: Rule) {
        self.shared.rules.add(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.shared.rules.clear();
    }

    /// Method, path and query of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `router` in `runtime`, at a free port of `address`.
pub(crate) fn listen(address: IpAddr, runtime: &Handle, router: Router) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).context("listening for a proxy")?;
    listener.set_nonblocking(true)?;
    let at = listener.local_addr()?;
    let _context = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    runtime.spawn(async move { axum::serve(listener, router).await });
    Ok(at)
}

/// A client that goes where it is told to and nowhere else.
pub(crate) fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?)
}

/// Passes on to `upstream` what is asked, as it is: the host is part of what was signed.
pub(crate) fn as_it_is(upstream: SocketAddr) -> Result<Pass> {
    let client = client()?;
    Ok(Arc::new(move |head, body| {
        let url = format!("http://{upstream}{}", head.uri.path_and_query().map_or("/", |target| target.as_str()));
        Box::pin(forward(client.clone(), url, head, body))
    }))
}

/// Asks `url` with the method, headers and body of a request.
pub(crate) async fn forward(client: reqwest::Client, url: String, head: Parts, body: Body) -> Result<Response> {
    let mut headers = head.headers;
    headers.remove(header::CONNECTION);
    let asked = client.request(head.method, url).headers(headers);
    Ok(answered(asked.body(reqwest::Body::wrap_stream(body.into_data_stream())).send().await?))
}

/// An answer as it came, its body still on the way.
pub(crate) fn answered(answer: reqwest::Response) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    *response.body_mut() = Body::from_stream(answer.bytes_stream());
    response
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{} {target}", head.method));
    let fault = shared.rules.strike(&head.method, &target);
    match fault {
        Some(Fault::Reset) => return broken(),
        Some(Fault::Answer(status, code)) => {
            // A client that is answered in the middle of its body may not see the answer.
            let _ = axum::body::to_bytes(body, usize::MAX).await;
            return refused(status, code);
        }
        Some(Fault::LostAnswer) | None => {}
    }
    match (shared.pass)(head, body).await {
        Ok(response) if fault.is_none() => response,
        _ => broken(),
    }
}

/// An answer that breaks off before its first byte.
pub(crate) fn broken() -> Response {
    let nothing = futures::stream::once(async { Err::<&[u8], _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) });
    let mut response = Response::new(Body::from_stream(nothing));
    response.headers_mut().insert(header::CONTENT_LENGTH, 10_u16.into());
    response
}

/// An answer as stores refuse.
pub(crate) fn refused(status: u16, code: &str) -> Response {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said the proxy</Message></Error>");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
