//! Sockets: bound in the caller's network namespace, counted, and closed when the hub stops. Must not know HTTP.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use axum::{Router, serve::Listener};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Handle,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{state::Shared, stats::Host};

/// A socket that listens and is not yet served.
pub(super) struct Bound {
    listener: StdListener,
    pub(super) address: SocketAddr,
}

impl Bound {
    pub(super) fn to(address: SocketAddr) -> Result<Self> {
        let listener = StdListener::bind(address).with_context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Serves `router` on `runtime` until `stop`.
    pub(super) fn serve(
        self,
        router: Router,
        host: Host,
        shared: &Arc<Shared>,
        stop: &CancellationToken,
        runtime: &Handle,
    ) -> Result<()> {
        let _context = runtime.enter();
        let listener = TcpListener::from_std(self.listener)?;
        let (shared, stop) = (shared.clone(), stop.clone());
        let counted = Counting { listener, host, shared, stop: stop.clone() };
        runtime.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = axum::serve(counted, router) => {}
            }
        });
        Ok(())
    }
}

struct Counting {
    listener: TcpListener,
    host: Host,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Listener for Counting {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Without it the last small segment of a body waits for an acknowledgement.
        let _ = stream.set_nodelay(true);
        self.shared.stats.opened(self.host);
        let stop = Box::pin(self.stop.clone().cancelled_owned());
        (Connection { stream, host: self.host, shared: self.shared.clone(), stop }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is counted while it lives and breaks when the hub stops.
struct Connection {
    stream: TcpStream,
    host: Host,
    shared: Arc<Shared>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connection {
    fn stopped<T>(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<T>>> {
        let stopped = self.stop.as_mut().poll(context).is_ready();
        stopped.then(|| Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.stats.closed(self.host);
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(broken) = self.stopped(context) {
            return broken;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(broken) = self.stopped(context) {
            return broken;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(broken) = self.stopped(context) {
            return broken;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
