//! Where a registry may lead us. It chooses where its tokens and its blobs are, and could choose what only this machine can reach:
//! addresses that say who a node is, and nobody's, are never connected to. Private ones are, for registries lie there.

use std::net::{IpAddr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};
use url::{Host, Url};

use crate::worker::address::{Class, classify, vetted};

/// Redirects of one request.
const MAX_REDIRECTS: usize = 5;

/// An address that is not connected to.
#[derive(Debug, thiserror::Error)]
#[error("it leads to {0}, an address that is link-local, a metadata service's or nobody's; it is not connected to")]
pub(super) struct Refused(IpAddr);

/// A client that goes nowhere else.
pub(super) fn client(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder.dns_resolver(Checked).redirect(Policy::custom(follow))
}

/// Whether the host of a URL, where it is an address, may be connected to. Names are looked at when they are resolved.
pub(super) fn check(url: &Url) -> Result<(), Refused> {
    let address: IpAddr = match url.host() {
        Some(Host::Ipv4(address)) => address.into(),
        Some(Host::Ipv6(address)) => address.into(),
        _ => return Ok(()),
    };
    if may_be_connected_to(address) { Ok(()) } else { Err(Refused(address)) }
}

/// The refusal behind an error of the client.
pub(super) fn refusal(error: &reqwest::Error) -> Option<String> {
    let mut sources: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(source) = sources {
        if let Some(refused) = source.downcast_ref::<Refused>() {
            return Some(refused.to_string());
        }
        sources = source.source();
    }
    None
}

fn may_be_connected_to(address: IpAddr) -> bool {
    matches!(classify(address), Class::Public | Class::Private)
}

fn follow(attempt: Attempt<'_>) -> Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("it redirects again and again");
    }
    let was_secure = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    match check(attempt.url()) {
        Err(refused) => attempt.error(refused),
        Ok(()) if was_secure && attempt.url().scheme() != "https" => attempt.error("it redirects from https to plain http"),
        Ok(()) => attempt.follow(),
    }
}

/// Resolves a name once, and hands out checked addresses only.
#[derive(Debug)]
struct Checked;

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match vetted(found, may_be_connected_to) {
                Ok(good) => Ok(Box::new(good.into_iter()) as Addrs),
                Err(address) => Err(Refused(address).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_who_a_node_is_and_nobody_is_out_of_reach() {
        let check = |url: &str| check(&Url::parse(url).unwrap()).is_ok();
        for url in
            ["https://ghcr.io/", "http://127.0.0.1:5000/", "https://10.1.2.3/", "https://[fd00::1]/", "https://140.82.1.1/"]
        {
            assert!(check(url), "{url}");
        }
        for url in [
            "http://169.254.169.254/latest/meta-data/",
            "http://0xa9fea9fe/",
            "http://2852039166/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
            "http://0.0.0.0/",
            "http://224.0.0.1/",
        ] {
            assert!(!check(url), "{url}");
        }
    }
}
