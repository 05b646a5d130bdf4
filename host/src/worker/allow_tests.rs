//! Tests of the allow-list and of address classes, by example and by property.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn list(patterns: &[&str]) -> AllowList {
    AllowList::parse(patterns).unwrap()
}

fn check(patterns: &[&str], url: &str) -> Verdict {
    list(patterns).check(&Url::parse(url).unwrap())
}

#[test]
fn a_named_host_is_that_host_at_that_port_only() {
    let named = ["https://huggingface.co", "http://hub.internal:8080", "http://127.0.0.1:9000", "https://[::1]:8443"];
    for url in [
        "https://huggingface.co/a?b",
        "https://HUGGINGFACE.co:443/",
        "http://hub.internal:8080/x",
        "http://0x7f.1:9000/",
        "https://[0::1]:8443/",
    ] {
        assert_eq!(check(&named, url), Verdict::Named, "{url}");
    }
    for url in [
        "http://huggingface.co/",
        "https://huggingface.co:8443/",
        "https://x.huggingface.co/",
        "https://huggingface.co.evil.com/",
        "https://huggingface.co./",
        "https://huggingface.co@evil.com/",
        "http://hub.internal/",
        "http://127.0.0.2:9000/",
        "ftp://huggingface.co/",
    ] {
        assert_eq!(check(&named, url), Verdict::Denied, "{url}");
    }
}

#[test]
fn nothing_is_allowed_by_default() {
    assert_eq!(check(&[], "https://huggingface.co/"), Verdict::Denied);
    assert!(!AllowList::default().permits(Verdict::Denied, IpAddr::from([1, 1, 1, 1])));
}

#[test]
fn broken_patterns_are_refused() {
    for text in [
        "",
        "huggingface.co",
        "ftp://a.b",
        "https://",
        "https://*",
        "https://*.",
        "https://a.*.com",
        "https://*x.com",
        "https://a.com/path",
        "https://user@a.com",
        "https://a.com?x",
        "https://a.com:0",
        "https://a.com:99999",
        "https://*.10.0.0.1",
        "http://10.0.0.0/33",
        "http://10.0.0.0/0",
        "https://a b",
    ] {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
}

#[test]
fn addresses_need_what_their_class_says() {
    let allow = list(&["https://a.com", "http://169.254.169.254/32"]);
    for (address, public, named) in [
        ("1.1.1.1", true, true),
        ("2606:4700::1111", true, true),
        ("::ffff:1.1.1.1", true, true),
        ("64:ff9b::101:101", true, true),
        ("127.0.0.1", false, true),
        ("10.1.2.3", false, true),
        ("100.64.0.1", false, true),
        ("::1", false, true),
        ("fd12::1", false, true),
        ("::ffff:127.0.0.1", false, true),
        ("64:ff9b::7f00:1", false, true),
        ("2002:a00:1::1", false, true),
        ("64:ff9b:1::1", false, true),
        ("169.254.1.1", false, false),
        ("fe80::1", false, false),
        ("100.100.100.200", false, false),
        ("168.63.129.16", false, false),
        ("fd00:ec2::254", false, false),
        ("0.0.0.0", false, false),
        ("::", false, false),
        ("224.0.0.1", false, false),
        ("255.255.255.255", false, false),
        ("ff02::1", false, false),
        ("2001::1", false, false),
        ("::7f00:1", false, false),
        ("169.254.169.254", true, true),
        ("::ffff:169.254.169.254", true, true),
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(allow.permits(Verdict::Public, address), public, "{address} by wildcard");
        assert_eq!(allow.permits(Verdict::Named, address), named, "{address} by name");
    }
}

#[test]
fn a_grant_covers_what_is_narrower() {
    let covers = |one: &str, other: &str| one.parse::<HostPattern>().unwrap().covers(&other.parse().unwrap());
    assert!(covers("https://*.hf.co", "https://cdn.hf.co"));
    assert!(covers("https://*.hf.co", "https://*.eu.hf.co"));
    assert!(covers("http://10.0.0.0/8:80", "http://10.1.2.3"));
    assert!(!covers("https://*.hf.co", "https://hf.co"));
    assert!(!covers("https://cdn.hf.co", "https://*.hf.co"));
    assert!(!covers("https://*.hf.co", "http://cdn.hf.co"));
    assert!(!covers("https://*.hf.co", "https://*.evilhf.co"));
}

proptest! {
    #[test]
    fn parsing_never_panics_and_prints_back(text in "(https?://)?[a-z0-9*.:/\\[\\]@-]{0,24}") {
        if let Ok(pattern) = text.parse::<HostPattern>() {
            prop_assert_eq!(pattern.to_string().parse::<HostPattern>().unwrap(), pattern);
        }
    }

    #[test]
    fn a_wildcard_wants_one_or_more_whole_labels(labels in "[a-z]{1,5}(\\.[a-z]{1,5}){0,3}", glued in "[a-z]{1,5}") {
        let wildcard = ["https://*.example.com"];
        prop_assert_eq!(check(&wildcard, &format!("https://{labels}.example.com/")), Verdict::Public);
        prop_assert_eq!(check(&wildcard, "https://example.com/"), Verdict::Denied);
        prop_assert_eq!(check(&wildcard, &format!("https://{glued}example.com/")), Verdict::Denied);
        prop_assert_eq!(check(&wildcard, &format!("https://{labels}.example.com.{glued}/")), Verdict::Denied);
    }

    #[test]
    fn an_address_inside_an_address_has_its_class(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from(bits);
        let [a, b, c, d] = v4.octets();
        let pair = |x: u8, y: u8| u16::from_be_bytes([x, y]);
        let nat64 = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, pair(a, b), pair(c, d));
        let six_to_four = Ipv6Addr::new(0x2002, pair(a, b), pair(c, d), 0, 0, 0, 0, 1);
        for inside in [v4.to_ipv6_mapped(), nat64, six_to_four] {
            prop_assert_eq!(classify(inside.into()), classify(v4.into()));
        }
    }

    #[test]
    fn no_range_lets_more_in_than_its_prefix(base in any::<u32>(), other in any::<u32>(), bits in 1..=32_u32) {
        let range = Range::parse(&Ipv4Addr::from(base).to_string(), &bits.to_string()).unwrap();
        let mask = u32::MAX << (32 - bits);
        prop_assert_eq!(range.contains(Ipv4Addr::from(other).into()), base & mask == other & mask);
    }

    #[test]
    fn what_a_covered_pattern_matches_the_covering_one_matches(
        one in "https://(\\*\\.)?[ab](\\.[ab]){0,2}", other in "https://(\\*\\.)?[ab](\\.[ab]){0,2}", host in "[ab](\\.[ab]){0,3}",
    ) {
        let (one, other): (HostPattern, HostPattern) = (one.parse().unwrap(), other.parse().unwrap());
        let url = Url::parse(&format!("https://{host}/")).unwrap();
        prop_assert!(!(one.covers(&other) && other.matches(&url)) || one.matches(&url));
    }
}
