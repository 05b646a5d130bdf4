//! The process that runs guests: what it holds, which is nothing, and what becomes of calls when it ends. Knows guests only as
//! far as they end it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod processes;
mod socket;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};
use substratus::plugin::types::{Failure, Fitness, HttpError, HttpRequest, HttpResponse, LogLevel, PlanPage};
use substratus::plugin::{CallEvent, HostCalls, Isolation, Observer, PluginError, PluginOptions, Plugins};
use tokio::sync::Notify;
use wasm_encoder::Instruction as I;

use crate::hostile::module::{FIT, Guest, TEXT, UNSUPPORTED, times};
use crate::hostile::{resolve_request, serve_request};
use crate::load::program;

fn open(root: &Path) -> Plugins {
    let options = PluginOptions { cache: root.to_owned(), bundled: Vec::new() };
    Plugins::open_isolated(options, Isolation::Child { program: program().to_owned() }).unwrap()
}

/// A component that gives this score.
fn scoring(score: u8) -> Vec<u8> {
    Guest { data: vec![(FIT, vec![score])], ..Guest::default() }.component()
}

async fn score(plugins: &Plugins, digest: &str) -> Result<u8, PluginError> {
    plugins.fit(digest, &serve_request()).await.map(|Fitness { score, .. }| score)
}

/// A loader that sends one request and then says that it supports nothing; `salt` makes it another one.
fn asking(salt: u8) -> Vec<u8> {
    let mut send: Vec<i32> = vec![0, TEXT, 2];
    send.resize(12, 0);
    send.push(4_096);
    let send = send.into_iter().map(I::I32Const).chain([I::Call(0)]).collect();
    Guest {
        import: Some(("substratus:plugin/http@0.1.0", "send", 13)),
        body: Some(times(1, send, UNSUPPORTED)),
        data: vec![(8_192, vec![salt])],
        loader: true,
        ..Guest::default()
    }
    .component()
}

async fn resolve(plugins: &Plugins, digest: &str, calls: &Arc<Knife>) -> Result<PlanPage, PluginError> {
    plugins.resolve(digest, &resolve_request(), None, Arc::<Knife>::clone(calls)).await
}

fn is_answer(result: &Result<PlanPage, PluginError>) -> bool {
    matches!(result, Err(PluginError::Failure(Failure::Unsupported(text))) if text == "ok")
}

