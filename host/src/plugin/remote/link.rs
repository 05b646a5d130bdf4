//! The guest's side of a connection, in the sandbox: what a guest wants of the host goes up, and the result is waited for. Knows
//! nothing of guests themselves, nor of what the host makes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc::Receiver;

use super::super::HostCalls;
use super::super::io::{Input, Output, Outputs, StreamError, Streams};
use super::super::types::{HttpError, HttpRequest, HttpResponse, LogLevel};
use super::frame::{self, Frame, FrameError};
use super::lock;
use super::wire::{Down, Up};

/// A connection, for as long as it lives.
pub(super) struct Link {
    ends: tokio::sync::Mutex<Ends>,
    /// What goes up before the next thing that does: lines of log, files that were let go of.
    later: Mutex<Vec<Up>>,
    /// A frame was begun. Whoever finds it so at the start of another has a connection that is of no more use.
    writing: AtomicBool,
}

struct Ends {
    to: OwnedWriteHalf,
    from: Receiver<Frame<Down>>,
}

impl Link {
    pub(super) fn new(to: OwnedWriteHalf, from: Receiver<Frame<Down>>) -> Self {
        let ends = tokio::sync::Mutex::new(Ends { to, from });
        Self { ends, later: Mutex::default(), writing: AtomicBool::new(false) }
    }

    /// What the other side says next; nothing once it is gone.
    pub(super) async fn receive(&self) -> Option<Frame<Down>> {
        self.ends.lock().await.from.recv().await
    }

    /// Says something.
    pub(super) async fn send(&self, message: &Up) -> Result<(), FrameError> {
        self.write(&mut *self.ends.lock().await, message, &[]).await
    }

    /// Says something and waits for the result.
    async fn exchange(&self, message: &Up, tail: &[u8]) -> Result<Frame<Down>, FrameError> {
        let mut ends = self.ends.lock().await;
        self.write(&mut ends, message, tail).await?;
        ends.from.recv().await.ok_or(FrameError::Closed)
    }

    async fn write(&self, ends: &mut Ends, message: &Up, tail: &[u8]) -> Result<(), FrameError> {
        // A call that was given up may have left half of a frame behind.
        if self.writing.swap(true, Ordering::AcqRel) {
            return Err(FrameError::Closed);
        }
        let later = std::mem::take(&mut *lock(&self.later));
        for message in &later {
            frame::write(&mut ends.to, message, &[]).await?;
        }
        frame::write(&mut ends.to, message, tail).await?;
        self.writing.store(false, Ordering::Release);
        Ok(())
    }

    fn later(&self, message: Up) {
        lock(&self.later).push(message);
    }

    async fn done(&self, message: &Up, tail: &[u8]) -> Result<(), StreamError> {
        match self.exchange(message, tail).await.map_err(|error| gone(&error))?.head {
            Down::Done(result) => result.map_err(StreamError),
            _ => Err(gone(&FrameError::Closed)),
        }
    }
}

fn gone(error: &FrameError) -> StreamError {
    StreamError(format!("the host went away: {error}"))
}

/// Host calls and streams of one call.
pub(super) fn streams(link: &Arc<Link>, inputs: Vec<String>) -> Streams {
    let input = |(index, name)| -> Box<dyn Input> { Box::new(FarInput { link: Arc::clone(link), index, name }) };
    Streams { inputs: (0..).zip(inputs).map(input).collect(), outputs: Box::new(FarOutputs { link: Arc::clone(link), next: 0 }) }
}

/// Host calls that are answered on the other side.
pub(super) struct FarCalls(pub(super) Arc<Link>);

impl HostCalls for FarCalls {
    fn http(&self, mut request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        async move {
            let body = request.body.take();
            let (has_body, body) = (body.is_some(), body.unwrap_or_default());
            match self.0.exchange(&Up::Http(request, has_body), &body).await {
                Ok(Frame { head: Down::Http(result), tail }) => result.map(|response| HttpResponse { body: tail, ..response }),
                Ok(_) | Err(_) => Err(HttpError::Unavailable("the host went away".to_owned())),
            }
        }
        .boxed()
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.0.later(Up::Log(level, message.to_owned()));
    }
}

struct FarInput {
    link: Arc<Link>,
    index: u32,
    name: String,
}

impl Input for FarInput {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Vec<u8>, StreamError>> {
        let message = Up::Read { input: self.index, max: u32::try_from(max).unwrap_or(u32::MAX) };
        async move {
            match self.link.exchange(&message, &[]).await.map_err(|error| gone(&error))? {
                Frame { head: Down::Read(result), tail } => result.map(|()| tail).map_err(StreamError),
                _ => Err(gone(&FrameError::Closed)),
            }
        }
        .boxed()
    }
}

struct FarOutputs {
    link: Arc<Link>,
    next: u32,
}

impl Outputs for FarOutputs {
    fn open<'a>(&'a mut self, path: &'a str) -> BoxFuture<'a, Result<Box<dyn Output>, StreamError>> {
        async move {
            self.link.done(&Up::Open { path: path.to_owned() }, &[]).await?;
            let output = FarOutput { link: Arc::clone(&self.link), index: self.next };
            self.next += 1;
            Ok(Box::new(output) as Box<dyn Output>)
        }
        .boxed()
    }
}

struct FarOutput {
    link: Arc<Link>,
    index: u32,
}

impl Output for FarOutput {
    fn write(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), StreamError>> {
        async move { self.link.done(&Up::Write { output: self.index }, &bytes).await }.boxed()
    }
}

impl Drop for FarOutput {
    fn drop(&mut self) {
        self.link.later(Up::Drop { output: self.index });
    }
}
