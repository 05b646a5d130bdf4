//! Asks the sandbox, and lives with its end: what was under way is asked once more, alone, by which the component that is to
//! blame is found; one that ends it again and again is not asked any more. Knows nothing of what is asked.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use substratus_crds::PluginRole;
use tokio::sync::RwLock;

use super::super::cache::Cache;
use super::super::call::Watcher;
use super::super::component::{self, tier};
use super::super::io::Streams;
use super::super::question::{Answer, Failed, Question};
use super::super::text::sentence;
use super::super::{HostCalls, PluginError, Refusal};
use super::compiler::Compiler;
use super::exchange::{Desk, Reply};
use super::frame::Caps;
use super::process::{Connection, Lost, Place, Process};
use super::strikes::Strikes;
use super::wire::{Down, NotLoaded, Up};
use super::{SandboxState, lock};
use crate::limits;

/// The asking side of the process that runs guests.
pub(in super::super) struct Sandbox {
    place: Place,
    cache: Arc<Cache>,
    compiler: Compiler,
    current: Mutex<Option<Arc<Process>>>,
    /// Who asks shares it; who asks again, after the process has ended, has it alone.
    turns: RwLock<()>,
    strikes: Mutex<Strikes>,
    /// Which process was behind the last greeting; 0 before the first.
    instance: AtomicU64,
    restarts: AtomicU64,
    /// As it was told last.
    quarantined: AtomicUsize,
    observer: Watcher,
}

/// Something to be done with a component.
enum Job<'a> {
    Load(PluginRole),
    Ask(&'a Question, &'a mut Desk),
}

/// What came of it.
enum Done {
    Loaded { found: bool },
    Answer(Box<Result<Answer, Failed>>),
}

/// Why nothing came of it.
enum Trouble {
    Lost(Lost),
    Other(PluginError),
}

impl From<Lost> for Trouble {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Sandbox {
    /// Nothing is started before the first question.
    pub(in super::super) fn new(place: Place, cache: Arc<Cache>, observer: Watcher) -> Self {
        Self {
            compiler: Compiler::new(place.program.clone(), Arc::clone(&cache)),
            place,
            cache,
            current: Mutex::default(),
            turns: RwLock::new(()),
            strikes: Mutex::default(),
            instance: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            quarantined: AtomicUsize::new(0),
            observer,
        }
    }

    pub(in super::super) fn state(&self) -> SandboxState {
        SandboxState {
            pid: lock(&self.current).as_ref().filter(|process| process.lives()).and_then(|process| process.pid()),
            restarts: self.restarts.load(Ordering::Relaxed),
            quarantined: lock(&self.strikes).quarantined(Instant::now()),
        }
    }

    /// Has a component compiled and loaded; whether its code was in the cache.
    pub(in super::super) async fn prepare(&self, digest: &str, plugin: &str, role: PluginRole) -> Result<bool, PluginError> {
        self.admit(digest, plugin)?;
        let lost = match self.turn(false, digest, Job::Load(role)).await {
            Err(Trouble::Lost(lost)) => lost,
            other => return loaded(other),
        };
        tracing::warn!(digest, %lost, "the sandbox of plugins ended while a component was loaded; it is loaded once more");
        loaded(self.turn(true, digest, Job::Load(role)).await)
    }

    /// Asks, and once more where the process ended meanwhile.
    pub(in super::super) async fn ask(
        &self,
        digest: &str,
        plugin: &str,
        question: &Question,
        streams: Option<Streams>,
        calls: Arc<dyn HostCalls>,
    ) -> Result<Answer, PluginError> {
        self.admit(digest, plugin)?;
        let (once, tier) = (streams.is_some(), question.tier());
        let mut desk = Desk::new(tier, streams, Arc::clone(&calls));
        let lost = match self.turn(false, digest, Job::Ask(question, &mut desk)).await {
            Err(Trouble::Lost(lost)) => lost,
            other => return answered(other, plugin, question),
        };
        self.admit(digest, plugin)?;
        if once {
            // What was read and written is gone; whoever has it from the start may ask again.
            return Err(ended(plugin, question, &lost));
        }
        tracing::warn!(plugin, function = question.function(), %lost, "the sandbox of plugins ended; the question is asked once more");
        let mut desk = Desk::new(tier, None, calls);
        let again = self.turn(true, digest, Job::Ask(question, &mut desk)).await;
        if let Err(Trouble::Lost(_)) = &again {
            self.admit(digest, plugin)?;
        }
        answered(again, plugin, question)
    }

