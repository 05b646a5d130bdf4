//! What kind of address a name resolved to. Pure, and knows nothing of grants.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What it takes to connect to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Anybody's.
    Public,
    /// Loopback, private, shared (CGNAT), unique local: the host must be named exactly.
    Private,
    /// Link-local and metadata services: a range must be granted.
    Guarded,
    /// Unspecified, multicast, broadcast, tunnels whose other end nobody checked: no grant helps.
    Never,
}

/// Metadata services that have no link-local address.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Ranges of every address that is not [`Class::Public`], and of few that are: for a list that is written down once. What lies
/// in an IPv4 address inside a NAT64 one is left to the gateway, which passes none that is not public (RFC 6052, section 3.1).
pub const NOT_PUBLIC_V4: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// The same of IPv6; the whole of 6to4 is among them, for nobody is there any more.
pub const NOT_PUBLIC_V6: [&str; 8] =
    ["2001::/32", "2002::/16", "64:ff9b:1::/48", "::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"];
/// Ranges of every address that is [`Class::Guarded`] or [`Class::Never`], and of none that is not but a host's own.
pub const GUARDED_V4: [&str; 7] = [
    "0.0.0.0/8",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "255.255.255.255/32",
];
/// The same of IPv6.
pub const GUARDED_V6: [&str; 7] =
    ["2001::/32", "2002::/16", "::/16", "fd00:ec2::254/128", "fd20:ce::254/128", "fe80::/10", "ff00::/8"];

/// The class of an address; one that carries an IPv4 address inside has that one's class.
pub fn classify(address: IpAddr) -> Class {
    match unwrapped(address) {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        _ if METADATA_V4.contains(&address) || address.is_link_local() => Class::Guarded,
        (0 | 224..=239, ..) => Class::Never,
        _ if address.is_broadcast() => Class::Never,
        // Private, shared by a carrier, protocol assignments, benchmarks, the reserved class that some clusters use.
        (10 | 127 | 240..=255, ..) | (100, 64..=127, _) | (172, 16..=31, _) | (192, 168, _) | (192, 0, 0) | (198, 18..=19, _) => {
            Class::Private
        }
        _ => Class::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> Class {
    let [first, second, third, ..] = address.segments();
    match first {
        _ if METADATA_V6.contains(&address) => Class::Guarded,
        _ if address.is_loopback() => Class::Private,
        // Unspecified, IPv4-compatible, Teredo, multicast.
        0 | 0xff00.. => Class::Never,
        0x2001 if second == 0 => Class::Never,
        0xfe80..=0xfebf => Class::Guarded,
        // Site-local, unique local, a site's own NAT64 prefix.
        0xfec0..=0xfeff | 0xfc00..=0xfdff => Class::Private,
        0x64 if second == 0xff9b && third == 1 => Class::Private,
        _ => Class::Public,
    }
}

/// The IPv4 address inside a mapped, NAT64 or 6to4 one; every other address as it is.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into()
        }
        _ => address,
    }
}

/// What a name resolved to, without the addresses that are not `good`; where none is left, one that was not. Who connects to what is
/// left, and resolves nothing again, cannot be led elsewhere by a second answer.
pub fn vetted(found: Vec<SocketAddr>, good: impl Fn(IpAddr) -> bool) -> Result<Vec<SocketAddr>, IpAddr> {
    let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| good(address.ip()));
    match (good.is_empty(), bad.first()) {
        (true, Some(address)) => Err(address.ip()),
        _ => Ok(good),
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    bits: u32,
}

impl Range {
    /// `address` and `bits` as in `10.0.0.0/8`.
    pub fn parse(address: &str, bits: &str) -> Option<Self> {
        let base: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits >= 1)?;
        (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some(Self { base, bits })
    }

    /// As Kubernetes writes it: from its first address on.
    pub fn cidr(&self) -> String {
        let kept = |width: u32| width.saturating_sub(self.bits);
        match self.base {
            IpAddr::V4(base) => {
                let first = u32::from(base).checked_shr(kept(32)).and_then(|high| high.checked_shl(kept(32)));
                format!("{}/{}", Ipv4Addr::from(first.unwrap_or_default()), self.bits)
            }
            IpAddr::V6(base) => {
                let first = u128::from(base).checked_shr(kept(128)).and_then(|high| high.checked_shl(kept(128)));
                format!("{}/{}", Ipv6Addr::from(first.unwrap_or_default()), self.bits)
            }
        }
    }

