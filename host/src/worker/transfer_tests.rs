//! Tests of transfers from servers that the hub is not: without ranges, without sizes, with files that move.

#[path = "trouble_tests.rs"]
mod trouble;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt, StreamExt};
use http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use url::Url;

use super::super::egress::Patience;
use super::super::secrets::Secrets;
use super::*;
use crate::bucket::BucketUrl;

const PART: u64 = 64 * 1024;

/// What the server does with a request.
#[derive(Clone)]
struct Server {
    content: Arc<Vec<u8>>,
    ranges: bool,
    length: bool,
    /// Ends the body of the first so many answers early.
    cuts: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    /// Says something else than the file, where it wants to: it sees the path with its query, and the range.
    instead: Option<Instead>,
    /// Turns a byte of the file into another one, in so many answers that hold it.
    spoilt: Arc<Mutex<Option<(usize, usize)>>>,
}

type Instead = Arc<dyn Fn(&str, Option<&str>) -> Option<Response> + Send + Sync>;

async fn answer(State(server): State<Server>, request: Request) -> Response {
    let asked = request.headers().get(header::RANGE).map(|range| range.to_str().unwrap().to_owned());
    server.requests.lock().unwrap().push(format!("{} {}", request.uri().path(), asked.as_deref().unwrap_or("whole")));
    let path = request.uri().path_and_query().unwrap().as_str();
    if let Some(other) = server.instead.as_ref().and_then(|instead| instead(path, asked.as_deref())) {
        return other;
    }
    if request.uri().path() == "/gone" {
        return StatusCode::FORBIDDEN.into_response();
    }
    let size = server.content.len();
    let range = asked.filter(|_| server.ranges).map(|asked| {
        let (start, last) = asked.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (start.parse::<usize>().unwrap(), last.parse::<usize>().map_or(size, |last| (last + 1).min(size)))
    });
    if range.is_some_and(|(start, _)| start >= size) {
        return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, format!("bytes */{size}"))]).into_response();
    }
    let (start, end) = range.unwrap_or((0, size));
    let mut body = server.content[start..end].to_vec();
    if let Some((at, left)) = server.spoilt.lock().unwrap().as_mut().filter(|(at, left)| (start..end).contains(at) && *left > 0) {
        *left -= 1;
        body[*at - start] ^= 1;
    }
    let mut response = Response::builder();
    if server.length {
        response = response.header(header::CONTENT_LENGTH, body.len());
    }
    if range.is_some() {
        response = response.status(206).header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1));
    }
    let cut = server.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    let end = cut.then(|| std::io::Error::other("cut"));
    body.truncate(if cut { body.len() / 2 } else { body.len() });
    // A stream has no length of its own, and an error in it breaks the connection, here once the first bytes are out.
    let chunks = futures::stream::iter([Ok(body)].into_iter().chain(end.map(Err)));
    let chunks = chunks.then(async |chunk| {
        if chunk.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        chunk
    });
    response.body(Body::from_stream(chunks)).unwrap()
}

/// Knows where a file moved to.
struct Moved(Option<Url>);

impl Refresh for Moved {
    fn refresh<'a>(&'a self, file: &'a PlanFile) -> BoxFuture<'a, Result<Origin, LoadError>> {
        let url = self.0.clone().unwrap_or_else(|| file.origin.url.clone());
        async move { Ok(Origin { url, ..file.origin.clone() }) }.boxed()
    }
}

struct Case {
    server: Server,
    base: String,
    folder: tempfile::TempDir,
    size_known: bool,
    moved: Option<&'static str>,
    path: &'static str,
    tuning: Tuning,
}

/// Small parts, few attempts, no long pauses.
fn quick() -> Tuning {
    Tuning { part: PART, attempts: 4, pause: Duration::from_millis(1), ..Tuning::default() }
}

impl Case {
    async fn new(bytes: usize, ranges: bool, length: bool) -> Self {
        let content = (0..bytes).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect();
        let (content, cuts, requests) = (Arc::new(content), Arc::default(), Arc::default());
        let server = Server { content, ranges, length, cuts, requests, instead: None, spoilt: Arc::default() };
        Self::of(server).await
    }

    async fn of(server: Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let folder = tempfile::tempdir().unwrap();
        Self { server, base, folder, size_known: true, moved: None, path: "/file", tuning: quick() }
    }

    fn plan(&self, size: Option<u64>) -> Plan {
        let url = |path: &str| Url::parse(&format!("{}{path}", self.base)).unwrap();
        let origin = Origin { url: url(self.path), headers: HeaderMap::new(), auth: None, expires: None };
        let sha256 = Some(Sha256::digest(self.server.content.as_slice()).into());
        Plan {
            revision: "r".into(),
            files: vec![PlanFile { path: "d/f".into(), size, sha256, gitoid: None, origin }],
            ..Plan::default()
        }
    }

