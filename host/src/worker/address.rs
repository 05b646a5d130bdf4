//! What kind of address a name resolved to. Pure, and knows nothing of grants.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
