//! Guests that mean harm: each meets the exact limit it goes for, and the host answers the next question. Knows nothing of real
//! plugins.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

pub(crate) mod module;
mod worker;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use substratus::limits::{PURE, STANDARD};
use substratus::plugin::package::PackageError;
use substratus::plugin::types::{
    Failure, FileFilter, Fitness, HttpError, HttpRequest, HttpResponse, LogLevel, ResolveRequest, ServeRequest, ServingModel,
    Subject,
};
use substratus::plugin::{
    Blame, CallEvent, HostCalls, Isolation, Observer, Offline, PluginError, PluginOptions, Plugins, Refusal,
};
use wasm_encoder::Instruction as I;

use self::module::{FIT, Guest, TEXT, UNSUPPORTED, forever, times};

const LOG: &str = "substratus:plugin/log@0.1.0";
const HTTP: &str = "substratus:plugin/http@0.1.0";

/// One host for all: what one guest breaks, another test sees. Once in this process, and once in a sandbox: both say the same.
static HERE: LazyLock<(tempfile::TempDir, Plugins)> = LazyLock::new(|| open(Isolation::Here));
static THERE: LazyLock<(tempfile::TempDir, Plugins)> =
    LazyLock::new(|| open(Isolation::Child { program: crate::load::program().to_owned() }));

fn open(isolation: Isolation) -> (tempfile::TempDir, Plugins) {
    let cache = tempfile::tempdir().unwrap();
    let options = PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() };
    let plugins = Plugins::open_isolated(options, isolation).unwrap();
    (cache, plugins)
}

fn hosts() -> [&'static Plugins; 2] {
    [&HERE.1, &THERE.1]
}

/// Whatever it was, nothing ended the sandbox.
fn nothing_ended() {
    assert_eq!(THERE.1.sandbox().unwrap().restarts, 0);
}

fn subject(kind: &str) -> Subject {
    Subject { kind: kind.into(), namespace: "default".into(), name: "m".into() }
}

pub(crate) fn serve_request() -> ServeRequest {
    let model = ServingModel {
        name: "m".into(),
        format: None,
        architecture: None,
        parameters: None,
        dtype: None,
        quantization: None,
        context_length: None,
        entrypoint: None,
        bytes: None,
        mount_path: None,
        bucket_url: None,
    };
    ServeRequest {
        subject: subject("Server"),
        model,
        gpu: None,
        cpu: None,
        memory: None,
        params: vec![],
        env: vec![],
        image: None,
        config: "{}".into(),
        extensions: vec![],
    }
}

pub(crate) fn resolve_request() -> ResolveRequest {
    ResolveRequest {
        subject: subject("Model"),
        source: None,
        params: vec![],
        files: FileFilter { include: vec![], exclude: vec![], format: None },
        config: "{}".into(),
        revision: None,
        extensions: vec![],
    }
}

async fn fit(guest: Guest) -> Result<Fitness, PluginError> {
    fit_bytes(&guest.component()).await
}

async fn fit_bytes(bytes: &[u8]) -> Result<Fitness, PluginError> {
    let [here, there] = hosts();
    let (digest, request) = (here.add(bytes)?.digest, serve_request());
    there.add(bytes)?;
    let (here, there) = tokio::join!(here.fit(&digest, &request), there.fit(&digest, &request));
    assert_eq!(format!("{here:?}"), format!("{there:?}"));
    nothing_ended();
    there
}

/// The next call, of a good guest on the same host, works.
async fn host_is_well() {
    let fitness = fit(Guest::default()).await.unwrap();
    assert_eq!((fitness.score, fitness.reason.as_str()), (50, "ok"));
}

async fn assert_limit(guest: Guest, expected: &str, value: &str) {
    let error = fit(guest).await.unwrap_err();
    match &error {
        PluginError::Limit { plugin, function: "fit", limit, value: actual, tier: "pure" } => {
            assert_eq!((plugin.as_str(), *limit, actual.as_str()), ("hostile", expected, value));
        }
        other => panic!("no limit: {other:?}"),
    }
    assert_eq!(error.blame(), Blame::Guest);
    host_is_well().await;
}

fn body(body: Vec<I<'static>>) -> Guest {
    Guest { body: Some(body), ..Guest::default() }
}

#[tokio::test]
async fn an_endless_loop_ends_at_the_processor_limit() {
    let start = Instant::now();
    assert_limit(body(forever(vec![])), "processor time", "100 ms").await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test]
async fn an_endless_start_function_ends_at_the_processor_limit() {
    let endless = Guest { start: Some(forever(vec![])), ..Guest::default() };
    assert_limit(endless, "processor time", "100 ms").await;
}

