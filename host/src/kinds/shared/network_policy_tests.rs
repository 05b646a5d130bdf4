//! What a policy lets a worker connect to, read as a network plugin reads it.

use proptest::prelude::*;
use serde_json::{Value, json};
use substratus_crds::{Model, ModelSpec};

use super::*;
use crate::kinds::shared::environment;
use crate::reconcile::guard;
use crate::worker::allow::AllowList;

const FOLDER: &str = "tar:////bucket/aa";

fn owner() -> Owner {
    let mut model = Model::new("m", ModelSpec::default());
    model.metadata.namespace = Some("team".to_owned());
    Owner::of(&model)
}

/// The child of a load with this grant.
fn made(environment: &Environment, hosts: &[&str], named: bool, bucket: &str) -> Child {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let job = names::model_job("m");
    let worker = Worker { object: ("model", "m"), job, hosts: &hosts, named, plain_http: &[], bucket };
    let child = child(&owner(), environment, &worker).unwrap();
    assert_eq!(guard::children(std::slice::from_ref(&child), &owner(), &[]), Ok(()));
    child
}

fn of(hosts: &[&str], named: bool) -> Child {
    made(&environment::of("local"), hosts, named, FOLDER)
}

/// Whom a connection is made to.
#[derive(Clone, Copy, Debug)]
enum To<'a> {
    Address(IpAddr),
    /// A pod of a namespace, where the plugin takes no pod for an address.
    Pod(&'a str),
}

fn at(address: &str) -> To<'static> {
    To::Address(address.parse().unwrap())
}

fn inside(range: &str, address: IpAddr) -> bool {
    let (base, bits) = range.split_once('/').unwrap();
    let bits: u32 = bits.parse().unwrap();
    match (base.parse().unwrap(), address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => bits == 0 || (u32::from(base) ^ u32::from(address)).leading_zeros() >= bits,
        (IpAddr::V6(base), IpAddr::V6(address)) => bits == 0 || (u128::from(base) ^ u128::from(address)).leading_zeros() >= bits,
        _ => false,
    }
}

/// Whether the policy lets a pod connect.
fn lets(child: &Child, to: To<'_>, port: u16) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    list(&child.object["spec"]["egress"]).iter().any(|rule| {
        let ports = list(&rule["ports"]);
        let by = ports.iter().any(|rule| rule["protocol"] == "TCP" && (rule["port"].is_null() || rule["port"] == port));
        let peers = list(&rule["to"]);
        by && (rule["to"].is_null() || peers.iter().any(|peer| leads(peer, to)))
    })
}

fn leads(peer: &Value, to: To<'_>) -> bool {
    match to {
        To::Address(address) => {
            let except = peer["ipBlock"]["except"].as_array().cloned().unwrap_or_default();
            peer["ipBlock"]["cidr"].as_str().is_some_and(|cidr| inside(cidr, address))
                && !except.iter().any(|range| inside(range.as_str().unwrap(), address))
        }
        To::Pod(namespace) => {
            let selector = &peer["namespaceSelector"];
            let home = peer["podSelector"] == json!({}) && selector.is_null() && namespace == "team";
            home || *selector == json!({}) || selector["matchLabels"][NAMESPACE] == namespace
        }
    }
}

#[test]
fn a_hub_that_a_plugin_asks_for_is_reached_at_public_addresses_alone() {
    let policy = of(&["https://huggingface.co", "https://*.hf.co"], false);
    for address in ["18.164.1.1", "2600:9000::1", "64:ff9b::12a4:101"] {
        assert!(lets(&policy, at(address), 443), "{address}");
        assert!(!lets(&policy, at(address), 80), "{address}");
    }
    for address in ["10.96.0.1", "127.0.0.1", "169.254.169.254", "168.63.129.16", "100.64.0.1", "fd00::1", "fe80::1", "::1"] {
        assert!(!lets(&policy, at(address), 443), "{address}");
    }
    assert!(!lets(&policy, To::Pod("kube-system"), 443));
}

#[test]
fn resolvers_and_the_store_are_always_reached() {
    let policy = of(&[], false);
    for to in [at("10.96.0.10"), at("169.254.20.10"), at("8.8.8.8"), To::Pod("kube-system")] {
        assert!(lets(&policy, to, 53), "{to:?}");
    }
    assert!(lets(&policy, To::Pod("openshift-dns"), 5353) && !lets(&policy, at("8.8.8.8"), 5353));
    assert!(lets(&policy, To::Pod("substratus"), 8090));
    assert!(!lets(&policy, To::Pod("substratus"), 8080) && !lets(&policy, To::Pod("other"), 8090));
}

