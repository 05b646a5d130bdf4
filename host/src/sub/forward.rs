//! A port of this machine that leads to a port of a pod. Knows nothing of what is spoken there.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::screen::Screen;

/// A listening port, on the loopback address alone.
#[derive(Debug)]
pub(super) struct Forward {
    listener: TcpListener,
    address: SocketAddr,
}

impl Forward {
    /// Listens on a port; 0 takes a free one.
    pub(super) async fn listen(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("listen on port {port} of this machine; --port 0 takes a free one"))?;
        let address = listener.local_addr().context("ask for the port that is listened on")?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads every connection to a port of the pod, until it is dropped. Each has a stream of its own to the API server, so
    /// one that breaks, or a pod that is replaced, costs a reload of the page and no more.
    pub(super) async fn run(&self, pods: &Api<Pod>, pod: &str, port: u16, screen: &Screen) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((connection, _)) => {
                        let (pods, pod) = (pods.clone(), pod.to_owned());
                        connections.spawn(async move { lead(connection, &pods, &pod, port).await });
                    }
                    Err(error) => screen.step(&format!("a connection could not be taken: {error}")),
                },
                Some(Ok(Err(error))) = connections.join_next(), if !connections.is_empty() => {
                    screen.step(&format!("a connection to the pod was lost, reload the page: {error:#}"));
                }
            }
        }
    }
}

async fn lead(mut here: TcpStream, pods: &Api<Pod>, pod: &str, port: u16) -> anyhow::Result<()> {
    let mut forwarder = pods.portforward(pod, &[port]).await.with_context(|| format!("forward a port to pod `{pod}`"))?;
    let mut there = forwarder.take_stream(port).with_context(|| format!("no stream to port {port}"))?;
    // A browser that closes a connection in the middle of a page is no news.
    drop(copy_bidirectional(&mut here, &mut there).await);
    drop(there);
    drop(forwarder.join().await);
    Ok(())
}