#[tokio::test]
async fn an_endless_allocation_ends_at_the_processor_limit() {
    let endless = Guest { realloc: Some(forever(vec![])), ..Guest::default() };
    assert_limit(endless, "processor time", "100 ms").await;
}

#[tokio::test]
async fn endless_copies_end_at_the_processor_limit() {
    let copy = vec![I::I32Const(0), I::I32Const(1), I::I32Const((32 << 20) - 1), I::MemoryCopy { src_mem: 0, dst_mem: 0 }];
    let guest = Guest { body: Some(forever(copy)), memories: vec![512], ..Guest::default() };
    assert_limit(guest, "processor time", "100 ms").await;
}

#[tokio::test]
async fn endless_recursion_ends_at_the_stack() {
    let recursion = vec![I::LocalGet(0), I::Call(0)];
    assert_limit(body(recursion), "the guest's stack", "512 KiB").await;
}

#[tokio::test]
async fn growing_memory_ends_at_the_memory_limit() {
    assert_limit(body(forever(vec![I::I32Const(16), I::MemoryGrow(0), I::Drop])), "memory", "64 MiB").await;
}

/// Each of them is far from the limit.
#[tokio::test]
async fn memories_that_grow_together_are_counted_together() {
    let grow = (0..8).flat_map(|memory| [I::I32Const(16), I::MemoryGrow(memory), I::Drop]).collect();
    let guest = Guest { body: Some(forever(grow)), memories: vec![2; 8], ..Guest::default() };
    assert_limit(guest, "memory", "64 MiB").await;
}

#[tokio::test]
async fn growing_a_table_ends_at_its_limit() {
    let grow = vec![I::RefNull(wasm_encoder::HeapType::FUNC), I::I32Const(1_000), I::TableGrow(0), I::Drop];
    let guest = Guest { body: Some(forever(grow)), tables: 1, ..Guest::default() };
    assert_limit(guest, "the size of tables", "20000 elements").await;
}

#[tokio::test]
async fn a_huge_answer_is_not_taken_in() {
    let length = (2_i32 << 20).to_le_bytes().to_vec();
    let guest = Guest { memories: vec![64], data: vec![(FIT + 8, length)], ..Guest::default() };
    assert_limit(guest, "data from guest to host", "1024 KiB").await;
}

/// The limit is one of bytes, to the byte.
#[tokio::test]
async fn one_byte_more_than_may_cross_does_not() {
    let answer = |bytes: usize| Guest {
        memories: vec![64],
        data: vec![(FIT + 8, i32::try_from(bytes).unwrap().to_le_bytes().to_vec())],
        ..Guest::default()
    };
    assert_limit(answer(PURE.crossing + 1), "data from guest to host", "1024 KiB").await;
    let reason = fit(answer(PURE.crossing / 2)).await.unwrap().reason;
    assert!(reason.starts_with("ok") && reason.len() <= substratus::limits::SENTENCE_BYTES, "{}", reason.len());
}

/// What runs once the answer is read can spoil it no more than what runs before.
#[tokio::test]
async fn a_crash_behind_the_answer_is_a_crash() {
    let error = fit(Guest { post: Some(vec![I::Unreachable]), ..Guest::default() }).await.unwrap_err();
    assert!(matches!(&error, PluginError::Trap { function: "fit", reason, .. } if reason.contains("unreachable")), "{error:?}");
    assert_eq!(error.blame(), Blame::Guest);
    host_is_well().await;
    assert_limit(Guest { post: Some(forever(vec![])), ..Guest::default() }, "processor time", "100 ms").await;
}

/// What could never start is said to its author, by the packager already, in words of the author's own tools.
#[test]
fn what_needs_too_much_to_start_is_refused_before_it_is_compiled() {
    for (guest, words) in [
        (Guest { memories: vec![1; 9], ..Guest::default() }, "9 memories to start, and tier `pure` has 8"),
        (Guest { memories: vec![2_000], ..Guest::default() }, "125 MiB of memory to start, and tier `pure` has 64 MiB of memory"),
        (Guest { memories: vec![30_000], ..Guest::default() }, "1875 MiB of memory to start"),
        (Guest { memories: vec![320; 4], ..Guest::default() }, "80 MiB of memory to start"),
        (Guest { elements: 30_000, ..Guest::default() }, "30000 table elements to start, and tier `pure` has 20000"),
        // More than any tier has: the allocator would say this in its own terms.
        (Guest { elements: 10_000_000, ..Guest::default() }, "10000000 table elements to start"),
        (Guest { loader: true, tables: 90, ..Guest::default() }, "90 tables to start, and tier `standard` has 50"),
    ] {
        let error = guest.packaged().unwrap_err();
        assert!(matches!(&error, PackageError::Refused(Refusal::Resources { .. })), "{error:?}");
        assert!(error.to_string().starts_with(&format!("the component needs {words}")), "{error}");
    }
}