    /// Refuses a component that ended the process too often.
    fn admit(&self, digest: &str, plugin: &str) -> Result<(), PluginError> {
        let now = Instant::now();
        let (quarantine, count) = {
            let strikes = lock(&self.strikes);
            (strikes.quarantine(digest, now), strikes.quarantined(now))
        };
        self.tell(count);
        let Some(quarantine) = quarantine else { return Ok(()) };
        let minutes = quarantine.left.as_secs().div_ceil(60);
        Err(PluginError::Quarantined { plugin: plugin.to_owned(), crashes: quarantine.crashes, minutes })
    }

    async fn turn(&self, alone: bool, digest: &str, job: Job<'_>) -> Result<Done, Trouble> {
        if alone {
            let _turn = self.turns.write().await;
            self.attempt(digest, job).await
        } else {
            let _turn = self.turns.read().await;
            self.attempt(digest, job).await
        }
    }

    async fn attempt(&self, digest: &str, job: Job<'_>) -> Result<Done, Trouble> {
        let process = self.process().map_err(Trouble::Other)?;
        let (mut connection, instance) = match process.connect(self.compiler.engine()).await {
            Ok(connected) => connected,
            Err(lost) => {
                // Nothing ran, so that nothing is to blame.
                drop(process.end());
                return Err(lost.into());
            }
        };
        if let Some(instance) = instance {
            self.greeted(instance);
        }
        let _work = process.work_on(digest);
        match self.work(&mut connection, digest, job).await {
            Ok((done, free)) => {
                if free {
                    process.keep(connection);
                }
                Ok(done)
            }
            Err(trouble) => {
                if let Trouble::Lost(_) = &trouble {
                    self.blame(&process);
                }
                Err(trouble)
            }
        }
    }

    /// Does a job; and whether the connection is free afterwards.
    async fn work(&self, connection: &mut Connection, digest: &str, job: Job<'_>) -> Result<(Done, bool), Trouble> {
        let (question, desk) = match job {
            Job::Load(role) => return Ok((Done::Loaded { found: self.load(connection, digest, role).await? }, true)),
            Job::Ask(question, desk) => (question, desk),
        };
        let mut loaded = false;
        loop {
            match desk.ask(connection, digest, question).await? {
                Reply::Answer(result) => return Ok((Done::Answer(result), true)),
                Reply::Ended(failed) => return Ok((Done::Answer(Box::new(Err(failed))), false)),
                Reply::Missing if loaded => return Err(Lost::Unreachable("it forgets what it was given".to_owned()).into()),
                Reply::Missing => {
                    self.load(connection, digest, question.role()).await?;
                    loaded = true;
                }
            }
        }
    }

    /// Sends native code down; whether it was in the cache.
    async fn load(&self, connection: &mut Connection, digest: &str, role: PluginRole) -> Result<bool, Trouble> {
        let code = self.compiler.code(digest).await.map_err(Trouble::Other)?;
        let patience = || tokio::time::Instant::now() + limits::SANDBOX_SILENCE;
        let (digest_of_code, size) = (code.sha256, code.bytes.len() as u64);
        let load = Down::Load { digest: digest.to_owned(), role, size, sha256: digest_of_code };
        connection.write::<()>(&load, &[], patience()).await?;
        for piece in code.bytes.chunks(limits::READ_BYTES) {
            connection.write::<()>(&Down::Code, piece, patience()).await?;
        }
        loop {
            match connection.read(Caps { head: limits::FRAME_ROOM, tail: 0 }, patience()).await?.head {
                Up::Alive => {}
                Up::Loaded(Ok(())) => return Ok(code.found),
                Up::Loaded(Err(why)) => return Err(Trouble::Other(self.not_loaded(digest, role, why, code.found))),
                _ => return Err(Lost::Unreachable("it says what makes no sense here".to_owned()).into()),
            }
        }
    }

