//! The one HTTP client of a worker: for the guest's questions and for the bytes themselves. Every request and every redirect
//! goes through the same steps: scheme and host on the list, name resolved once, address checked, connected to that address.
//! Through a proxy it is the proxy that resolves and connects, and its owner that answers for it; what is seen from here to be
//! refused is refused all the same. Knows no hub and no file.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

use super::address::vetted;
use super::allow::{AllowList, PatternError, Verdict};
use super::answer;
use super::network::{Network, Proxies};
use super::oci::login::Logins;
use super::quiet::Quiet;
use super::secrets::Secrets;
use crate::causes;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;
/// Idle connections kept per host.
const IDLE_PER_HOST: usize = 64;

const AGENT: &str = concat!("substratus/", env!("CARGO_PKG_VERSION"));

/// Headers that only the host may set, beside everything that begins with `proxy-`.
const OURS: [&str; 11] = [
    "authorization",
    "cookie",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "content-length",
];

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte of an answer: a connection silent for longer is replaced.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), stall: Duration::from_secs(30) }
    }
}

/// Why a request was not answered. No text holds a credential or a URL's query.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EgressError {
    /// No grant allows it.
    #[error("{0}")]
    Denied(String),
    /// Too many redirects, too many bytes.
    #[error("{0}")]
    Limit(String),
    /// Not reached, or no answer in time.
    #[error("{0}")]
    Unavailable(String),
    /// The request itself is malformed.
    #[error("{0}")]
    Invalid(String),
}

/// What to ask.
#[derive(Debug)]
pub struct Ask<'a> {
    /// Its method.
    pub method: Method,
    /// Absolute URL.
    pub url: Url,
    /// Headers from a plugin or its plan, checked by [`guest_headers`]; they stay behind when a redirect leaves the origin.
    pub headers: HeaderMap,
    /// Headers of our own, such as `Range`: sent on every hop.
    pub own: HeaderMap,
    /// What is sent along.
    pub body: Option<Payload>,
    /// The secret use to send along, where there is one and the host may get it.
    pub auth: Option<&'a str>,
    /// Follow redirects.
    pub follow: bool,
}

/// What is sent along with a request.
#[derive(Debug)]
pub enum Payload {
    /// Held in memory, and sent again where a redirect or a login asks for it.
    Bytes(Bytes),
    /// A stream, which is sent once.
    Once(Option<reqwest::Body>),
}

impl Payload {
    fn next(&mut self) -> Result<reqwest::Body, EgressError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone().into()),
            Self::Once(body) => {
                body.take().ok_or_else(|| EgressError::Unavailable("what was sent is wanted again from its beginning".to_owned()))
            }
        }
    }
}

/// The head of an answer, and where it came from in the end.
#[derive(Debug)]
pub struct Answer {
    /// Body not read yet.
    pub response: reqwest::Response,
    /// The URL after all redirects.
    pub url: Url,
}

/// The client. Clones share connections.
#[derive(Clone, Debug)]
pub struct Egress {
    allow: Arc<AllowList>,
    secrets: Arc<Secrets>,
    /// Who we are at registries.
    logins: Option<Arc<Logins>>,
    /// Servers that asked not to be asked. Whoever can wait looks here first.
    pub(super) quiet: Quiet,
    /// For hosts that a wildcard allows.
    public: reqwest::Client,
    /// For hosts that were named. A client of its own: its pool never holds a private connection for the other one.
    named: reqwest::Client,
    /// For what goes through a proxy, where there is one. It resolves the proxy's name alone.
    proxied: Option<(Arc<Proxies>, reqwest::Client)>,
}

impl Egress {
    /// A client for the hosts of a grant, on a network of which nothing is said.
    pub fn new<T: AsRef<str>>(hosts: &[T], secrets: Secrets, patience: Patience) -> Result<Self, EgressError> {
        Self::through(&Network::default(), hosts, secrets, patience)
    }

    /// A client for the hosts of a grant.
    pub fn through<T: AsRef<str>>(
        network: &Network,
        hosts: &[T],
        secrets: Secrets,
        patience: Patience,
    ) -> Result<Self, EgressError> {
        let allow = AllowList::parse(hosts).map_err(|error: PatternError| EgressError::Invalid(error.to_string()))?;
        let allow = Arc::new(allow);
        let direct = |verdict| {
            let resolver = Checked { allow: Arc::clone(&allow), verdict };
            client(network, patience).dns_resolver(resolver).build().map_err(|error| no_client(&error))
        };
        let (public, named) = (direct(Verdict::Public)?, direct(Verdict::Named)?);
        let proxied = proxied(network, patience)?;
        Ok(Self { allow, secrets: Arc::new(secrets), logins: None, quiet: Quiet::default(), public, named, proxied })
    }