#[tokio::test]
async fn a_crash_is_told_with_its_function() {
    let error = fit(body(vec![I::Unreachable])).await.unwrap_err();
    assert!(matches!(&error, PluginError::Trap { function: "fit", reason, .. } if reason.contains("unreachable")), "{error:?}");
    host_is_well().await;
}

#[tokio::test]
async fn an_answer_outside_of_memory_is_a_crash() {
    let far = Guest { data: vec![(FIT + 4, i32::MAX.to_le_bytes().to_vec())], ..Guest::default() };
    let error = fit(far).await.unwrap_err();
    assert!(matches!(&error, PluginError::Trap { reason, .. } if reason.contains("bounds")), "{error:?}");
    host_is_well().await;
}

#[tokio::test]
async fn text_that_is_no_utf8_is_a_crash() {
    let error = fit(Guest { data: vec![(TEXT, vec![0xff, 0xfe])], ..Guest::default() }).await.unwrap_err();
    assert!(matches!(&error, PluginError::Trap { reason, .. } if reason.contains("utf-8")), "{error:?}");
    host_is_well().await;
}

#[tokio::test]
async fn a_well_typed_lie_is_a_bad_answer() {
    let error = fit(Guest { data: vec![(FIT, vec![255])], ..Guest::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "plugin `hostile` gave an answer to `fit` that is refused: a score of 255: 100 is the most");
    host_is_well().await;
}

#[tokio::test]
async fn control_characters_of_a_guest_reach_nobody() {
    let fitness = fit(Guest { data: vec![(TEXT, b"\x1b\n".to_vec())], ..Guest::default() }).await.unwrap();
    assert_eq!(fitness.reason, "");
}

#[tokio::test]
async fn a_question_for_another_role_is_not_asked() {
    for host in hosts() {
        let digest = host.add(&Guest::default().component()).unwrap().digest;
        let error = host.resolve(&digest, &resolve_request(), None, Arc::new(Offline)).await.unwrap_err();
        assert_eq!(error.to_string(), "plugin `hostile` is a ServerAdapter and cannot answer `resolve`");
    }
}

#[tokio::test]
async fn a_question_that_is_too_large_is_not_asked() {
    for host in hosts() {
        let digest = host.add(&Guest::default().component()).unwrap().digest;
        let request = ServeRequest { config: "x".repeat(PURE.question), ..serve_request() };
        let error = host.fit(&digest, &request).await.unwrap_err();
        assert!(matches!(error, PluginError::QuestionTooLarge { .. }), "{error:?}");
        assert_eq!(error.blame(), Blame::Host);
    }
}

#[tokio::test]
async fn instances_are_counted() {
    let mut bytes = Guest::default().component();
    append_instances(&mut bytes, 100);
    let error = fit_bytes(&bytes).await.unwrap_err();
    assert!(matches!(&error, PluginError::Limit { limit: "instances", value, .. } if value == "20"), "{error:?}");
    host_is_well().await;
}

#[tokio::test]
async fn ten_thousand_instances_are_no_component() {
    let mut bytes = Guest::default().component();
    append_instances(&mut bytes, 10_000);
    let error = fit_bytes(&bytes).await.unwrap_err();
    assert!(matches!(&error, PluginError::Refused(Refusal::Invalid(reason)) if reason.contains("instances")), "{error:?}");
    assert_eq!(error.blame(), Blame::Guest);
    host_is_well().await;
}

/// Adds an empty core module to a component, and so many instances of it.
fn append_instances(bytes: &mut Vec<u8>, count: usize) {
    use wasm_encoder::{ComponentSection, InstanceSection, Module, ModuleSection};
    let modules = u32::try_from(count_modules(bytes)).unwrap();
    ModuleSection(&Module::new()).append_to_component(bytes);
    let mut instances = InstanceSection::new();
    for _ in 0..count {
        instances.instantiate(modules, std::iter::empty::<(&str, wasm_encoder::ModuleArg)>());
    }
    instances.append_to_component(bytes);
}

/// Core modules at the outermost level: sections with id 1.
fn count_modules(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (8, 0);
    while at < bytes.len() {
        count += usize::from(bytes[at] == 1);
        let (mut size, mut shift) = (0_usize, 0);
        loop {
            at += 1;
            size |= usize::from(bytes[at] & 0x7f) << shift;
            shift += 7;
            if bytes[at] & 0x80 == 0 {
                break;
            }
        }
        at += 1 + size;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beyond_the_queue_are_told_that_it_is_busy() {
    for host in hosts() {
        let digest = host.add(&body(forever(vec![])).component()).unwrap().digest;
        host.prepare(&digest).await.unwrap();
        let count = PURE.concurrent + PURE.queue + 20;
        let request = serve_request();
        let results = join_all((0..count).map(|_| host.fit(&digest, &request))).await;
        let of =
            |category| results.iter().filter(|result| result.as_ref().is_err_and(|error| error.category() == category)).count();
        assert_eq!(of("busy") + of("limit"), count, "{results:?}");
        assert!(of("busy") >= 20, "{}", of("busy"));
        assert!(of("limit") >= PURE.concurrent, "{}", of("limit"));
    }
    host_is_well().await;
}

/// What an operator's metrics hear of.
#[derive(Default)]
struct Heard(Mutex<Vec<(String, &'static str, &'static str)>>);

impl Observer for Heard {
    fn call(&self, event: &CallEvent<'_>) {
        self.0.lock().unwrap().push((event.plugin.to_owned(), event.function, event.outcome));
    }

    fn code(&self, _: bool) {}
}

#[tokio::test]
async fn every_misbehaviour_is_counted_under_its_name_and_blamed_on_its_guest() {
    for isolation in [Isolation::Here, Isolation::Child { program: crate::load::program().to_owned() }] {
        let (_cache, plugins) = open(isolation);
        let heard = Arc::new(Heard::default());
        plugins.observe(Arc::clone(&heard) as Arc<dyn Observer>);
        for (guest, outcome) in [
            (body(forever(vec![])), "limit"),
            (body(vec![I::Unreachable]), "trap"),
            (Guest { start: Some(vec![I::Unreachable]), ..Guest::default() }, "trap"),
            (Guest { data: vec![(FIT, vec![255])], ..Guest::default() }, "bad-answer"),
            (Guest { data: vec![(TEXT, vec![0xff, 0xfe])], ..Guest::default() }, "trap"),
        ] {
            let digest = plugins.add(&guest.component()).unwrap().digest;
            let error = plugins.fit(&digest, &serve_request()).await.unwrap_err();
            assert_eq!((error.category(), error.blame(), error.is_passing()), (outcome, Blame::Guest, false), "{error}");
            assert_eq!(std::mem::take(&mut *heard.0.lock().unwrap()), [("hostile".to_owned(), "fit", outcome)]);
            let good = plugins.add(&Guest::default().component()).unwrap().digest;
            assert_eq!(plugins.fit(&good, &serve_request()).await.unwrap().score, 50);
            assert_eq!(std::mem::take(&mut *heard.0.lock().unwrap()), [("hostile".to_owned(), "fit", "ok")]);
        }
        let digest = plugins.add(&Guest { loader: true, ..Guest::default() }.component()).unwrap().digest;
        let error = plugins.resolve(&digest, &resolve_request(), None, Arc::new(Offline)).await.unwrap_err();
        assert_eq!((error.category(), error.blame()), ("failure", Blame::Guest));
        assert_eq!(std::mem::take(&mut *heard.0.lock().unwrap()), [("hostile".to_owned(), "resolve", "failure")]);
    }
}

/// Counts host calls; HTTP answers what it is told, or never.
#[derive(Default)]
struct Counting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
    requests: AtomicUsize,
    body: usize,
    silent: bool,
}

impl Counting {
    /// The same, with nothing counted.
    fn twin(&self) -> Arc<Self> {
        Arc::new(Self { body: self.body, silent: self.silent, ..Self::default() })
    }

    fn counts(&self) -> [usize; 3] {
        [&self.lines, &self.bytes, &self.requests].map(|count| count.load(Ordering::Relaxed))
    }
}

impl HostCalls for Counting {
    fn http(&self, _: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.silent {
            return std::future::pending().boxed();
        }
        let response = HttpResponse { status: 200, headers: vec![], body: vec![0; self.body] };
        std::future::ready(Ok(response)).boxed()
    }

    fn log(&self, _: LogLevel, message: &str) {
        self.lines.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(message.len(), Ordering::Relaxed);
    }
}

/// Asks both; what the guest had of the host is counted of the sandboxed one.
async fn resolve(guest: Guest, calls: &Arc<Counting>) -> PluginError {
    let bytes = Guest { loader: true, ..guest }.component();
    let [here, there] = hosts();
    let (digest, request, twin, before) = (here.add(&bytes).unwrap().digest, resolve_request(), calls.twin(), calls.counts());
    there.add(&bytes).unwrap();
    let (here, there) = tokio::join!(
        here.resolve(&digest, &request, None, Arc::<Counting>::clone(&twin)),
        there.resolve(&digest, &request, None, Arc::<Counting>::clone(calls)),
    );
    let (here, there) = (here.unwrap_err(), there.unwrap_err());
    assert_eq!(format!("{here:?}"), format!("{there:?}"));
    let counted: Vec<usize> = calls.counts().into_iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(twin.counts().as_slice(), counted);
    nothing_ended();
    there
}

/// `http.send` of a GET of `ok`, the answer at 4096.
fn send() -> Vec<I<'static>> {
    let mut arguments = vec![0, TEXT, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    arguments.push(4_096);
    arguments.into_iter().map(I::I32Const).chain([I::Call(0)]).collect()
}

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_off_and_the_call_goes_on() {
    let calls = Arc::new(Counting::default());
    let line = vec![I::I32Const(1), I::I32Const(TEXT), I::I32Const(2), I::Call(0)];
    let guest = Guest { import: Some((LOG, "write", 3)), body: Some(times(100_000, line, UNSUPPORTED)), ..Guest::default() };
    let error = resolve(guest, &calls).await;
    assert!(matches!(&error, PluginError::Failure(Failure::Unsupported(text)) if text == "ok"), "{error:?}");
    assert_eq!(calls.lines.load(Ordering::Relaxed), STANDARD.log_lines + 1);
    host_is_well().await;
}

#[tokio::test]
async fn long_log_lines_are_cut_off_by_bytes() {
    let calls = Arc::new(Counting::default());
    let line = vec![I::I32Const(1), I::I32Const(0), I::I32Const(60_000), I::Call(0)];
    let guest = Guest { import: Some((LOG, "write", 3)), body: Some(times(1_000, line, UNSUPPORTED)), ..Guest::default() };
    let error = resolve(guest, &calls).await;
    assert!(matches!(error, PluginError::Failure(Failure::Unsupported(_))), "{error:?}");
    assert!(calls.bytes.load(Ordering::Relaxed) <= STANDARD.log_bytes + 1_024, "{:?}", calls.bytes);
}

#[tokio::test]
async fn requests_beyond_the_limit_never_leave_the_host() {
    let calls = Arc::new(Counting::default());
    let guest = Guest { import: Some((HTTP, "send", 13)), body: Some(times(80, send(), UNSUPPORTED)), ..Guest::default() };
    let error = resolve(guest, &calls).await;
    assert!(matches!(error, PluginError::Failure(Failure::Unsupported(_))), "{error:?}");
    assert_eq!(calls.requests.load(Ordering::Relaxed), STANDARD.http_requests);
    host_is_well().await;
}

#[tokio::test]
async fn a_loader_cannot_be_kept_by_a_silent_server() {
    let calls = Arc::new(Counting { silent: true, ..Counting::default() });
    let guest = || Guest { import: Some((HTTP, "send", 13)), body: Some(times(1, send(), UNSUPPORTED)), ..Guest::default() };
    for host in hosts() {
        let digest = host.add(&Guest { loader: true, ..guest() }.component()).unwrap().digest;
        host.prepare(&digest).await.unwrap();
    }
    // A caller that goes away takes the call with it …
    let patience = tokio::time::timeout(Duration::from_secs(2), resolve(guest(), &calls)).await;
    assert!(patience.is_err());
    // … and one that stays is told at the wall-clock limit.
    let start = Instant::now();
    let error = resolve(guest(), &calls).await;
    assert!(matches!(&error, PluginError::Limit { limit: "wall-clock time", value, .. } if value == "30000 ms"), "{error:?}");
    assert!(start.elapsed() >= STANDARD.wall && start.elapsed() < STANDARD.wall * 2, "{:?}", start.elapsed());
    assert_eq!(calls.requests.load(Ordering::Relaxed), 2);
    host_is_well().await;
}

#[tokio::test]
async fn bodies_are_counted_together() {
    // The guest's allocator does not give back, so that large bodies fill its memory: of one limit or the other, one is met.
    let calls = Arc::new(Counting { body: STANDARD.http_body / 4, ..Counting::default() });
    let guest = Guest {
        import: Some((HTTP, "send", 13)),
        body: Some(times(10, send(), UNSUPPORTED)),
        memories: vec![(STANDARD.http_body >> 16) as u64 + 32],
        ..Guest::default()
    };
    let error = resolve(guest, &calls).await;
    assert!(matches!(error, PluginError::Failure(Failure::Unsupported(_))), "{error:?}");
    host_is_well().await;
}