fn pid(plugins: &Plugins) -> Pid {
    let pid = plugins.sandbox().unwrap().pid.unwrap();
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Has a process stand still; each of its threads does so by itself, and may end what it is about before.
fn stop(process: Pid) {
    kill_process(process, Signal::STOP).unwrap();
    let threads = format!("/proc/{}/task", process.as_raw_nonzero());
    let runs = |thread: &Path| !fs::read_to_string(thread.join("stat")).unwrap().rsplit_once(") ").unwrap().1.starts_with('T');
    while fs::read_dir(&threads).unwrap().any(|thread| runs(&thread.unwrap().path())) {
        std::thread::yield_now();
    }
}

/// Ends the sandbox while a guest waits for an answer from outside.
struct Knife {
    plugins: Plugins,
    /// How often it still does so.
    left: AtomicUsize,
    requests: AtomicUsize,
    /// Whom to wait for first.
    after: Option<Arc<Notify>>,
}

impl Knife {
    fn new(plugins: &Plugins, left: usize) -> Arc<Self> {
        Arc::new(Self { plugins: plugins.clone(), left: left.into(), requests: AtomicUsize::new(0), after: None })
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl HostCalls for Knife {
    fn http(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        async move {
            if let (0, Some(after)) = (self.requests.fetch_add(1, Ordering::Relaxed), &self.after) {
                after.notified().await;
            }
            if self.left.load(Ordering::Relaxed) > 0 {
                self.left.fetch_sub(1, Ordering::Relaxed);
                kill_process(pid(&self.plugins), Signal::KILL).unwrap();
            }
            Ok(HttpResponse { status: 200, headers: vec![], body: vec![] })
        }
        .boxed()
    }

    fn log(&self, _: LogLevel, _: &str) {}
}

/// What an operator would count.
#[derive(Default)]
struct Counted {
    restarts: AtomicUsize,
    quarantined: Mutex<Vec<usize>>,
    compiled: AtomicUsize,
}

impl Observer for Counted {
    fn call(&self, _: &CallEvent<'_>) {}

    fn code(&self, found: bool) {
        self.compiled.fetch_add(usize::from(!found), Ordering::Relaxed);
    }

    fn sandbox_restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    fn quarantined(&self, components: usize) {
        self.quarantined.lock().unwrap().push(components);
    }
}

#[tokio::test]
async fn a_call_whose_process_is_killed_is_asked_once_more() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let counted = Arc::new(Counted::default());
    plugins.observe(Arc::clone(&counted) as Arc<dyn Observer>);
    let digest = plugins.add(&asking(0)).unwrap().digest;
    let (other, knife) = (plugins.add(&scoring(7)).unwrap().digest, Knife::new(&plugins, 1));
    let answer = resolve(&plugins, &digest, &knife).await;
    assert!(is_answer(&answer), "{answer:?}");
    assert_eq!((knife.requests(), plugins.sandbox().unwrap().restarts), (2, 1));
    assert_eq!(score(&plugins, &other).await.unwrap(), 7);
    assert_eq!(counted.restarts.load(Ordering::Relaxed), 1);
    assert_eq!(counted.compiled.load(Ordering::Relaxed), 2, "the new process got what the old one had");
}

#[tokio::test]
async fn whoever_ends_the_process_three_times_is_not_asked_any_more() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let counted = Arc::new(Counted::default());
    plugins.observe(Arc::clone(&counted) as Arc<dyn Observer>);
    let (bad, good) = (plugins.add(&asking(0)).unwrap().digest, plugins.add(&asking(1)).unwrap().digest);
    let knife = Knife::new(&plugins, usize::MAX);
    let error = resolve(&plugins, &bad, &knife).await.unwrap_err();
    assert!(matches!(&error, PluginError::Sandbox { function: "resolve", .. }), "{error:?}");
    assert!(error.is_passing(), "the object is looked at again");
    assert_eq!((knife.requests(), plugins.sandbox().unwrap().quarantined), (2, 0));
    // The third time is the last: it is not even asked once more.
    let error = resolve(&plugins, &bad, &knife).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin `hostile` ended its sandbox 3 times and is not asked for another 10 min; another version of it is asked at once"
    );
    assert!(matches!(resolve(&plugins, &bad, &knife).await, Err(PluginError::Quarantined { .. })));
    assert_eq!((knife.requests(), plugins.sandbox().unwrap().quarantined), (3, 1));
    let answer = resolve(&plugins, &good, &Knife::new(&plugins, 0)).await;
    assert!(is_answer(&answer), "{answer:?}");
    assert_eq!(*counted.quarantined.lock().unwrap(), [1]);
}

#[tokio::test]
async fn a_neighbour_of_a_crash_is_answered_and_not_blamed() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let (bad, good) = (plugins.add(&asking(0)).unwrap().digest, plugins.add(&asking(1)).unwrap().digest);
    let under_way = Arc::new(Notify::new());
    let knife = Knife { after: Some(Arc::clone(&under_way)), ..Arc::into_inner(Knife::new(&plugins, usize::MAX)).unwrap() };
    let (knife, waits) = (Arc::new(knife), Arc::new(Notify::new()));
    let neighbour = Arc::new(Knife { after: Some(waits), ..Arc::into_inner(Knife::new(&plugins, 0)).unwrap() });
    let (killed, answer, ()) = tokio::join!(resolve(&plugins, &bad, &knife), resolve(&plugins, &good, &neighbour), async {
        while neighbour.requests() == 0 {
            tokio::task::yield_now().await;
        }
        under_way.notify_one();
    });
    assert!(is_answer(&answer), "{answer:?}");
    assert!(matches!(killed, Err(PluginError::Sandbox { .. })), "{killed:?}");
    assert_eq!((knife.requests(), neighbour.requests()), (2, 2));
    // Of the two ends only the second had one culprit.
    let error = resolve(&plugins, &bad, &knife).await.unwrap_err();
    assert!(matches!(&error, PluginError::Quarantined { crashes: 3, .. }), "{error:?}");
    let answer = resolve(&plugins, &good, &neighbour).await;
    assert!(is_answer(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_process_that_stands_still_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    let before = pid(&plugins);
    stop(before);
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    assert_ne!(pid(&plugins), before);
    assert_eq!(plugins.sandbox().unwrap().restarts, 1);
}

#[tokio::test]
async fn a_process_that_ended_between_calls_is_nobodys_fault() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    for _ in 0..5 {
        assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
        let before = pid(&plugins);
        kill_process(before, Signal::KILL).unwrap();
        while plugins.sandbox().unwrap().pid.is_some() {
            std::thread::yield_now();
        }
    }
    let state = plugins.sandbox().unwrap();
    assert_eq!((state.restarts, state.quarantined), (4, 0));
}

#[tokio::test]
async fn code_that_was_changed_on_disk_never_reaches_the_process() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    let engine = fs::read_dir(root.path().join("aot")).unwrap().next().unwrap().unwrap().path();
    let file = engine.join(format!("{}.cwasm", digest.strip_prefix("sha256:").unwrap()));
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&file, &bad).unwrap();
    // Also where the process needs it again in the middle of everything.
    kill_process(pid(&plugins), Signal::KILL).unwrap();
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    assert_eq!(fs::read(&file).unwrap(), good, "it was compiled and signed again");
    let again = open(root.path());
    let counted = Arc::new(Counted::default());
    again.observe(Arc::clone(&counted) as Arc<dyn Observer>);
    assert_eq!(score(&again, &digest).await.unwrap(), 7);
    assert_eq!(counted.compiled.load(Ordering::Relaxed), 0);
}

/// Runtimes come and go; connections outlive them.
#[test]
fn callers_of_several_runtimes_share_one_process() {
    let root = tempfile::tempdir().unwrap();
    let plugins = open(root.path());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    let mut pids = std::collections::HashSet::new();
    for _ in 0..3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(score(&plugins, &digest)).unwrap(), 7);
        pids.insert(pid(&plugins));
    }
    assert_eq!((pids.len(), plugins.sandbox().unwrap().restarts), (1, 0));
}
