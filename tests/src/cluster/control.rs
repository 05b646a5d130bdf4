//! The command lines of the control plane: etcd, API server, controllers, scheduler. It starts nothing itself.

use super::layout::{ISSUER, Layout, NODE_ADDRESS, POD_RANGE, SERVICE_RANGE};
use super::process::Component;

/// The store. It never waits for the disk: nobody needs this data after a crash.
pub fn etcd(layout: &Layout) -> Component {
    Component::new(
        "etcd",
        [
            format!("--data-dir={}", layout.state("etcd").display()),
            "--unsafe-no-fsync".to_owned(),
            "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
            "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
            "--initial-cluster=default=http://127.0.0.1:2380".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )
}

/// The API server, with the authorisation and admission of a hardened cluster.
pub fn api_server(layout: &Layout) -> Component {
    let pki = |file: &str| layout.pki(file).display().to_string();
    Component::new(
        "kube-apiserver",
        [
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--bind-address=0.0.0.0".to_owned(),
            "--secure-port=6443".to_owned(),
            format!("--advertise-address={NODE_ADDRESS}"),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            format!("--cert-dir={}", layout.state("apiserver").display()),
            format!("--client-ca-file={}", pki("ca.crt")),
            format!("--tls-cert-file={}", pki("apiserver.crt")),
            format!("--tls-private-key-file={}", pki("apiserver.key")),
            format!("--kubelet-certificate-authority={}", pki("ca.crt")),
            format!("--kubelet-client-certificate={}", pki("admin.crt")),
            format!("--kubelet-client-key={}", pki("admin.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--anonymous-auth=false".to_owned(),
            format!("--service-account-key-file={}", pki("service-account.pub")),
            format!("--service-account-signing-key-file={}", pki("service-account.key")),
            format!("--service-account-issuer={ISSUER}"),
            format!("--api-audiences={ISSUER}"),
            "--profiling=false".to_owned(),
        ],
    )
}

/// The controllers, each with the rights of its own service account, as in production.
pub fn controller_manager(layout: &Layout) -> Component {
    Component::new(
        "kube-controller-manager",
        [
            format!("--kubeconfig={}", layout.kubeconfig("controller-manager").display()),
            format!("--root-ca-file={}", layout.pki("ca.crt").display()),
            format!("--service-account-private-key-file={}", layout.pki("service-account.key").display()),
            "--use-service-account-credentials=true".to_owned(),
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={POD_RANGE}"),
            "--node-cidr-mask-size=24".to_owned(),
            format!("--service-cluster-ip-range={SERVICE_RANGE}"),
            format!("--cert-dir={}", layout.state("controller-manager").display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ],
    )
}

/// The scheduler.
pub fn scheduler(layout: &Layout) -> Component {
    Component::new(
        "kube-scheduler",
        [
            format!("--kubeconfig={}", layout.kubeconfig("scheduler").display()),
            format!("--cert-dir={}", layout.state("scheduler").display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ],
    )
}
