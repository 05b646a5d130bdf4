//! What the pod of a worker may connect to, as a `NetworkPolicy`: a second fence behind the one that the worker itself is to its
//! plugin, for the day that a guest breaks out of everything else. Pure; resolves no name and reads no Secret.
//!
//! A policy knows addresses and no names, so it is as wide as the names that are granted can lead to and no wider:
//!
//! | what | where to |
//! |---|---|
//! | DNS | port 53 of any address: resolvers may be pods, nodes, or beside the cluster |
//! | the operator's store | its port in the operator's namespace |
//! | a granted pattern, or a host that a plugin asks for itself | its port at public addresses |
//! | a host that an administrator names exactly | its port at every address but guarded ones, and at pods of the cluster; a Service's namespace by any port, for its pods may listen on another |
//! | a granted address or range | that, by every granted port |
//! | a proxy, an endpoint of the bucket | as if an administrator had granted it |
//! | a bucket of which nobody says where it is | where a Secret says it, any port; else https; and the cloud's own metadata service where that says who the pod is |
//!
//! Guarded are link-local and metadata addresses. Nobody connects to a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use url::{Host, Url};

use super::child::{Child, ChildKind, Owner, Policy};
use super::environment::Environment;
use super::names::{self, WORKER};
use crate::bucket::BucketUrl;
use crate::bucket::url::Scheme;
use crate::worker::address::{Class, GUARDED_V4, GUARDED_V6, NOT_PUBLIC_V4, NOT_PUBLIC_V6, classify};
use crate::worker::allow::{HostPattern, Way};

/// The port of resolvers.
const DNS: u16 = 53;
/// The port of `OpenShift`'s resolvers, whose Service has the usual one.
const DNS_OF_PODS: u16 = 5353;
const HTTPS: u16 = 443;
/// Every namespace has its own name as this label.
const NAMESPACE: &str = "kubernetes.io/metadata.name";
/// Where clouds say who a pod is, for pods that reach a bucket as themselves.
const GOOGLE_IDENTITY: &[(&str, u16)] = &[("169.254.169.254/32", 80), ("169.254.169.252/32", 988)];
const AMAZON_IDENTITY: &[(&str, u16)] = &[
    ("169.254.169.254/32", 80),
    ("169.254.170.2/32", 80),
    ("169.254.170.23/32", 80),
    ("fd00:ec2::23/128", 80),
    ("fd00:ec2::254/128", 80),
];
const AZURE_IDENTITY: &[(&str, u16)] = &[("169.254.169.254/32", 80)];

/// Whose pods they are, and what for.
#[derive(Clone, Debug)]
pub struct Worker<'a> {
    /// Kind in lower case and name of the object.
    pub object: (&'static str, &'a str),
    /// Its Job, whose name the policy has, too.
    pub job: String,
    /// Host patterns of its grant.
    pub hosts: &'a [String],
    /// An administrator wrote the grant.
    pub named: bool,
    /// Registries (`host[:port]`) of the settings that speak plain HTTP, where it may go there.
    pub plain_http: &'a [String],
    /// The bucket that it reads or writes.
    pub bucket: &'a str,
}

/// Label of the pods of a worker's Job, by which its policy finds them.
pub fn label(job: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(WORKER.to_owned(), job.to_owned())])
}

/// The policy, unless an administrator does without.
pub fn child(owner: &Owner, environment: &Environment, worker: &Worker<'_>) -> Option<Child> {
    if !environment.confines_workers {
        return None;
    }
    let mut ways = Ways::default();
    ways.store(environment);
    ways.granted(worker.hosts, worker.named);
    let plain: Vec<String> = worker.plain_http.iter().map(|host| format!("http://{host}")).collect();
    ways.granted(&plain, true);
    for proxy in environment.proxies.iter().filter(|(variable, _)| variable != "NO_PROXY") {
        ways.proxy(&proxy.1);
    }
    ways.bucket(environment, worker.bucket);
    let (kind, name) = worker.object;
    let labels = label(&worker.job).into_iter().chain(names::pod_labels(kind, name)).collect();
    let object = NetworkPolicy {
        metadata: ObjectMeta { name: Some(worker.job.clone()), ..ObjectMeta::default() },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            egress: Some(ways.rules()),
            ingress: None,
        }),
    };
    Some(Child::new(ChildKind::NetworkPolicy, Policy::Own, owner, object))
}

/// Where connections may end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// At any public address.
    Public,
    /// At any address that is not guarded, and at any pod.
    Anywhere,
    /// In a range.
    Range(String),
    /// At the pods of a namespace.
    Namespace(String),
    /// At the pods of the worker's own namespace.
    Home,
}

/// By which port: one, or any.
type Port = Option<u16>;

/// What is collected.
#[derive(Default)]
struct Ways(BTreeMap<End, BTreeSet<Port>>);

impl Ways {
    fn add(&mut self, end: End, port: Port) {
        self.0.entry(end).or_default().insert(port);
    }

    /// The operator's store, behind a Service whose port may be another.
    fn store(&mut self, environment: &Environment) {
        let Ok(url) = Url::parse(&environment.store_url) else { return };
        let Some(port) = url.port_or_known_default() else { return };
        match (url.host(), url.host_str().and_then(namespace)) {
            (_, Some(namespace)) => {
                for port in [port, environment.store_port] {
                    self.add(End::Namespace(namespace.to_owned()), Some(port));
                }
            }
            (Some(host), None) => self.host(&host, port),
            (None, None) => {}
        }
    }

