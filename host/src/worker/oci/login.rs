//! Who we are at a registry: names and passwords out of docker configurations (the content of pull Secrets), and the tokens that
//! a registry's realm gives for them. Answers a challenge (401) for [`super::super::egress`]; decides on no host by itself.
//!
//! A name and a password go to the registry that the configuration has them for, or to the realm that this registry announces. Where the
//! realm is, the registry chooses: the egress asks it as it asks everybody, granted hosts and checked addresses only.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use substratus_crds::conditions::reason;
use tokio::sync::Mutex;
use url::Url;

use crate::plugin::{Grant, RegistryAuth, SecretScheme, sentence};
use crate::worker::allow::{AllowList, Verdict};
use crate::worker::egress::{Ask, Egress, EgressError, shown};
use crate::worker::failure::LoadError;

/// Bytes of a realm's answer.
const MAX_ANSWER: usize = 256 * 1024;
/// Bytes of a docker configuration.
const MAX_CONFIG: u64 = 1024 * 1024;

/// Names and passwords. Clones share them.
#[derive(Clone, Default)]
pub struct Accounts {
    /// Docker configurations, in the order in which they count, with the files they came from.
    files: Arc<Vec<(PathBuf, Vec<u8>)>>,
    /// For one registry, given by a person.
    given: Option<(String, RegistryAuth)>,
}

/// Passwords never show in a debug line.
impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.files.iter().map(|(file, _)| file)).finish()
    }
}

impl Accounts {
    /// The docker configurations in a folder, one each file, by name; a folder that is not there has none.
    pub fn read(folder: &Path) -> Result<Self, LoadError> {
        let invalid = |file: &Path, error: &dyn fmt::Display| {
            LoadError::new(reason::INVALID, format!("cannot read credentials from {}: {error}", file.display()))
        };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(invalid(folder, &error)),
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // What Kubernetes keeps beside the keys of a Secret begins with a dot.
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json") && path.is_file());
        paths.sort();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            if path.metadata().is_ok_and(|known| known.len() > MAX_CONFIG) {
                return Err(invalid(&path, &format!("it is over {MAX_CONFIG} bytes")));
            }
            let bytes = std::fs::read(&path).map_err(|error| invalid(&path, &error))?;
            files.push((path, bytes));
        }
        Ok(Self { files: Arc::new(files), given: None })
    }

    /// An account at one registry.
    pub fn at(host: &str, auth: RegistryAuth) -> Self {
        Self { files: Arc::default(), given: Some((host.to_owned(), auth)) }
    }

    /// The account at the registry of `url`.
    fn of(&self, url: &Url) -> Result<RegistryAuth, EgressError> {
        let Some(host) = url.host_str() else { return Ok(RegistryAuth::Anonymous) };
        let port = url.port_or_known_default().map(|port| format!("{host}:{port}")).unwrap_or_default();
        let names = if url.port().is_some() { vec![port] } else { vec![host.to_owned(), port] };
        if let Some((_, auth)) = self.given.as_ref().filter(|(given, _)| names.contains(given)) {
            return Ok(auth.clone());
        }
        for (file, bytes) in self.files.iter() {
            for name in &names {
                let found = RegistryAuth::from_docker_config(bytes, name)
                    .map_err(|error| EgressError::Invalid(format!("cannot use credentials from {}: {error}", file.display())))?;
                if found != RegistryAuth::Anonymous {
                    return Ok(found);
                }
            }
        }
        Ok(RegistryAuth::Anonymous)
    }
}

/// Logins of one load or push.
pub struct Logins {
    accounts: Accounts,
    /// The secret use that means them.
    use_: String,
    /// Registries that may get a credential.
    hosts: AllowList,
    /// What tokens are asked for; where nothing is said, to pull from the repository of the URL.
    scope: Option<String>,
    /// By origin and scope. Locked while one is asked for, so that many connections ask once.
    tokens: Mutex<HashMap<(String, String), HeaderValue>>,
    /// Passwords that were shown, so that nobody repeats one.
    passwords: std::sync::Mutex<Vec<String>>,
}

/// Neither passwords nor tokens show in a debug line.
impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logins").field("use", &self.use_).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// What a registry wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The account itself.
    Basic,
    /// A token that is had elsewhere.
    Bearer {
        /// Where, as the registry says.
        realm: String,
        /// For what.
        service: Option<String>,
    },
}

#[derive(Deserialize)]
struct Answered {
    token: Option<String>,
    access_token: Option<String>,
}

impl Logins {
    /// To pull, as far as the grant names a use of that scheme.
    pub fn to_pull(grant: &Grant, accounts: Accounts) -> Result<Option<Self>, LoadError> {
        let Some(secret) = grant.secrets.iter().find(|secret| secret.scheme == SecretScheme::Registry) else { return Ok(None) };
        let hosts = AllowList::parse(&secret.hosts)
            .map_err(|error| LoadError::new(reason::INVALID, format!("secret `{}`: {error}", secret.name)))?;
        Ok(Some(Self::new(accounts, &secret.name, hosts, None)))
    }

    /// To push into one repository of a registry among `hosts`.
    pub fn to_push(use_: &str, repository: &str, hosts: AllowList, accounts: Accounts) -> Self {
        Self::new(accounts, use_, hosts, Some(format!("repository:{repository}:pull,push")))
    }

    fn new(accounts: Accounts, use_: &str, hosts: AllowList, scope: Option<String>) -> Self {
        let (tokens, passwords) = (Mutex::default(), std::sync::Mutex::default());
        Self { accounts, use_: use_.to_owned(), hosts, scope, tokens, passwords }
    }