#[test]
fn a_store_elsewhere_is_reached_where_it_is() {
    let place = |url: &str| Environment { store_url: url.to_owned(), ..environment::of("local") };
    let policy = |url: &str| made(&place(url), &[], false, FOLDER);
    let behind = policy("http://store.ops.svc.cluster.local:80");
    assert!(lets(&behind, To::Pod("ops"), 80) && lets(&behind, To::Pod("ops"), 8090), "a Service may have another port");
    let address = policy("http://10.4.5.6:9000");
    assert!(lets(&address, at("10.4.5.6"), 9000) && !lets(&address, at("10.4.5.7"), 9000));
    let name = policy("https://store.example.com");
    assert!(lets(&name, at("10.4.5.6"), 443) && !lets(&name, at("169.254.169.254"), 443));
}

#[test]
fn a_host_that_an_administrator_names_may_be_private_and_never_guarded() {
    let policy = of(&["https://hub.corp.example:8443", "https://*.hf.co"], true);
    for to in [at("10.2.3.4"), at("fd00::4"), at("18.164.1.1"), To::Pod("hubs")] {
        assert!(lets(&policy, to, 8443), "{to:?}");
    }
    for address in ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "fe80::1", "224.0.0.1"] {
        assert!(!lets(&policy, at(address), 8443), "{address}");
    }
    assert!(!lets(&policy, at("10.2.3.4"), 443), "a wildcard is not exact");
}

#[test]
fn a_service_is_reached_by_whatever_port_its_pods_have() {
    for host in
        ["http://minio.storage.svc:80", "http://minio.storage.svc.cluster.local:80", "http://minio-0.minio.storage.svc:80"]
    {
        let policy = of(&[host], true);
        assert!(lets(&policy, To::Pod("storage"), 9000) && !lets(&policy, To::Pod("other"), 9000), "{host}");
    }
    let policy = of(&["http://minio"], true);
    assert!(lets(&policy, To::Pod("team"), 9000) && !lets(&policy, To::Pod("other"), 9000));
    assert!(!lets(&of(&["http://minio.storage.svc:80"], false), To::Pod("storage"), 80), "nobody but its author named it");
}

#[test]
fn addresses_and_ranges_are_reached_as_they_are_granted() {
    let policy = of(&["http://10.0.0.5:8080", "https://hub.example", "https://[fd12::1:2]/64:8443"], false);
    assert!(lets(&policy, at("10.0.0.5"), 8080) && !lets(&policy, at("10.0.0.6"), 8080) && !lets(&policy, at("10.0.0.5"), 443));
    for port in [8443, 443, 8080] {
        assert!(lets(&policy, at("fd12::99"), port), "a granted name may resolve into a granted range: {port}");
    }
    assert!(!lets(&policy, at("fd12:0:0:1::"), 443));
    let guarded = of(&["http://169.254.169.254"], true);
    assert!(!lets(&guarded, at("169.254.169.254"), 80), "it takes a range");
    assert!(lets(&of(&["http://169.254.169.254/32"], true), at("169.254.169.254"), 80));
}

#[test]
fn proxies_are_reached_and_exceptions_are_no_proxies() {
    let named = |pairs: &[(&str, &str)]| Environment {
        proxies: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..environment::of("local")
    };
    let place =
        named(&[("HTTPS_PROXY", "http://user:secret@proxy.corp:3128"), ("HTTP_PROXY", "10.9.9.9:8888"), ("NO_PROXY", "x:1")]);
    let policy = made(&place, &[], false, FOLDER);
    assert!(lets(&policy, at("10.1.1.1"), 3128) && lets(&policy, at("10.9.9.9"), 8888));
    assert!(!lets(&policy, at("10.9.9.8"), 8888) && !lets(&policy, at("10.1.1.1"), 1));
    assert!(!policy.object.to_string().contains("secret"), "{}", policy.object);
}

#[test]
fn a_bucket_is_reached_wherever_it_may_be() {
    let place = |secret: Option<&str>, endpoints: &[&str]| Environment {
        bucket_secret: secret.map(str::to_owned),
        bucket_endpoints: endpoints.iter().map(|endpoint| (*endpoint).to_owned()).collect(),
        ..environment::of("on-prem")
    };
    let by = |secret, endpoints: &[&str], bucket: &str| made(&place(secret, endpoints), &[], false, bucket);
    // The Secret may name a server of one's own, in or beside the cluster.
    let unknown = by(Some("bucket"), &[], "s3://b/aa");
    assert!(lets(&unknown, at("192.168.1.5"), 9000) && lets(&unknown, To::Pod("minio"), 9000));
    assert!(!lets(&unknown, at("169.254.169.254"), 80), "the Secret says who the pod is");
    let said = by(Some("bucket"), &["https://s3.corp.example", "http://minio.storage.svc:9000"], "s3://b/aa");
    assert!(lets(&said, at("192.168.1.5"), 443) && lets(&said, To::Pod("storage"), 9000));
    assert!(!lets(&said, at("192.168.1.5"), 22) && !lets(&said, To::Pod("minio"), 22));
    // The cloud's own, by a private endpoint, too.
    for (bucket, identity) in
        [("s3://b/aa", "169.254.170.23"), ("gs://b/aa", "169.254.169.254"), ("az://b/aa", "169.254.169.254")]
    {
        let cloud = by(None, &[], bucket);
        assert!(lets(&cloud, at("10.3.3.3"), 443) && lets(&cloud, at(identity), 80), "{bucket}");
        assert!(!lets(&cloud, at("10.3.3.3"), 22) && !lets(&cloud, at("169.254.1.1"), 80), "{bucket}");
    }
    // A folder takes no network.
    for bucket in [FOLDER, "pvc://claim/aa", "file:///bucket/aa"] {
        let folder = by(None, &["https://s3.corp.example"], bucket);
        assert!(!lets(&folder, at("192.168.1.5"), 443) && !lets(&folder, at("169.254.169.254"), 80), "{bucket}");
    }
}