    /// The same, with answers to what registries ask.
    #[must_use]
    pub fn with_logins(self, logins: Option<Logins>) -> Self {
        Self { logins: logins.map(Arc::new), ..self }
    }

    /// Whether the grant allows `url` by name, and by address where it is one.
    pub fn check(&self, url: &Url) -> Result<Verdict, EgressError> {
        let verdict = self.allow.check(url);
        let address = match url.host() {
            _ if verdict == Verdict::Denied => {
                let host = url.host_str().unwrap_or("(none)");
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                let origin = format!("{}://{host}{port}", url.scheme());
                return Err(EgressError::Denied(format!(
                    "{origin} is not among the granted hosts; grant `{origin}` to allow it"
                )));
            }
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(verdict),
        };
        if self.allow.permits(verdict, address) { Ok(verdict) } else { Err(EgressError::Denied(refused(address))) }
    }

    /// Refuses a name that resolves here to an address that may not be connected to: the proxy would connect to it. A name that
    /// only the proxy can resolve is the proxy's to refuse.
    async fn check_resolved(&self, verdict: Verdict, url: &Url) -> Result<(), EgressError> {
        let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
        let Ok(found) = tokio::net::lookup_host((name, 0)).await else { return Ok(()) };
        match found.map(|address| address.ip()).find(|address| !self.allow.permits(verdict, *address)) {
            Some(address) => Err(EgressError::Denied(format!("{name}: {}", refused(address)))),
            None => Ok(()),
        }
    }

    /// Sends, and follows redirects where asked to. A registry that wants to know who asks is told once.
    pub async fn send(&self, ask: Ask<'_>) -> Result<Answer, EgressError> {
        let Ask { method: mut wanted, url: first, headers, own, mut body, auth, follow } = ask;
        let (mut url, mut told) = (first.clone(), false);
        for _ in 0..=MAX_REDIRECTS {
            let client = self.client_for(&url).await?;
            let same_origin = url.origin() == first.origin();
            let mut headers = if same_origin { headers.clone() } else { only_accept(&headers) };
            headers.extend(own.clone());
            // A credential never follows a redirect to another host, whatever that host may get when asked directly.
            let auth = auth.filter(|_| same_origin);
            let logins = self.logins.as_deref().filter(|logins| auth.is_some_and(|auth| logins.is_for(auth, &url)));
            let known = match logins {
                Some(logins) => logins.known(&url).await,
                None => auth.and_then(|auth| self.secrets.header(auth, &url)),
            };
            headers.extend(known.clone().map(|known| (AUTHORIZATION, known)));
            let mut request = client.request(wanted.clone(), url.clone()).headers(headers);
            if let Some(body) = &mut body {
                request = request.body(body.next()?);
            }
            let response = request.send().await.map_err(|error| self.failed(&url, error))?;
            if let Some(wait) = answer::quiet(response.status(), response.headers()) {
                self.quiet.keep(&url, wait);
            }
            if let Some(logins) = logins.filter(|_| response.status() == StatusCode::UNAUTHORIZED && !told) {
                told = true;
                if logins.answer(self, &url, response.headers(), known).await?.is_some() {
                    continue;
                }
            }
            let target = if follow { redirect(&response) } else { None };
            let Some(target) = target else { return Ok(Answer { response, url }) };
            if matches!(response.status(), StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER)
                && wanted == Method::POST
            {
                (wanted, body) = (Method::GET, None);
            }
            url = url
                .join(&target)
                .map_err(|_| EgressError::Unavailable(format!("{} redirects to something that is no URL", shown(&url))))?;
        }
        Err(EgressError::Limit(format!("{} redirects more than {MAX_REDIRECTS} times", shown(&first))))
    }

    /// Who connects for `url`, where it may be asked.
    async fn client_for(&self, url: &Url) -> Result<&reqwest::Client, EgressError> {
        let verdict = self.check(url)?;
        let proxied = self.proxied.as_ref().filter(|(proxies, _)| proxies.of(url).is_some());
        Ok(match (proxied, verdict) {
            (Some((_, client)), _) => {
                self.check_resolved(verdict, url).await?;
                client
            }
            (None, Verdict::Named) => &self.named,
            (None, _) => &self.public,
        })
    }

