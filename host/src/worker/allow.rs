//! The allow-list: which URLs a plugin and its plan may name. Pure: resolves nothing, opens nothing.
//!
//! A pattern is one of
//!
//! | pattern | allows |
//! |---|---|
//! | `https://huggingface.co` | that host at the scheme's port; its address may be private or loopback, for somebody named it |
//! | `http://hub.internal:8080` | that host at that port |
//! | `https://*.hf.co` | every name with one or more labels before `.hf.co`; public addresses only |
//! | `http://10.2.0.0/16:8080`, `https://[fd00::]/8` | addresses of that range written as such in a URL, and every granted name that resolves into it: the only way to link-local and metadata addresses |
//!
//! No paths, no user, no bare `*`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;
use url::{Host, Url};

use super::address::{Class, Range, classify};

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("host pattern `{pattern}` {reason}; write scheme://host[:port], https://*.example.com or scheme://address/bits[:port]")]
pub struct PatternError {
    pattern: String,
    reason: &'static str,
}

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    secure: bool,
    host: HostRule,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostRule {
    Name(String),
    /// With the leading dot.
    Suffix(String),
    Address(IpAddr),
    Range(Range),
}

/// Where a pattern leads, for whoever resolves no names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way<'a> {
    /// To one host, which may have any address.
    Name(&'a str),
    /// To the public addresses of many hosts.
    Below,
    /// To one address.
    Address(IpAddr),
    /// To the addresses of a range.
    Range(&'a Range),
}

/// What the list says of a URL's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No pattern fits.
    Denied,
    /// A wildcard fits: public addresses only.
    Public,
    /// Named exactly: private and loopback addresses too.
    Named,
}

/// The patterns of one grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    patterns: Vec<HostPattern>,
}

impl AllowList {
    /// Parses every pattern.
    pub fn parse<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, PatternError> {
        let patterns = patterns.into_iter().map(|pattern| pattern.as_ref().parse()).collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Whether `url` may be asked at all. Its address is a second question.
    pub fn check(&self, url: &Url) -> Verdict {
        let mut verdict = Verdict::Denied;
        for pattern in self.patterns.iter().filter(|pattern| pattern.matches(url)) {
            match pattern.host {
                HostRule::Suffix(_) => verdict = Verdict::Public,
                _ => return Verdict::Named,
            }
        }
        verdict
    }

    /// Whether a connection to `address` may be made for a URL that got `verdict`.
    pub fn permits(&self, verdict: Verdict, address: IpAddr) -> bool {
        let granted =
            || self.patterns.iter().any(|pattern| matches!(&pattern.host, HostRule::Range(range) if range.contains(address)));
        match (verdict, classify(address)) {
            (Verdict::Denied, _) | (_, Class::Never) => false,
            (Verdict::Named, Class::Private) | (_, Class::Public) => true,
            _ => granted(),
        }
    }
}

impl HostPattern {
    /// Where it leads.
    pub fn way(&self) -> Way<'_> {
        match &self.host {
            HostRule::Name(name) => Way::Name(name),
            HostRule::Suffix(_) => Way::Below,
            HostRule::Address(address) => Way::Address(*address),
            HostRule::Range(range) => Way::Range(range),
        }
    }

    /// The port, written or the scheme's.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether this pattern allows the URL's scheme, host and port.
    pub fn matches(&self, url: &Url) -> bool {
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return false,
        };
        if secure != self.secure || url.port_or_known_default() != Some(self.port) {
            return false;
        }
        match (&self.host, url.host()) {
            (HostRule::Name(name), Some(Host::Domain(host))) => name == host,
            (HostRule::Suffix(suffix), Some(Host::Domain(host))) => is_below(host, suffix),
            (HostRule::Address(address), Some(Host::Ipv4(host))) => *address == IpAddr::V4(host),
            (HostRule::Address(address), Some(Host::Ipv6(host))) => *address == IpAddr::V6(host),
            (HostRule::Range(range), Some(Host::Ipv4(host))) => range.contains(host.into()),
            (HostRule::Range(range), Some(Host::Ipv6(host))) => range.contains(host.into()),
            _ => false,
        }
    }

    /// Whether everything that `other` allows is allowed by this one: how a request is cut down to a grant.
    pub fn covers(&self, other: &Self) -> bool {
        let host = match (&self.host, &other.host) {
            (HostRule::Suffix(suffix), HostRule::Name(name)) => is_below(name, suffix),
            (HostRule::Suffix(suffix), HostRule::Suffix(narrower)) => narrower == suffix || narrower.ends_with(suffix.as_str()),
            (HostRule::Range(range), HostRule::Address(address)) => range.contains(*address),
            (one, other) => one == other,
        };
        host && self.secure == other.secure && self.port == other.port
    }
}

/// One or more whole labels before the suffix, which begins with a dot.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|labels| !labels.is_empty() && labels.split('.').all(|label| !label.is_empty()))
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| PatternError { pattern: text.to_owned(), reason };
        let (secure, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(refuse("has no scheme http or https")),
        };
        if rest.contains(['@', '?', '#', '\\']) || rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(refuse("holds more than a host and a port"));
        }
        if let Some((address, rest)) = rest.split_once('/') {
            let (bits, port) = rest.split_once(':').map_or((rest, None), |(bits, port)| (bits, Some(port)));
            let range =
                Range::parse(address.trim_matches(['[', ']']), bits).ok_or_else(|| refuse("holds a path or a broken range"))?;
            let port = port.map_or_else(|| Some(default_port(secure)), |port| port.parse().ok().filter(|port| *port != 0));
            let port = port.ok_or_else(|| refuse("has no port between 1 and 65535"))?;
            return Ok(Self { secure, host: HostRule::Range(range), port });
        }
        let (wildcard, host) = rest.strip_prefix("*.").map_or((false, rest), |suffix| (true, suffix));
        if host.contains('*') {
            return Err(refuse("has a `*` that is not its whole first label"));
        }
        let scheme = if secure { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| refuse("holds no valid host and port"))?;
        let host = match url.host() {
            Some(Host::Domain(name)) if name.ends_with('.') || name.starts_with('.') => return Err(refuse("has an empty label")),
            Some(Host::Domain(name)) if wildcard => HostRule::Suffix(format!(".{name}")),
            Some(Host::Domain(name)) => HostRule::Name(name.to_owned()),
            Some(_) if wildcard => return Err(refuse("puts a wildcard before an address")),
            Some(Host::Ipv4(address)) => HostRule::Address(address.into()),
            Some(Host::Ipv6(address)) => HostRule::Address(address.into()),
            None => return Err(refuse("names no host")),
        };
        let port =
            url.port_or_known_default().filter(|port| *port != 0).ok_or_else(|| refuse("has no port between 1 and 65535"))?;
        Ok(Self { secure, host, port })
    }
}

const fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "https://" } else { "http://" })?;
        match &self.host {
            HostRule::Name(name) => f.write_str(name)?,
            HostRule::Suffix(suffix) => write!(f, "*{suffix}")?,
            HostRule::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            HostRule::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            HostRule::Range(range) => write!(f, "{range}")?,
        }
        if self.port == default_port(self.secure) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

#[cfg(test)]
#[path = "allow_tests.rs"]
mod tests;