    async fn run_with(&self, size: Option<u64>) -> Result<Vec<Verified>, LoadError> {
        let plan = self.plan(size);
        let sink = Sink::open(&BucketUrl::of_folder(self.folder.path()).unwrap()).await.unwrap();
        let (journal, _) = Journal::open(sink.records(), "i", &plan).await.unwrap();
        let patience = Patience { stall: Duration::from_millis(500), ..Patience::default() };
        let egress = Egress::new(std::slice::from_ref(&self.base), Secrets::default(), patience).unwrap();
        let moved = Moved(self.moved.map(|path| Url::parse(&format!("{}{path}", self.base)).unwrap()));
        let transfer = Arc::new(Transfer::new(egress, sink, journal, Arc::default(), Arc::new(moved), self.tuning));
        let result = Arc::clone(&transfer).run(&plan).await;
        let numbers = transfer.counters.snapshot();
        assert_eq!(numbers.files_done == 1, result.is_ok());
        if result.is_ok() {
            assert_eq!(numbers.done, self.server.content.len() as u64);
        }
        result
    }

    /// Loads, and finds every byte in its place.
    async fn succeeds(&self) -> Vec<String> {
        let size = self.size_known.then_some(self.server.content.len() as u64);
        let verified = self.run_with(size).await.unwrap();
        assert_eq!(verified[0].size, self.server.content.len() as u64);
        assert!(std::fs::read(self.folder.path().join("artifacts/d/f")).unwrap() == *self.server.content);
        self.server.requests.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn many_ranges_make_one_file() {
    let case = Case::new(1_000_003, true, true).await;
    assert_eq!(case.succeeds().await.len(), 16);
    for connections in [1, 2, 3] {
        let mut case = Case::new(1_000_003, true, true).await;
        case.tuning.connections = connections;
        assert_eq!(case.succeeds().await.len(), 16, "{connections} connections");
    }
}

#[tokio::test]
async fn a_file_of_one_part_is_asked_for_without_a_range() {
    let case = Case::new(1000, true, true).await;
    assert_eq!(case.succeeds().await, ["/file whole"]);
    let case = Case::new(0, true, true).await;
    assert!(case.succeeds().await.is_empty(), "nothing to ask for");
}

#[tokio::test]
async fn a_server_without_ranges_sends_one_stream() {
    for length in [true, false] {
        let case = Case::new(500_000, false, length).await;
        assert_eq!(case.succeeds().await.len(), 1);
        let case = Case::new(500_000, false, length).await;
        case.server.cuts.store(2, Ordering::SeqCst);
        case.succeeds().await;
    }
}

#[tokio::test]
async fn sizes_that_nobody_knows_are_learnt() {
    for (bytes, ranges, length) in [
        (500_000, true, true),
        (500_000, false, true),
        (500_000, false, false),
        (10, true, true),
        (0, true, true),
        (0, false, false),
    ] {
        let mut case = Case::new(bytes, ranges, length).await;
        case.size_known = false;
        case.succeeds().await;
        let mut case = Case::new(bytes, ranges, length).await;
        case.size_known = false;
        case.server.cuts.store(1, Ordering::SeqCst);
        case.succeeds().await;
    }
}

#[tokio::test]
async fn cut_ranges_are_taken_up() {
    let case = Case::new(1_000_000, true, true).await;
    case.server.cuts.store(5, Ordering::SeqCst);
    assert!(case.succeeds().await.len() > 16);
}

#[tokio::test]
async fn a_file_that_moved_is_found_through_its_loader() {
    let mut case = Case::new(500_000, true, true).await;
    (case.path, case.moved) = ("/gone", Some("/file"));
    assert_eq!(case.succeeds().await[0], "/gone bytes=0-65535");
    case.moved = None;
    let folder = tempfile::tempdir().unwrap();
    let case = Case { folder, ..case };
    let error = case.run_with(Some(500_000)).await.unwrap_err();
    assert_eq!(error.reason, reason::NEEDS_AUTH);
}

#[tokio::test]
async fn a_file_of_another_size_is_not_taken() {
    let case = Case::new(500_000, true, true).await;
    for size in [499_999, 500_001, 600_000] {
        let error = case.run_with(Some(size)).await.unwrap_err();
        assert_eq!((error.reason, error.message.contains("changed")), (reason::UNAVAILABLE, true), "{size}: {error}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_the_first_byte() {
    let case = Case::new(10, true, true).await;
    let error = case.run_with(Some(1 << 62)).await.unwrap_err();
    assert_eq!(error.reason, reason::TOO_LARGE);
    assert!(error.message.contains(&(1_u64 << 62).to_string()) && error.message.contains("free"), "{error}");
    assert!(case.server.requests.lock().unwrap().is_empty());
}