    /// Whether `address`, or the IPv4 address inside it, lies in this range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let within = |address: IpAddr| match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => (u32::from(base) ^ u32::from(address)).leading_zeros() >= self.bits,
            (IpAddr::V6(base), IpAddr::V6(address)) => (u128::from(base) ^ u128::from(address)).leading_zeros() >= self.bits,
            _ => false,
        };
        within(address) || within(unwrapped(address))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            IpAddr::V4(base) => write!(f, "{base}/{}", self.bits),
            IpAddr::V6(base) => write!(f, "[{base}]/{}", self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn within(ranges: &[&str], address: IpAddr) -> bool {
        ranges.iter().any(|range| {
            let (base, bits) = range.split_once('/').unwrap();
            let range = Range::parse(base, bits).unwrap();
            // As it is, and not what is inside it.
            range.base.is_ipv4() == address.is_ipv4() && range.contains(address)
        })
    }

    /// Any address, and those near the ends of every range that is written down.
    fn address() -> impl Strategy<Value = IpAddr> {
        let listed = [NOT_PUBLIC_V4.as_slice(), &NOT_PUBLIC_V6, &GUARDED_V4, &GUARDED_V6].concat();
        let edges = prop::sample::select(listed).prop_flat_map(|range| {
            let (base, bits) = range.split_once('/').unwrap();
            let (base, bits): (IpAddr, u32) = (base.parse().unwrap(), bits.parse().unwrap());
            (0..2_u32, -1..=1_i8).prop_map(move |(end, step)| match base {
                IpAddr::V4(base) => {
                    let size = 1_u32.checked_shl(32 - bits).unwrap_or(0);
                    Ipv4Addr::from(u32::from(base).wrapping_add(size.wrapping_mul(end)).wrapping_add_signed(step.into())).into()
                }
                IpAddr::V6(base) => {
                    let size = 1_u128.checked_shl(128 - bits).unwrap_or(0);
                    let first = u128::from(base).wrapping_add(size.wrapping_mul(end.into()));
                    Ipv6Addr::from(first.wrapping_add_signed(step.into())).into()
                }
            })
        });
        prop_oneof![any::<Ipv4Addr>().prop_map(IpAddr::V4), any::<Ipv6Addr>().prop_map(IpAddr::V6), edges]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// What is written down for firewalls says the same as what is asked before every connection.
        #[test]
        fn lists_of_ranges_agree_with_classes(address in address()) {
            let written = |v4: &[&str], v6: &[&str]| within(if address.is_ipv4() { v4 } else { v6 }, address);
            let class = classify(address);
            let is_inside = unwrapped(address) != address;
            let not_public = written(&NOT_PUBLIC_V4, &NOT_PUBLIC_V6);
            let guarded = written(&GUARDED_V4, &GUARDED_V6);
            prop_assert!(!guarded || not_public, "{address}");
            if !is_inside {
                prop_assert_eq!(not_public, class != Class::Public, "{}", address);
                let reachable = matches!(class, Class::Public | Class::Private) && !address.is_loopback();
                prop_assert!(guarded != reachable || address.is_loopback(), "{}", address);
            }
        }

        /// Whatever a resolver answers, and however often it says something else.
        #[test]
        fn no_bad_address_is_handed_out_and_good_ones_are(found in prop::collection::vec((address(), any::<u16>()), 0..6)) {
            let found: Vec<SocketAddr> = found.into_iter().map(SocketAddr::from).collect();
            let is_public = |address: IpAddr| classify(address) == Class::Public;
            let any_good = found.iter().any(|address| is_public(address.ip()));
            match vetted(found.clone(), is_public) {
                Ok(left) => {
                    prop_assert!(left.iter().all(|address| is_public(address.ip()) && found.contains(address)));
                    prop_assert!(!left.is_empty() || found.is_empty());
                    prop_assert_eq!(left.len(), found.iter().filter(|address| is_public(address.ip())).count());
                }
                Err(refused) => prop_assert!(!any_good && !is_public(refused)),
            }
        }

        #[test]
        fn a_range_is_written_from_its_first_address_on(address in address(), bits in 1..=128_u32) {
            let bits = if address.is_ipv4() { bits.min(32) } else { bits };
            let range = Range::parse(&address.to_string(), &bits.to_string()).unwrap();
            let cidr = range.cidr();
            let (base, written) = cidr.split_once('/').unwrap();
            let again = Range::parse(base, written).unwrap();
            prop_assert!(again.contains(address) && again.cidr() == cidr);
            prop_assert!(range.contains(base.parse().unwrap()));
        }
    }

    #[test]
    fn hosts_without_an_address_of_their_own_end_ranges_exactly() {
        let cidr = |text: &str| text.split_once('/').and_then(|(base, bits)| Range::parse(base, bits)).unwrap().cidr();
        assert_eq!(cidr("10.1.2.3/8"), "10.0.0.0/8");
        assert_eq!(cidr("10.1.2.3/32"), "10.1.2.3/32");
        assert_eq!(cidr("fd12::1/16"), "fd12::/16");
        assert_eq!(cidr("::1/128"), "::1/128");
    }
}