    fn not_loaded(&self, digest: &str, role: PluginRole, why: NotLoaded, found: bool) -> PluginError {
        match why {
            NotLoaded::Code(why) if found => {
                tracing::warn!(digest, why = sentence(&why), "compiled code does not fit the sandbox; it is compiled again");
                self.cache.forget_code(digest);
                PluginError::Engine { action: "load native code", reason: sentence(&why) }
            }
            NotLoaded::Code(why) | NotLoaded::Invalid(why) => Refusal::Invalid(sentence(&why)).into(),
            NotLoaded::Resources(needed, max) => {
                Refusal::Resources { needed: sentence(&needed), max: sentence(&max), tier: tier(role).name }.into()
            }
            NotLoaded::World(reason) => Refusal::World { world: component::world(role), reason: sentence(&reason) }.into(),
        }
    }

    /// The process of now, or a new one.
    fn process(&self) -> Result<Arc<Process>, PluginError> {
        let mut current = lock(&self.current);
        if let Some(process) = current.as_ref().filter(|process| process.lives()) {
            return Ok(Arc::clone(process));
        }
        let process = Arc::new(Process::start(&self.place, &self.cache)?);
        *current = Some(Arc::clone(&process));
        Ok(process)
    }

    fn greeted(&self, instance: u64) {
        let before = self.instance.swap(instance, Ordering::Relaxed);
        if before != 0 && before != instance {
            self.restarts.fetch_add(1, Ordering::Relaxed);
            if let Some(observer) = self.observer.get() {
                observer.sandbox_restarted();
            }
        }
    }

    /// The process ended. Where one component alone was in work, it is to blame; where there were several, each will be asked
    /// alone.
    fn blame(&self, process: &Process) {
        let Some(work) = process.end() else { return };
        let [culprit] = work.as_slice() else { return };
        let quarantined = {
            let (mut strikes, now) = (lock(&self.strikes), Instant::now());
            strikes.add(culprit, now);
            strikes.quarantined(now)
        };
        self.tell(quarantined);
    }

    /// Tells whoever counts how many components are in quarantine, where that changed.
    fn tell(&self, quarantined: usize) {
        if self.quarantined.swap(quarantined, Ordering::Relaxed) != quarantined
            && let Some(observer) = self.observer.get()
        {
            observer.quarantined(quarantined);
        }
    }
}

fn loaded(result: Result<Done, Trouble>) -> Result<bool, PluginError> {
    match result {
        Ok(Done::Loaded { found }) => Ok(found),
        Ok(Done::Answer(_)) => Err(broken("an answer to no question")),
        Err(Trouble::Lost(lost)) => Err(broken(&lost.to_string())),
        Err(Trouble::Other(error)) => Err(error),
    }
}

fn answered(result: Result<Done, Trouble>, plugin: &str, question: &Question) -> Result<Answer, PluginError> {
    match result {
        Ok(Done::Answer(result)) => (*result).map_err(|failed| failed.of(plugin, question)),
        Ok(Done::Loaded { .. }) => Err(broken("no answer to a question")),
        Err(Trouble::Lost(lost)) => Err(ended(plugin, question, &lost)),
        Err(Trouble::Other(error)) => Err(error),
    }
}

fn ended(plugin: &str, question: &Question, lost: &Lost) -> PluginError {
    PluginError::Sandbox { plugin: plugin.to_owned(), function: question.function(), reason: lost.to_string() }
}

fn broken(reason: &str) -> PluginError {
    PluginError::Engine { action: "load a component into the sandbox", reason: reason.to_owned() }
}
