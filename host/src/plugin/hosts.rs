//! Patterns of hosts: `https://host`, `https://host:port`, `https://*.domain`. Knows nothing about addresses or names' resolution.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// A host pattern that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    scheme: String,
    /// Without the leading `*.` of a wildcard.
    host: String,
    port: u16,
    wildcard: bool,
}

/// A text that is no host pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host pattern; write `https://host`, `https://host:port` or `https://*.domain`")]
pub struct HostPatternError(String);

impl HostPattern {
    /// Whether a URL's scheme, host and port are meant. A wildcard means every name below its domain, never the domain itself.
    pub fn matches(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return false };
        self.scheme == url.scheme()
            && Some(self.port) == url.port_or_known_default()
            && (if self.wildcard { is_below(host, &self.host) } else { host == self.host })
    }

    /// Whether it means one host alone.
    pub fn is_exact(&self) -> bool {
        !self.wildcard
    }

    /// Whether everything that `other` means is meant here too.
    pub fn covers(&self, other: &Self) -> bool {
        let host = match (self.wildcard, other.wildcard) {
            (false, true) => false,
            (false, false) => self.host == other.host,
            (true, false) => is_below(&other.host, &self.host),
            (true, true) => other.host == self.host || is_below(&other.host, &self.host),
        };
        host && self.scheme == other.scheme && self.port == other.port
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || HostPatternError(text.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (wildcard, rest) = rest.strip_prefix("*.").map_or((false, rest), |rest| (true, rest));
        let url = Url::parse(&format!("{scheme}://{rest}")).map_err(|_| wrong())?;
        let bare = url.path() == "/" && !rest.contains(['/', '?', '#', '@', '*']);
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        // `*.com` would be every company's host: a wildcard stands below a domain of at least two labels.
        let narrow = !wildcard || (matches!(url.host(), Some(url::Host::Domain(_))) && host.contains('.'));
        if !matches!(scheme, "http" | "https") || !bare || !narrow {
            return Err(wrong());
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            host: host.to_owned(),
            port: url.port_or_known_default().ok_or_else(wrong)?,
            wildcard,
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.wildcard { "*." } else { "" };
        write!(f, "{}://{star}{}", self.scheme, self.host)?;
        match (self.scheme.as_str(), self.port) {
            ("https", 443) | ("http", 80) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_means_scheme_host_and_port() {
        let cases = [
            ("https://hub.example", "https://hub.example/a?b", true),
            ("https://hub.example", "https://HUB.example:443/", true),
            ("https://hub.example", "http://hub.example/", false),
            ("https://hub.example", "https://hub.example:8443/", false),
            ("https://hub.example", "https://evil.example/hub.example", false),
            ("https://hub.example", "https://hub.example@evil.example/", false),
            ("https://*.hub.example", "https://cdn.hub.example/", true),
            ("https://*.hub.example", "https://a.b.hub.example/", true),
            ("https://*.hub.example", "https://hub.example/", false),
            ("https://*.hub.example", "https://evilhub.example/", false),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x", true),
        ];
        for (text, url, expected) in cases {
            assert_eq!(pattern(text).matches(&Url::parse(url).unwrap()), expected, "{text} {url}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["hub", "https://", "ftp://a.b", "https://a.b/path", "https://u@a.b", "https://*", "https://*.com", "https://a.*.b", "https://*.1.2.3.4", "https://a.b/"] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        assert!(pattern("https://*.a.b").covers(&pattern("https://x.a.b")));
        assert!(pattern("https://*.a.b").covers(&pattern("https://*.x.a.b")));
        assert!(!pattern("https://*.a.b").covers(&pattern("https://a.b")));
        assert!(!pattern("https://x.a.b").covers(&pattern("https://*.a.b")));
        assert_eq!(pattern("https://*.a.b:8443").to_string(), "https://*.a.b:8443");
    }
}