#[test]
fn pushers_reach_registries_of_plain_http() {
    let (hosts, plain) = (["https://ghcr.io".to_owned()], ["registry.local:5000".to_owned()]);
    let job = names::model_publish("m");
    let worker = Worker { object: ("model", "m"), job, hosts: &hosts, named: false, plain_http: &plain, bucket: FOLDER };
    let policy = child(&owner(), &environment::of("local"), &worker).unwrap();
    assert!(lets(&policy, at("10.1.1.1"), 5000) && lets(&policy, at("140.82.1.1"), 443) && !lets(&policy, at("10.1.1.1"), 443));
}

#[test]
fn it_is_the_workers_own_and_selects_no_other_pod() {
    let policy = of(&["https://hub.example"], false);
    assert_eq!((policy.kind, policy.name.as_str()), (ChildKind::NetworkPolicy, "m-modeller"));
    let spec = &policy.object["spec"];
    let labels = json!({"model": "m", "role": "run", "substratus.ai/worker": "m-modeller"});
    assert_eq!(spec["podSelector"], json!({ "matchLabels": labels }));
    assert_eq!((&spec["policyTypes"], &spec["ingress"]), (&json!(["Ingress", "Egress"]), &Value::Null), "nobody comes in");
    assert_eq!(policy.object["metadata"]["ownerReferences"][0]["name"], "m");
    let off = Environment { confines_workers: false, ..environment::of("local") };
    let worker = Worker {
        object: ("model", "m"),
        job: "m-modeller".to_owned(),
        hosts: &[],
        named: false,
        plain_http: &[],
        bucket: FOLDER,
    };
    assert_eq!(child(&owner(), &off, &worker), None);
}

#[test]
fn the_whole_object() {
    insta::assert_json_snapshot!(of(&["https://huggingface.co", "https://*.hf.co"], false).object);
}

fn pattern() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        "[a-z]{1,8}(\\.[a-z]{2,8}){1,3}",
        "[a-z]{1,5}\\.[a-z]{1,5}\\.svc",
        "\\*\\.[a-z]{1,8}\\.[a-z]{2,3}",
        any::<std::net::Ipv4Addr>().prop_map(|address| address.to_string()),
        any::<std::net::Ipv6Addr>().prop_map(|address| format!("[{address}]")),
        (any::<std::net::Ipv4Addr>(), 1..=32_u32).prop_map(|(address, bits)| format!("{address}/{bits}")),
        (any::<std::net::Ipv6Addr>(), 1..=128_u32).prop_map(|(address, bits)| format!("[{address}]/{bits}")),
        "\\PC{0,12}",
    ];
    (prop_oneof![Just("https"), Just("http")], host, prop::option::of(1..=u16::MAX)).prop_map(|(scheme, host, port)| {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{host}{port}")
    })
}

proptest! {
    /// Whatever is granted, the object is one that guard and API server take, the same every time, and shut towards what no grant
    /// of a range opens.
    #[test]
    fn every_grant_makes_a_policy_that_passes_the_guard(
        hosts in prop::collection::vec(pattern(), 0..8),
        named: bool,
        address: std::net::Ipv4Addr,
        port in 1..=u16::MAX,
    ) {
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let policy = of(&hosts, named);
        prop_assert_eq!(&policy, &of(&hosts, named));
        let patterns: Vec<HostPattern> = hosts.iter().filter_map(|host| host.parse().ok()).collect();
        let in_range = |address: IpAddr| patterns.iter().any(|pattern| matches!(pattern.way(), Way::Range(range) if range.contains(address)));
        for guarded in ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fe80::1"] {
            let address: IpAddr = guarded.parse().unwrap();
            prop_assert!(port == DNS || in_range(address) || !lets(&policy, To::Address(address), port), "{}", guarded);
        }
        // What the worker itself may connect to, the policy does not stop.
        let allowed: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        let list = AllowList::parse(&allowed).unwrap();
        for pattern in &patterns {
            let verdict = match pattern.way() {
                Way::Name(_) if named => crate::worker::allow::Verdict::Named,
                Way::Name(_) | Way::Below => crate::worker::allow::Verdict::Public,
                Way::Address(_) | Way::Range(_) => continue,
            };
            let address = IpAddr::V4(address);
            prop_assert!(!list.permits(verdict, address) || address.is_loopback() || lets(&policy, To::Address(address), pattern.port()), "{} {}", pattern, address);
        }
    }
}
