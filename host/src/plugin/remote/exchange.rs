//! One call from the asking side: the question goes down, what the guest wants of the host is done here and counted here, and the
//! answer comes up. Trusts nothing that comes up. Knows nothing of processes.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::super::HostCalls;
use super::super::io::{Ended, Input, Output, Outputs, StreamError, Streams};
use super::super::meter::{Ledger, Meter, Stop};
use super::super::question::{Answer, Failed, Question};
use super::frame::Caps;
use super::process::{Connection, Lost};
use super::wire::{Down, Up};
use crate::limits::{self, Tier};

/// What comes of a question.
pub(super) enum Reply {
    /// The call has ended, and the connection is free again.
    Answer(Box<Result<Answer, Failed>>),
    /// The call was given up, and the connection with it.
    Ended(Failed),
    /// The component must be loaded first.
    Missing,
}

/// What a guest gets from this side during one call.
pub(super) struct Desk {
    tier: &'static Tier,
    calls: Arc<dyn HostCalls>,
    meter: Meter,
    ledger: Ledger,
    inputs: Vec<Box<dyn Input>>,
    outputs: Option<Box<dyn Outputs>>,
    files: Vec<Option<Box<dyn Output>>>,
}

impl Desk {
    pub(super) fn new(tier: &'static Tier, streams: Option<Streams>, calls: Arc<dyn HostCalls>) -> Self {
        let (inputs, outputs) = streams.map_or_else(Default::default, |streams| (streams.inputs, Some(streams.outputs)));
        Self { tier, calls, meter: Meter::new(tier), ledger: Ledger::new(tier), inputs, outputs, files: Vec::new() }
    }

    /// Asks, and serves the guest until it answers or its time is over.
    pub(super) async fn ask(&mut self, to: &mut Connection, digest: &str, question: &Question) -> Result<Reply, Lost> {
        let end = Instant::now() + self.tier.wall;
        let room = self.tier.crossing + limits::FRAME_ROOM;
        let caps = Caps { head: room, tail: room };
        let inputs = self.inputs.iter().map(|input| input.name().to_owned()).collect();
        to.write(&Down::Ask { digest: digest.to_owned(), question, inputs }, &[], patience(end)).await?;
        loop {
            let frame = to.read(caps, patience(end)).await?;
            match frame.head {
                Up::Alive => {}
                Up::Missing => return Ok(Reply::Missing),
                Up::Answer(result) => return Ok(Reply::Answer(result)),
                Up::Log(level, text) => self.meter.log(&*self.calls, level, &text),
                Up::Drop { output } => self.close(output),
                wish => {
                    let granted = tokio::select! {
                        biased;
                        // Who is slow now is on our side.
                        granted = timeout_at(end, self.grant(wish, frame.tail)) => granted,
                        // It does not wait any more: it gave up, or is gone.
                        () = to.stirs() => continue,
                    };
                    match granted {
                        Ok(Ok((result, tail))) => to.write::<()>(&result, &tail, patience(end)).await?,
                        Ok(Err(stop)) => return Ok(Reply::Ended(stop.into())),
                        Err(_) => return Ok(Reply::Ended(Failed::wall(self.tier))),
                    }
                }
            }
        }
    }

