//! The sandbox itself: takes native code that the other side vouches for, runs guests, and knows nothing else. It asks for nothing
//! and opens nothing; everything it has comes down its socket.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use substratus_crds::PluginRole;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;

use super::super::call;
use super::super::engine;
use super::super::question::Question;
use super::super::world::{Unfit, World};
use super::super::{PluginError, Refusal};
use super::frame::{self, Caps, Frame, FrameError};
use super::link::{FarCalls, Link, streams};
use super::lock;
use super::wire::{Down, NotLoaded, Up};
use crate::limits;

const CAPS: Caps = Caps { head: limits::FRAME_HEAD, tail: limits::FRAME_TAIL };

/// Serves until it is told to end; with `lifeline`, until the first connection closes.
pub(super) async fn serve(listener: StdListener, lifeline: bool) -> anyhow::Result<()> {
    listener.set_nonblocking(true).context("prepare the socket")?;
    let listener = UnixListener::from_std(listener).context("listen on the socket")?;
    let house = Arc::new(House::open().context("start the engine")?);
    let (over, places) = (CancellationToken::new(), Arc::new(Semaphore::new(limits::SANDBOX_CONNECTIONS)));
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    if lifeline {
        let (stream, _) = tokio::time::timeout(limits::SANDBOX_START, listener.accept()).await.context("nobody came")??;
        let over = over.clone();
        tokio::spawn(async move { until_closed(&stream, &over).await });
    }
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let stream = tokio::select! {
            () = over.cancelled() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection is not taken");
                    continue;
                }
            },
        };
        let house = Arc::clone(&house);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = house.talk(stream).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

/// Nobody says anything on a lifeline.
async fn until_closed(stream: &UnixStream, over: &CancellationToken) {
    let _over = over.clone().drop_guard();
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0; 16]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

struct House {
    engine: Engine,
    id: String,
    instance: u64,
    loaded: Mutex<Loaded>,
}

/// Components by digest, and when each was asked last.
#[derive(Default)]
struct Loaded {
    worlds: HashMap<String, (Arc<World>, u64)>,
    uses: u64,
}

impl Loaded {
    fn get(&mut self, digest: &str) -> Option<Arc<World>> {
        self.uses += 1;
        let (world, last_use) = self.worlds.get_mut(digest)?;
        *last_use = self.uses;
        Some(Arc::clone(world))
    }

    fn put(&mut self, digest: String, world: World) {
        if !self.worlds.contains_key(&digest) && self.worlds.len() >= limits::READY_COMPONENTS {
            let oldest = self.worlds.iter().min_by_key(|(_, (_, last_use))| *last_use).map(|(digest, _)| digest.clone());
            oldest.map(|digest| self.worlds.remove(&digest));
        }
        self.uses += 1;
        self.worlds.insert(digest, (Arc::new(world), self.uses));
    }
}

impl House {
    fn open() -> Result<Self, PluginError> {
        let engine = engine::open()?;
        // A hash map's keys are random in every process.
        let instance = std::hash::RandomState::new().build_hasher().finish() | 1;
        Ok(Self { id: engine::id(&engine), engine, instance, loaded: Mutex::default() })
    }

