//! A throw-away certificate authority and the credentials of every component. It must not know how they are used.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use super::layout::{API_SERVER, FIRST_SERVICE, Layout, NODE_ADDRESS, NODE_NAME};

/// Who gets a client certificate and a kubeconfig: file name, user, group.
const USERS: [(&str, &str, &str); 5] = [
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("kubelet", "system:node:substratus", "system:nodes"),
];

/// Writes the authority, serving and client certificates, the key of service account tokens, and the kubeconfigs.
pub fn write(layout: &Layout) -> Result<()> {
    let authority = authority(layout)?;
    let first: IpAddr = FIRST_SERVICE.parse()?;
    let node: IpAddr = NODE_ADDRESS.parse()?;
    let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .into_iter()
        .chain(["kubernetes.default.svc.cluster.local", "localhost"]);
    let mut served: Vec<SanType> = names.map(|name| Ok(SanType::DnsName(name.try_into()?))).collect::<Result<_>>()?;
    served.extend([first, node, IpAddr::from([127, 0, 0, 1])].map(SanType::IpAddress));
    certificate(layout, &authority, "apiserver", ("kube-apiserver", ""), served)?;
    let served = vec![SanType::DnsName(NODE_NAME.try_into()?), SanType::IpAddress(node)];
    certificate(layout, &authority, "kubelet-server", (NODE_NAME, ""), served)?;

    for (file, user, group) in USERS {
        certificate(layout, &authority, file, (user, group), Vec::new())?;
        kubeconfig(layout, file)?;
    }
    let tokens = KeyPair::generate()?;
    save(layout, "service-account.key", &tokens.serialize_pem())?;
    save(layout, "service-account.pub", &tokens.public_key_pem())
}

fn authority(layout: &Layout) -> Result<Issuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "substratus test cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    save(layout, "ca.crt", &params.self_signed(&key)?.pem())?;
    Ok(Issuer::new(params, key))
}

fn certificate(
    layout: &Layout,
    authority: &Issuer<'static, KeyPair>,
    file: &str,
    (user, group): (&str, &str),
    served: Vec<SanType>,
) -> Result<()> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![if served.is_empty() { ExtendedKeyUsagePurpose::ClientAuth } else { ExtendedKeyUsagePurpose::ServerAuth }];
    params.subject_alt_names = served;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let signed = params.signed_by(&key, authority).with_context(|| format!("signing the certificate of {user}"))?;
    save(layout, &format!("{file}.crt"), &signed.pem())?;
    save(layout, &format!("{file}.key"), &key.serialize_pem())
}

/// JSON is YAML too, and needs no quoting rules of ours.
fn kubeconfig(layout: &Layout, user: &str) -> Result<()> {
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "substratus", "cluster": {
            "server": API_SERVER,
            "certificate-authority": layout.pki("ca.crt"),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate": layout.pki(&format!("{user}.crt")),
            "client-key": layout.pki(&format!("{user}.key")),
        }}],
        "contexts": [{"name": "substratus", "context": {"cluster": "substratus", "user": user}}],
        "current-context": "substratus",
    });
    let path = layout.kubeconfig(user);
    fs::write(&path, format!("{text:#}")).with_context(|| format!("writing the kubeconfig {}", path.display()))
}

fn save(layout: &Layout, file: &str, text: &str) -> Result<()> {
    let path = layout.pki(file);
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