    /// Does what the guest wants.
    async fn grant(&mut self, wish: Up, tail: Vec<u8>) -> Result<(Down<()>, Vec<u8>), Stop> {
        match wish {
            Up::Http(mut request, has_body) => {
                request.body = has_body.then_some(tail);
                let mut result = self.meter.http(&*self.calls, request).await;
                let body = result.as_mut().map(|response| std::mem::take(&mut response.body)).unwrap_or_default();
                Ok((Down::Http(result), body))
            }
            Up::Read { input, max } => {
                let input = self.inputs.get_mut(index(input)).ok_or_else(|| nonsense("reads an input that there is not"))?;
                let read = input.read(Ledger::window(max)).await;
                self.ledger.read(read.as_ref().map_or(0, Vec::len));
                let (result, bytes) = match read {
                    Ok(bytes) => (Ok(()), bytes),
                    Err(StreamError(text)) => (Err(text), Vec::new()),
                };
                Ok((Down::Read(result), bytes))
            }
            Up::Open { path } => {
                self.ledger.open(&path)?;
                let outputs = self.outputs.as_mut().ok_or_else(|| nonsense("writes where nothing is to be written"))?;
                let opened = outputs.open(&path).await;
                Ok(done(opened.map(|output| self.files.push(Some(output)))))
            }
            Up::Write { output } => {
                self.ledger.write(tail.len())?;
                let file = self.files.get_mut(index(output)).and_then(Option::as_mut);
                let file = file.ok_or_else(|| nonsense("writes to a file that is not open"))?;
                Ok(done(file.write(tail).await))
            }
            _ => Err(nonsense("says what makes no sense here")),
        }
    }

    fn close(&mut self, output: u32) {
        if let Some(file) = self.files.get_mut(index(output))
            && file.take().is_some()
        {
            self.ledger.close();
        }
    }
}

/// How long a word from the other side is waited for.
fn patience(end: Instant) -> Instant {
    (Instant::now() + limits::SANDBOX_SILENCE).min(end + limits::SANDBOX_GRACE)
}

fn done(result: Result<(), StreamError>) -> (Down<()>, Vec<u8>) {
    (Down::Done(result.map_err(|StreamError(text)| text)), Vec::new())
}

