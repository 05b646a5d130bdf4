//! How the worker reaches the network: certificates to trust besides the system's, and proxies. Both are the word of whoever runs
//! the worker, from its own arguments and environment; no plugin and no object of a user has a say.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

use substratus_crds::conditions::reason;
use url::{Host, Url};

use super::address::Range;
use super::failure::LoadError;
use crate::bucket::Environment;

/// The variable that names certificates, for buckets and hubs alike; `SSL_CERT_FILE` takes the place of the system's own and is
/// read by whoever checks certificates.
pub const CA_BUNDLE: &str = "AWS_CA_BUNDLE";

/// What is said of the network.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub(super) certificates: Vec<reqwest::Certificate>,
    pub(super) proxies: Proxies,
}

/// Which requests go through which proxy.
#[derive(Clone, Default)]
pub(super) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    except: Vec<Exception>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    /// That host and every name below it, at any port or at this one.
    Name(String, Option<u16>),
    Range(Range),
}

/// A proxy's URL may hold a password.
impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies").field("except", &self.except).finish_non_exhaustive()
    }
}

impl Network {
    /// What the environment says: `AWS_CA_BUNDLE`, `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`. Proxies may be written
    /// in small letters, which win, as with curl.
    pub fn from_env(env: &Environment) -> Result<Self, LoadError> {
        Ok(Self { certificates: certificates(env)?, proxies: Proxies::from_env(env)? })
    }
}

fn certificates(env: &Environment) -> Result<Vec<reqwest::Certificate>, LoadError> {
    let Some(file) = named(env, CA_BUNDLE) else { return Ok(Vec::new()) };
    let pem = std::fs::read(file).map_err(|error| invalid(format!("cannot read certificates from `{file}`: {error}; in a cluster, the ConfigMap that CA_CONFIG_MAP names has to be in this namespace, with the key ca.crt")))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(invalid(format!("`{file}` holds no certificate; give a bundle in PEM format"))),
        Err(error) => Err(invalid(format!("certificates in `{file}` cannot be used: {error}; give a bundle in PEM format"))),
    }
}

impl Proxies {
    fn from_env(env: &Environment) -> Result<Self, LoadError> {
        let proxy =
            |name: &str| either(env, name).or_else(|| either(env, "ALL_PROXY")).map(|value| proxy(name, value)).transpose();
        let except = either(env, "NO_PROXY").unwrap_or_default();
        let except = except.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(Exception::parse);
        Ok(Self { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, except: except.collect() })
    }

    /// Whether there is none at all.
    pub(super) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The proxy that `url` goes through, where it does.
    pub(super) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.except.iter().any(|exception| exception.matches(url)))
    }
}

fn proxy(variable: &str, value: &str) -> Result<Url, LoadError> {
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let fits = |url: &Url| url.has_host() && matches!(url.scheme(), "http" | "https");
    Url::parse(&text).ok().filter(fits).ok_or_else(|| {
        // The value may hold a password.
        invalid(format!("the proxy in {variable} (or ALL_PROXY) cannot be used; write http://host:port or https://host:port"))
    })
}

impl Exception {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        if let Some(range) = entry.split_once('/').and_then(|(base, bits)| Range::parse(base, bits)) {
            return Self::Range(range);
        }
        let bare =
            |host: &str| host.trim_start_matches("*.").trim_start_matches('.').trim_matches(['[', ']']).to_ascii_lowercase();
        match entry.rsplit_once(':') {
            // Not the end of an IPv6 address.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => Self::Name(bare(host), port.parse().ok()),
            _ => Self::Name(bare(entry), None),
        }
    }

    fn matches(&self, url: &Url) -> bool {
        let address: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            _ => None,
        };
        match self {
            Self::All => true,
            Self::Range(range) => address.is_some_and(|address| range.contains(address)),
            Self::Name(_, Some(port)) if url.port_or_known_default() != Some(*port) => false,
            Self::Name(name, _) => {
                let host = address.map_or_else(|| url.host_str().unwrap_or_default().to_owned(), |address| address.to_string());
                host == *name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.') && address.is_none())
            }
        }
    }
}

/// The variable in small letters, else in capitals.
fn either<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    named(env, &name.to_ascii_lowercase()).or_else(|| named(env, name))
}

fn named<'a>(env: &'a Environment, name: &str) -> Option<&'a str> {
    let found = env.iter().find(|(known, value)| *known == *name && !value.is_empty());
    found.and_then(|(_, value): &(OsString, OsString)| value.to_str())
}

fn invalid(message: String) -> LoadError {
    LoadError::new(reason::INVALID, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Result<Proxies, LoadError> {
        let env: Vec<(OsString, OsString)> = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Proxies::from_env(&env)
    }

    fn way(pairs: &[(&str, &str)], url: &str) -> Option<String> {
        proxies(pairs).unwrap().of(&Url::parse(url).unwrap()).map(ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = [("HTTPS_PROXY", "http://a:1"), ("http_proxy", "b:2"), ("HTTP_PROXY", "c:3")];
        assert_eq!(way(&both, "https://hub/x").as_deref(), Some("http://a:1/"));
        assert_eq!(way(&both, "http://hub/x").as_deref(), Some("http://b:2/"));
        assert_eq!(way(&[("ALL_PROXY", "https://a")], "http://hub/").as_deref(), Some("https://a/"));
        assert_eq!(way(&[("HTTPS_PROXY", "http://a:1")], "http://hub/"), None);
        assert_eq!(way(&[("HTTPS_PROXY", "")], "https://hub/"), None);
        let error = proxies(&[("HTTPS_PROXY", "socks5://user:secret@a:1")]).err().unwrap();
        assert!(error.message.contains("HTTPS_PROXY") && !error.message.contains("secret"), "{error}");
    }

    #[test]
    fn exceptions_are_whole_names_addresses_and_ranges() {
        let direct = |except: &str, url: &str| way(&[("ALL_PROXY", "http://a"), ("NO_PROXY", except)], url).is_none();
        for (except, url) in [
            ("*", "https://hub/"),
            ("hub.example", "https://hub.example/"),
            ("x, .hub.example", "https://cdn.hub.example/"),
            ("*.hub.example", "https://cdn.hub.example/"),
            ("hub.example:8080", "http://hub.example:8080/"),
            ("10.0.0.0/8", "http://10.1.2.3/"),
            ("127.0.0.1", "http://127.0.0.1:99/"),
            ("::1", "http://[::1]/"),
            ("[::1]:80", "http://[::1]/"),
        ] {
            assert!(direct(except, url), "{except} {url}");
        }
        for (except, url) in [
            ("", "https://hub/"),
            ("hub.example", "https://otherhub.example/"),
            ("hub.example:8080", "http://hub.example/"),
            ("10.0.0.0/8", "http://11.1.2.3/"),
            ("0.0.1", "http://127.0.0.1/"),
        ] {
            assert!(!direct(except, url), "{except} {url}");
        }
    }

    #[test]
    fn certificates_are_read_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let with = |path: &std::path::Path| Network::from_env(&[(CA_BUNDLE.into(), path.into())]);
        assert!(with(&file).unwrap_err().message.contains("ca.pem"));
        std::fs::write(&file, "no certificate").unwrap();
        assert!(with(&file).unwrap_err().message.contains("PEM"));
        assert!(Network::from_env(&[]).unwrap().certificates.is_empty());
    }
}