    /// What the worker is granted. A pattern that does not parse it refuses.
    fn granted(&mut self, hosts: &[String], named: bool) {
        let patterns: Vec<HostPattern> = hosts.iter().filter_map(|host| host.parse().ok()).collect();
        for pattern in &patterns {
            let port = pattern.port();
            match pattern.way() {
                Way::Name(name) if named => self.host(&Host::Domain(name), port),
                Way::Name(_) | Way::Below => self.add(End::Public, Some(port)),
                // Guarded ones take a range, and nothing helps the others.
                Way::Address(address) if matches!(classify(address), Class::Public | Class::Private) => {
                    self.add(End::Range(single(address)), Some(port));
                }
                Way::Address(_) => {}
                // Names that are granted may resolve into it.
                Way::Range(range) => {
                    for pattern in &patterns {
                        self.add(End::Range(range.cidr()), Some(pattern.port()));
                    }
                }
            }
        }
    }

    /// As workers read it: without a scheme it is plain http.
    fn proxy(&mut self, value: &str) {
        let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let Ok(url) = Url::parse(&text) else { return };
        if let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) {
            self.host(&host, port);
        }
    }

    /// One host that an administrator names.
    fn host<S: AsRef<str>>(&mut self, host: &Host<S>, port: u16) {
        match host {
            Host::Domain(name) => {
                let name = name.as_ref();
                if let Some(namespace) = namespace(name) {
                    self.add(End::Namespace(namespace.to_owned()), None);
                } else if !name.contains('.') {
                    self.add(End::Home, None);
                }
                self.add(End::Anywhere, Some(port));
            }
            Host::Ipv4(address) => self.add(End::Range(single((*address).into())), Some(port)),
            Host::Ipv6(address) => self.add(End::Range(single((*address).into())), Some(port)),
        }
    }

    fn bucket(&mut self, environment: &Environment, url: &str) {
        let identity = match url.parse::<BucketUrl>().map(|url| url.scheme()) {
            Ok(Scheme::Gs) => GOOGLE_IDENTITY,
            Ok(Scheme::S3) => AMAZON_IDENTITY,
            Ok(Scheme::Az) => AZURE_IDENTITY,
            // A folder is mounted by the node.
            Ok(Scheme::File | Scheme::Tar | Scheme::Pvc) | Err(_) => return,
        };
        self.granted(&environment.bucket_endpoints, true);
        match (&environment.bucket_secret, environment.bucket_endpoints.is_empty()) {
            // The Secret says where, and is nobody's to read.
            (Some(_), true) => self.add(End::Anywhere, None),
            (Some(_), false) => {}
            // A cloud's own store may have an address of the cluster's network, and who the pod is its own services say.
            (None, is_anywhere) => {
                self.add(if is_anywhere { End::Anywhere } else { End::Public }, Some(HTTPS));
                for (range, port) in identity {
                    self.add(End::Range((*range).to_owned()), Some(*port));
                }
            }
        }
    }

    fn rules(self) -> Vec<NetworkPolicyEgressRule> {
        let resolvers = NetworkPolicyEgressRule { ports: Some(dns(DNS)), to: None };
        let pods = NetworkPolicyEgressRule { ports: Some(dns(DNS_OF_PODS)), to: Some(vec![any_pod()]) };
        let ways = self.0.into_iter().map(|(end, ports)| {
            let ports = match ports.first() {
                Some(None) | None => vec![tcp(None)],
                Some(Some(_)) => ports.into_iter().map(tcp).collect(),
            };
            NetworkPolicyEgressRule { ports: Some(ports), to: Some(end.peers()) }
        });
        [resolvers, pods].into_iter().chain(ways).collect()
    }
}

impl End {
    fn peers(self) -> Vec<NetworkPolicyPeer> {
        match self {
            Self::Public => vec![block("0.0.0.0/0", &NOT_PUBLIC_V4), block("::/0", &NOT_PUBLIC_V6)],
            // Some network plugins take no pod for an address.
            Self::Anywhere => vec![block("0.0.0.0/0", &GUARDED_V4), block("::/0", &GUARDED_V6), any_pod()],
            Self::Range(range) => vec![block(&range, &[])],
            Self::Namespace(name) => {
                vec![NetworkPolicyPeer { namespace_selector: Some(labelled(NAMESPACE, &name)), ..NetworkPolicyPeer::default() }]
            }
            Self::Home => {
                vec![NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }]
            }
        }
    }
}

/// The namespace of a Service's name: `name.namespace.svc`, with or without the cluster's domain.
fn namespace(host: &str) -> Option<&str> {
    let labels: Vec<&str> = host.split('.').collect();
    let svc = labels.iter().skip(2).position(|label| *label == "svc")?;
    labels.get(svc + 1).copied().filter(|label| is_label(label))
}

/// As namespaces are called; anything else the API server would refuse.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn single(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

fn any_pod() -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }
}

fn block(cidr: &str, except: &[&str]) -> NetworkPolicyPeer {
    let except = (!except.is_empty()).then(|| except.iter().map(|range| (*range).to_owned()).collect());
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: cidr.to_owned(), except }), ..NetworkPolicyPeer::default() }
}

fn tcp(port: Port) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: port.map(|port| IntOrString::Int(port.into())),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    }
}

fn dns(port: u16) -> Vec<NetworkPolicyPort> {
    vec![tcp(Some(port)), NetworkPolicyPort { protocol: Some("UDP".to_owned()), ..tcp(Some(port)) }]
}

#[cfg(test)]
#[path = "network_policy_tests.rs"]
mod tests;
