//! The endpoints, asked over real connections.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::telemetry::{self, Format};

/// Loopback is reached directly, whatever proxy the machine has.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

struct Running {
    address: SocketAddr,
    admin: Admin,
    stop: CancellationToken,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

async fn start() -> Running {
    let (_, log) = telemetry::subscriber(Format::Json, "info", std::io::sink).unwrap();
    let admin = Admin { readiness: Readiness::new(&["crds", "plugins"]), metrics: Metrics::new(), log };
    let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
    let address = (Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()).into();
    let stop = CancellationToken::new();
    let server = tokio::spawn(run(listener, router(admin.clone()), stop.clone().cancelled_owned()));
    Running { address, admin, stop, server }
}

impl Running {
    async fn get(&self, path: &str) -> (u16, String) {
        let response = client().get(format!("http://{}{path}", self.address)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn put_filter(&self, filter: &str) -> u16 {
        let url = format!("http://{}/loglevel", self.address);
        client().put(url).body(filter.to_owned()).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn ready_is_every_check_passed_and_alive_is_none() {
    let running = start().await;
    assert_eq!(running.get("/livez").await.0, 200);
    assert_eq!(running.get("/healthz").await.0, 200);
    running.admin.readiness.pass("crds");
    assert_eq!(running.get("/readyz").await, (503, "[+] crds\n[-] plugins: not yet\n".to_owned()));
    running.admin.readiness.pass("plugins");
    assert_eq!(running.get("/readyz").await.0, 200);
    running.admin.readiness.fail("crds", "gone");
    assert_eq!(running.get("/readyz").await, (503, "[-] crds: gone\n[+] plugins\n".to_owned()));
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let running = start().await;
    running.admin.metrics.leading(true);
    let response = client().get(format!("http://{}/metrics", running.address)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
    assert!(response.text().await.unwrap().contains("substratus_leader 1\n"));
}

#[tokio::test]
async fn log_filter_is_read_and_changed() {
    let running = start().await;
    // The layer the filter belongs to is gone with the subscriber, so nothing may claim to have changed it.
    assert_eq!(running.put_filter("debug").await, 400);
    assert_eq!(running.get("/loglevel").await, (200, "info\n".to_owned()));
    assert_eq!(running.put_filter(&"a".repeat(2000)).await, 413);
}

#[tokio::test]
async fn log_filter_is_changed_from_inside_the_pod_only() {
    let (subscriber, log) = telemetry::subscriber(Format::Json, "info", std::io::sink).unwrap();
    let admin = Admin { readiness: Readiness::new(&[]), metrics: Metrics::new(), log };
    let put =
        async |peer: &str| set_log_level(State(admin.clone()), ConnectInfo(peer.parse().unwrap()), "debug\n".to_owned()).await;
    assert_eq!(put("10.0.0.7:1").await.unwrap_err().0, StatusCode::FORBIDDEN);
    assert_eq!(put("[::ffff:127.0.0.1]:1").await.unwrap(), "debug\n");
    drop(subscriber);
}

#[tokio::test]
async fn shutdown_ends_the_server() {
    let running = start().await;
    running.stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running.server).await.unwrap().unwrap().unwrap();
    assert!(client().get(format!("http://{}/livez", running.address)).send().await.is_err());
}