/// Only a process that a guest has taken over gets here.
fn nonsense(what: &str) -> Stop {
    Stop::Ended(Ended(StreamError(format!("its sandbox {what}"))))
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The other side has been taken over: what it says is refused, bounded, and never more than the guest might have had.
#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use tokio::net::UnixStream;

    use super::super::frame;
    use super::*;
    use crate::plugin::imports::tests as importing;
    use crate::plugin::types::{Decoding, HttpError, HttpMethod, HttpRequest, HttpResponse, LogLevel, Shard};

    #[derive(Default)]
    struct Counted {
        lines: Mutex<Vec<String>>,
        requests: Mutex<usize>,
    }

    impl HostCalls for Counted {
        fn http(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
            *self.requests.lock().unwrap() += 1;
            std::future::ready(Ok(HttpResponse { status: 200, headers: vec![], body: b"body".to_vec() })).boxed()
        }

        fn log(&self, _: LogLevel, message: &str) {
            self.lines.lock().unwrap().push(message.to_owned());
        }
    }

    struct Nothing;

    impl Outputs for Nothing {
        fn open<'a>(&'a mut self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn Output>, StreamError>> {
            std::future::ready(Ok(Box::new(Self) as Box<dyn Output>)).boxed()
        }
    }

    impl Output for Nothing {
        fn write(&mut self, _: Vec<u8>) -> BoxFuture<'_, Result<(), StreamError>> {
            std::future::ready(Ok(())).boxed()
        }
    }

    fn question() -> Question {
        let shard = Shard {
            name: "a".into(),
            inputs: vec![],
            decoding: Decoding::Copy,
            mapped: true,
            output: String::new(),
            split: None,
            context: "{}".into(),
            extensions: vec![],
        };
        Question::Transform(importing::request(), shard)
    }

    /// What comes of a call whose sandbox says this, whatever it is told.
    async fn said(tier: &'static Tier, says: Vec<(Up, Vec<u8>)>) -> (Result<Reply, Lost>, Arc<Counted>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut from, mut to) = theirs.into_split();
        let write = async move {
            for (message, tail) in says {
                if frame::write(&mut to, &message, &tail).await.is_err() {
                    return;
                }
            }
        };
        let listen = async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await };
        tokio::spawn(write);
        tokio::spawn(listen);
        let calls = Arc::new(Counted::default());
        let streams = Streams { inputs: vec![], outputs: Box::new(Nothing) };
        let mut desk = Desk::new(tier, Some(streams), Arc::<Counted>::clone(&calls));
        let reply = desk.ask(&mut Connection::over(ours), "sha256:00", &question()).await;
        (reply, calls)
    }

    fn request() -> Up {
        let request = HttpRequest {
            method: HttpMethod::Get,
            url: "https://a".into(),
            headers: vec![],
            body: None,
            auth: None,
            follow: true,
        };
        Up::Http(request, false)
    }

    async fn ends_with(tier: &'static Tier, says: Vec<(Up, Vec<u8>)>, word: &str) {
        let (reply, _) = said(tier, says).await;
        let Ok(Reply::Ended(failed)) = reply else { panic!("{word}: it goes on") };
        let text = failed.of("p", &question()).to_string();
        assert!(text.contains(word), "{word}: {text}");
    }

    #[tokio::test]
    async fn what_makes_no_sense_ends_the_call() {
        let open = |path: &str| (Up::Open { path: path.into() }, vec![]);
        for (says, word) in [
            (vec![(Up::Write { output: 0 }, vec![1])], "a file that is not open"),
            (vec![open("a"), (Up::Drop { output: 0 }, vec![]), (Up::Write { output: 0 }, vec![1])], "a file that is not open"),
            (vec![(Up::Read { input: 7, max: 1 }, vec![])], "an input that there is not"),
            (vec![open("../a")], "`..`"),
            (vec![open("a"), open("A")], "twice"),
            (vec![(Up::Welcome { engine: "e".into(), instance: 1 }, vec![])], "makes no sense"),
            (vec![(Up::Loaded(Ok(())), vec![])], "makes no sense"),
        ] {
            ends_with(&limits::BULK, says, word).await;
        }
    }

    #[tokio::test]
    async fn limits_hold_on_this_side_too() {
        let written = usize::try_from(limits::BULK.written).unwrap();
        let open = |n: usize| (Up::Open { path: n.to_string() }, vec![]);
        let piece = 8 << 20;
        let floods = (0..=written / piece).map(|_| (Up::Write { output: 0 }, vec![0; piece]));
        ends_with(&limits::BULK, std::iter::once(open(0)).chain(floods).collect(), "what a shard writes is at most 64 MiB").await;
        ends_with(&limits::BULK, (0..=limits::OPEN_OUTPUTS).map(open).collect(), "the open files of a shard").await;

        let mut says: Vec<_> = (0..1_000).map(|_| (request(), vec![])).collect();
        says.push((Up::Missing, vec![]));
        let (reply, calls) = said(&limits::STANDARD, says).await;
        assert!(matches!(reply, Ok(Reply::Missing)));
        assert_eq!(*calls.requests.lock().unwrap(), limits::STANDARD.http_requests);

        let mut says: Vec<_> = (0..5_000).map(|_| (Up::Log(LogLevel::Info, "a\nb".into()), vec![])).collect();
        says.push((Up::Missing, vec![]));
        let (_, calls) = said(&limits::STANDARD, says).await;
        let lines = calls.lines.lock().unwrap();
        assert_eq!((lines.len(), lines.first().map(String::as_str)), (limits::STANDARD.log_lines + 1, Some("a b")));
    }

    #[tokio::test]
    async fn a_frame_that_is_larger_than_an_answer_ends_the_process() {
        let failure = Failed::Trap("x".repeat(limits::PURE.crossing * 2));
        let (reply, _) = said(&limits::PURE, vec![(Up::Answer(Box::new(Err(failure))), vec![])]).await;
        assert!(matches!(reply, Err(Lost::Frame(frame::FrameError::TooLarge { part: "head", .. }))));
        let (reply, _) = said(&limits::PURE, vec![]).await;
        assert!(matches!(reply, Err(Lost::Frame(frame::FrameError::Closed))), "it went away");
    }

    #[test]
    fn texts_from_there_are_made_fit_to_be_shown() {
        let limit = Failed::Limit { limit: "\u{1b}[31mnothing".to_owned().into(), value: "a\nb".into() };
        let text = limit.of("p", &question()).to_string();
        assert_eq!(text, "plugin `p` hit a limit in `transform`: something without a name is at most a b in tier `bulk`");
    }
}
