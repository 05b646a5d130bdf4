//! The command lines and readiness of what makes a node: containerd, kubelet, kube-proxy, DNS, registry.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};

use super::configuration::{DNS_READY, PAUSE_REPOSITORY};
use super::layout::{Layout, NODE_ADDRESS, NODE_NAME, REGISTRY};
use super::process::Component;
use crate::image;

/// The registry.
pub fn registry(layout: &Layout) -> Component {
    let configuration = layout.config("registry.json").into_os_string();
    Component::new("docker-registry", ["serve".into(), configuration])
}

/// The container runtime.
pub fn containerd(layout: &Layout) -> Component {
    Component::new("containerd", ["--config".into(), layout.config("containerd.toml").into_os_string()])
}

/// The node agent.
pub fn kubelet(layout: &Layout) -> Component {
    Component::new(
        "kubelet",
        [
            format!("--config={}", layout.config("kubelet.json").display()),
            format!("--kubeconfig={}", layout.kubeconfig("kubelet").display()),
            format!("--root-dir={}", layout.state("kubelet").display()),
            format!("--cert-dir={}", layout.state("kubelet-certificates").display()),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={NODE_ADDRESS}"),
        ],
    )
}

/// Services.
pub fn proxy(layout: &Layout) -> Component {
    Component::new(
        "kube-proxy",
        [format!("--config={}", layout.config("proxy.json").display()), format!("--hostname-override={NODE_NAME}")],
    )
}

/// Names of Services.
pub fn dns(layout: &Layout) -> Component {
    Component::new("coredns", ["-conf".into(), layout.config("Corefile").into_os_string()])
}

/// Puts the pause image into the registry.
pub async fn push_pause() -> Result<()> {
    let mut pause = image::busybox()?;
    pause.entrypoint = ["/bin/busybox", "sleep", "infinity"].map(str::to_owned).to_vec();
    pause.build()?.push(REGISTRY, PAUSE_REPOSITORY, "1").await?;
    Ok(())
}

/// Whether CoreDNS has read the cluster's Services.
pub async fn dns_ready() -> Result<Option<()>> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    client.get(format!("http://{DNS_READY}/ready")).send().await?.error_for_status()?;
    Ok(Some(()))
}

/// Whether the node takes pods.
pub async fn ready(client: &Client) -> Result<Option<()>> {
    let node = Api::<Node>::all(client.clone()).get(NODE_NAME).await?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
    // A fresh node keeps a taint until the controllers have seen that it is ready.
    let open = node.spec.and_then(|spec| spec.taints).unwrap_or_default().is_empty();
    Ok((ready && open).then_some(()))
}