    /// Whether a request that names `use_` may show who we are at `url`.
    pub(in crate::worker) fn is_for(&self, use_: &str, url: &Url) -> bool {
        self.use_ == use_ && self.hosts.check(url) != Verdict::Denied
    }

    /// What an earlier challenge was answered with.
    pub(in crate::worker) async fn known(&self, url: &Url) -> Option<HeaderValue> {
        self.tokens.lock().await.get(&self.key(url)?).cloned()
    }

    /// What to show after a refusal of what was `shown`; nothing where there is nothing better.
    pub(in crate::worker) fn answer<'a>(
        &'a self,
        egress: &'a Egress,
        url: &'a Url,
        refused: &HeaderMap,
        shown: Option<HeaderValue>,
    ) -> BoxFuture<'a, Result<Option<HeaderValue>, EgressError>> {
        let challenge = challenge(refused);
        async move {
            let (Some(key), Some(challenge)) = (self.key(url), challenge) else { return Ok(None) };
            let mut tokens = self.tokens.lock().await;
            // Somebody else was refused before us, and has asked.
            if let Some(newer) = tokens.get(&key).filter(|newer| shown.as_ref() != Some(*newer)) {
                return Ok(Some(newer.clone()));
            }
            tokens.remove(&key);
            let account = self.account(url)?;
            let found = match challenge {
                Challenge::Basic => account.filter(|account| shown.as_ref() != Some(account)),
                Challenge::Bearer { realm, service } => {
                    let asked = question(&realm, service.as_deref(), &key.1, url)?;
                    token(egress, asked, account).await?
                }
            };
            if let Some(header) = &found {
                tokens.insert(key, header.clone());
            }
            Ok(found)
        }
        .boxed()
    }

    /// `text` without any password in it.
    pub(in crate::worker) fn redact(&self, text: String) -> String {
        let passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        passwords.iter().fold(text, |text, password| text.replace(password, "[redacted]"))
    }

    fn account(&self, url: &Url) -> Result<Option<HeaderValue>, EgressError> {
        let RegistryAuth::Basic { username, password } = self.accounts.of(url)? else { return Ok(None) };
        let account = header(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}"))))?;
        let mut passwords = self.passwords.lock().unwrap_or_else(PoisonError::into_inner);
        if !password.is_empty() && !passwords.contains(&password) {
            passwords.push(password);
        }
        Ok(Some(account))
    }

    fn key(&self, url: &Url) -> Option<(String, String)> {
        let scope = self.scope.clone().or_else(|| Some(format!("repository:{}:pull", repository(url)?)))?;
        Some((url.origin().ascii_serialization(), scope))
    }
}

/// The repository that a URL of a registry's API speaks of.
fn repository(url: &Url) -> Option<&str> {
    let path = url.path().strip_prefix("/v2/")?;
    let end = ["/blobs/", "/manifests/", "/tags/"].iter().filter_map(|part| path.rfind(part)).max()?;
    path.get(..end)
}

fn header(text: String) -> Result<HeaderValue, EgressError> {
    let mut header = HeaderValue::try_from(text).map_err(|_| {
        EgressError::Invalid("the registry's credential holds characters that no HTTP header may have".to_owned())
    })?;
    header.set_sensitive(true);
    Ok(header)
}

/// The URL that gives a token.
pub(crate) fn question(realm: &str, service: Option<&str>, scope: &str, registry: &Url) -> Result<Url, EgressError> {
    let mut url = Url::parse(realm)
        .map_err(|_| EgressError::Unavailable(format!("{} wants a token of a realm that is no URL", shown(registry))))?;
    let mut query = url.query_pairs_mut();
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    query.append_pair("scope", scope);
    drop(query);
    Ok(url)
}

/// A token for `account`, or for anybody; nothing where the realm does not give any.
async fn token(egress: &Egress, url: Url, account: Option<HeaderValue>) -> Result<Option<HeaderValue>, EgressError> {
    // Not one of our own: it stays behind where a redirect leads to another host.
    let headers = account.into_iter().map(|account| (AUTHORIZATION, account)).collect();
    let ask = Ask { method: Method::GET, url, headers, own: HeaderMap::new(), body: None, auth: None, follow: true };
    let answer = egress.send(ask).await?;
    let realm = answer.url.clone();
    match answer.response.status().as_u16() {
        200 => {}
        400 | 401 | 403 | 404 => return Ok(None),
        status => return Err(EgressError::Unavailable(format!("{}: the realm answered {status}", shown(&realm)))),
    }
    let body = egress.body(answer, MAX_ANSWER).await?;
    let answered: Option<Answered> = serde_json::from_slice(&body).ok();
    match answered.and_then(|answered| answered.token.or(answered.access_token)).filter(|token| !token.is_empty()) {
        Some(token) => header(format!("Bearer {token}")).map(Some),
        None => Err(EgressError::Unavailable(format!("{}: the realm's answer holds no token", shown(&realm)))),
    }
}

/// The challenge of a refusal; a bearer's before a plain one.
pub(crate) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = || headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let bearer = texts().find_map(|text| {
        let parameters = after_scheme(text, "bearer")?;
        let service = parameter(parameters, "service").map(|service| sentence(&service));
        Some(Challenge::Bearer { realm: parameter(parameters, "realm")?, service })
    });
    bearer.or_else(|| texts().find_map(|text| after_scheme(text, "basic")).map(|_| Challenge::Basic))
}

fn after_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = text.trim().split_once(' ').unwrap_or_else(|| (text.trim(), ""));
    found.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// The value of `name="value"` in a list of such; a comma in quotes parts nothing.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_start_matches([',', ' ']).trim();
        let (value, next) = match after.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = next;
    }
    None
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