    async fn talk(&self, stream: UnixStream) -> Result<(), FrameError> {
        let (from, mut to) = stream.into_split();
        let mut from = BufReader::new(from);
        let Down::<Box<Question>>::Hello { .. } = frame::read(&mut from, CAPS).await?.head else { return Ok(()) };
        // Whoever greets judges whether this is the right engine.
        frame::write(&mut to, &Up::Welcome { engine: self.id.clone(), instance: self.instance }, &[]).await?;
        let (sender, receiver) = mpsc::channel(1);
        let gone = CancellationToken::new();
        let end = gone.clone().drop_guard();
        tokio::spawn(async move {
            let _end = end;
            while let Ok(frame) = frame::read(&mut from, CAPS).await {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        let link = Arc::new(Link::new(to, receiver));
        while let Some(frame) = link.receive().await {
            match frame.head {
                Down::Load { digest, role, size, sha256 } => {
                    let result = self.load(&link, digest, role, size, sha256).await?;
                    link.send(&Up::Loaded(result)).await?;
                }
                Down::Ask { digest, question, inputs } => {
                    let Some(up) = self.answer(&link, &digest, &question, inputs, &gone).await else { return Ok(()) };
                    link.send(&up).await?;
                }
                // The result of something that a call did not wait for any more.
                Down::Http(_) | Down::Read(_) | Down::Done(_) => {}
                Down::Hello { .. } | Down::Code => return Ok(()),
            }
        }
        Ok(())
    }

    /// Takes code in, whole and with the hash that was announced.
    async fn load(
        &self,
        link: &Link,
        digest: String,
        role: PluginRole,
        size: u64,
        sha256: [u8; 32],
    ) -> Result<Result<(), NotLoaded>, FrameError> {
        let mut code = Vec::new();
        while (code.len() as u64) < size.min(limits::CODE_BYTES) {
            match link.receive().await {
                Some(Frame { head: Down::Code, tail }) if !tail.is_empty() => code.extend_from_slice(&tail),
                _ => return Err(FrameError::Closed),
            }
        }
        let hash: [u8; 32] = Sha256::digest(&code).into();
        if hash != sha256 || code.len() as u64 != size {
            return Ok(Err(NotLoaded::Code("its hash is not the one that was announced".to_owned())));
        }
        let engine = self.engine.clone();
        let loaded = tokio::task::spawn_blocking(move || World::load(&engine, &code, role)).await;
        Ok(match loaded {
            Ok(Ok(world)) => {
                lock(&self.loaded).put(digest, world);
                Ok(())
            }
            Ok(Err(unfit)) => Err(not_loaded(unfit)),
            Err(panic) => Err(NotLoaded::Invalid(panic.to_string())),
        })
    }

    /// What goes up in the end; nothing where the other side has gone.
    async fn answer(
        &self,
        link: &Arc<Link>,
        digest: &str,
        question: &Question,
        inputs: Vec<String>,
        gone: &CancellationToken,
    ) -> Option<Up> {
        let world = lock(&self.loaded).get(digest);
        let Some(world) = world else { return Some(Up::Missing) };
        let streams = matches!(question, Question::Transform(..)).then(|| streams(link, inputs));
        let calls = Arc::new(FarCalls(Arc::clone(link)));
        tokio::select! {
            result = call::run(&self.engine, &world, question, streams, calls) => Some(Up::Answer(Box::new(result))),
            () = beat(link) => None,
            () = gone.cancelled() => None,
        }
    }
}

/// Says again and again that a call is under way; ends with the connection.
async fn beat(link: &Link) {
    loop {
        tokio::time::sleep(limits::SANDBOX_BEAT).await;
        if link.send(&Up::Alive).await.is_err() {
            return;
        }
    }
}

fn not_loaded(unfit: Unfit) -> NotLoaded {
    match unfit {
        Unfit::Code(error) => NotLoaded::Code(format!("{error:#}")),
        Unfit::Refused(Refusal::Resources { needed, max, .. }) => NotLoaded::Resources(needed, max),
        Unfit::Refused(Refusal::World { reason, .. }) => NotLoaded::World(reason),
        Unfit::Refused(other) => NotLoaded::Invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use substratus_crds::PluginRole;

    use super::*;

    async fn told(says: Vec<(Down, Vec<u8>)>) -> Result<Up, FrameError> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let served = tokio::spawn(async move { House::open().unwrap().talk(theirs).await.map_err(|error| error.to_string()) });
        let mut ours = BufReader::new(ours);
        frame::write(&mut ours, &Down::<Box<Question>>::Hello { engine: "any".into() }, &[]).await?;
        let welcome = frame::read::<Up>(&mut ours, CAPS).await?.head;
        assert!(matches!(&welcome, Up::Welcome { engine, .. } if engine.len() == 64), "{welcome:?}");
        for (message, tail) in says {
            frame::write(&mut ours, &message, &tail).await?;
        }
        let up = frame::read::<Up>(&mut ours, CAPS).await.map(|frame| frame.head);
        served.abort();
        up
    }

    fn load(code: &[u8], hashed: &[u8]) -> Vec<(Down, Vec<u8>)> {
        let load = Down::Load {
            digest: "sha256:00".into(),
            role: PluginRole::GpuPolicy,
            size: code.len() as u64,
            sha256: Sha256::digest(hashed).into(),
        };
        vec![(load, vec![]), (Down::Code, code.to_vec())]
    }

    fn native() -> Vec<u8> {
        engine::compiler().unwrap().precompile_component(&wasm_encoder::Component::new().finish()).unwrap()
    }

    #[tokio::test]
    async fn code_with_another_hash_is_not_loaded() {
        let good = native();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 1;
        let up = told(load(&bad, &good)).await.unwrap();
        assert_eq!(up, Up::Loaded(Err(NotLoaded::Code("its hash is not the one that was announced".into()))));
        // The right one is loaded, and found to be no policy.
        let up = told(load(&good, &good)).await.unwrap();
        assert!(matches!(&up, Up::Loaded(Err(NotLoaded::World(_)))), "{up:?}");
    }

    #[tokio::test]
    async fn what_is_no_native_code_is_refused() {
        let up = told(load(b"\0asm\x0d\0\x01\0", b"\0asm\x0d\0\x01\0")).await.unwrap();
        assert!(matches!(&up, Up::Loaded(Err(NotLoaded::Code(_)))), "{up:?}");
    }

    #[tokio::test]
    async fn more_code_than_announced_or_none_at_all_ends_the_connection() {
        let mut long = load(b"ab", b"ab");
        for (_, tail) in long.iter_mut().filter(|(_, tail)| !tail.is_empty()) {
            tail.push(b'c');
        }
        let up = told(long).await.unwrap();
        assert!(matches!(&up, Up::Loaded(Err(NotLoaded::Code(_)))), "{up:?}");
        let mut empty = load(b"ab", b"ab");
        for (_, tail) in &mut empty {
            tail.clear();
        }
        assert!(matches!(told(empty).await, Err(FrameError::Closed)));
        assert!(matches!(told(vec![(Down::Code, vec![1])]).await, Err(FrameError::Closed)));
    }
}