    /// An error of the client, in our words and without secrets.
    pub fn failed(&self, url: &Url, error: reqwest::Error) -> EgressError {
        let mut sources: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(source) = sources {
            if let Some(AddressRefused(address)) = source.downcast_ref() {
                return EgressError::Denied(format!("{}: {}", url.host_str().unwrap_or_default(), refused(*address)));
            }
            sources = source.source();
        }
        let what = if error.is_connect() {
            "cannot connect to"
        } else if error.is_timeout() {
            "no answer in time from"
        } else {
            "lost the connection to"
        };
        let cause = causes::innermost(&error.without_url());
        EgressError::Unavailable(self.redact(&format!("{what} {}: {cause}", shown(url))))
    }

    /// The body of an answer, which may have so many bytes at most.
    pub async fn body(&self, answer: Answer, max: usize) -> Result<Vec<u8>, EgressError> {
        let Answer { mut response, url } = answer;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&url, error))? {
            if body.len() + chunk.len() > max {
                return Err(EgressError::Limit(format!("the answer from {} is over {max} bytes", shown(&url))));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Whether `url` gets a credential for this use.
    pub fn has_secret(&self, auth: &str, url: &Url) -> bool {
        self.secrets.header(auth, url).is_some()
    }

    /// `text` without any credential in it.
    pub fn redact(&self, text: &str) -> String {
        let text = self.secrets.redact(text);
        match &self.logins {
            Some(logins) => logins.redact(text),
            None => text,
        }
    }
}

/// What all clients have in common.
fn client(network: &Network, patience: Patience) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(AGENT)
        // A proxy that is not asked for would connect to addresses that nobody here checked.
        .no_proxy()
        .tls_certs_merge(network.certificates.iter().cloned())
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(patience.connect)
        .read_timeout(patience.stall)
        .pool_max_idle_per_host(IDLE_PER_HOST)
}

/// The client for what goes through proxies, where there are any.
fn proxied(network: &Network, patience: Patience) -> Result<Option<(Arc<Proxies>, reqwest::Client)>, EgressError> {
    if network.proxies.is_empty() {
        return Ok(None);
    }
    let proxies = Arc::new(network.proxies.clone());
    let way = Arc::clone(&proxies);
    let proxy = reqwest::Proxy::custom(move |url| way.of(url).cloned());
    let client = client(network, patience).proxy(proxy).build().map_err(|error| no_client(&error))?;
    Ok(Some((proxies, client)))
}

fn no_client(error: &reqwest::Error) -> EgressError {
    EgressError::Invalid(format!("cannot make an HTTP client: {}", causes::innermost(error)))
}

fn redirect(response: &reqwest::Response) -> Option<String> {
    let followed = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let target = response.headers().get(LOCATION).filter(|_| followed)?;
    Some(String::from_utf8_lossy(target.as_bytes()).into_owned())
}

fn only_accept(headers: &HeaderMap) -> HeaderMap {
    headers.iter().filter(|(name, _)| *name == ACCEPT).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Headers that a plugin asked for; refuses those that are ours.
pub fn guest_headers(headers: &[(String, String)]) -> Result<HeaderMap, EgressError> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let invalid = |_| EgressError::Invalid(format!("header `{}` is malformed", name.escape_debug()));
        let parsed = HeaderName::try_from(name.as_str()).map_err(|error| invalid(error.into()))?;
        if OURS.contains(&parsed.as_str()) || parsed.as_str().starts_with("proxy-") {
            return Err(EgressError::Denied(format!(
                "header `{parsed}` is set by the host only; name a secret use instead of a credential"
            )));
        }
        let value = HeaderValue::from_str(value).map_err(|error| invalid(http::Error::from(error)))?;
        if parsed != USER_AGENT {
            map.append(parsed, value);
        }
    }
    Ok(map)
}

/// A URL without what may be secret: a signature sits in the query.
pub fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn refused(address: IpAddr) -> String {
    format!(
        "address {address} is private, link-local or reserved; name the host exactly, or grant its range as scheme://address/bits"
    )
}

/// Resolves a name once and hands out checked addresses only.
#[derive(Debug)]
struct Checked {
    allow: Arc<AllowList>,
    verdict: Verdict,
}

#[derive(Debug, Error)]
#[error("address {0} is refused")]
struct AddressRefused(IpAddr);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (allow, verdict) = (Arc::clone(&self.allow), self.verdict);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match vetted(found, |address| allow.permits(verdict, address)) {
                Ok(good) => Ok(Box::new(good.into_iter()) as Addrs),
                Err(address) => Err(AddressRefused(address).into()),
            }
        })
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
