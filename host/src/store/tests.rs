//! The endpoint over real connections, with a reviewer that knows six tokens.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tokio::time::Instant;

use super::*;
use crate::admin;

const DIGEST: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

struct One;

impl Components for One {
    fn bytes<'a>(&'a self, digest: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, ComponentError>> {
        Box::pin(async move {
            match digest {
                DIGEST => Ok(Some(Bytes::from_static(b"\0asm"))),
                digest if digest.ends_with("ff") => Ok(None),
                digest => Err(ComponentError { digest: digest.to_owned(), source: "registry is down".into() }),
            }
        })
    }
}

/// Remembers what it was asked to suspend; what was used just now goes on.
#[derive(Clone, Default)]
struct Labs(Arc<std::sync::Mutex<Vec<Idle>>>);

impl Notebooks for Labs {
    fn suspend<'a>(&'a self, idle: &'a Idle) -> BoxFuture<'a, Result<(), NotSuspended>> {
        let refused = idle.idle.is_zero();
        self.0.lock().unwrap().push(idle.clone());
        Box::pin(async move { if refused { Err(NotSuspended::Refused("it was used")) } else { Ok(()) } })
    }
}

#[derive(Clone, Default)]
struct Fake(Arc<AtomicUsize>);

impl Reviewer for Fake {
    fn review<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Denied>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let caller = |role, namespace: &str, pod: &str| Caller {
            role,
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: "u1".to_owned(),
        };
        let verdict = match token {
            "team-a" | "team-b" => Ok(caller(Role::Worker, token, "p")),
            "builder" => Ok(caller(Role::Builder, "team-a", "m-model-bld-1")),
            "lab" => Ok(caller(Role::Notebook, "team-a", "lab-notebook")),
            "server" => Err(Denied::NotACaller),
            "down" => Err(Denied::Unavailable),
            _ => Err(Denied::NotAuthenticated),
        };
        Box::pin(async move { verdict })
    }
}

/// Loopback is reached directly, whatever proxy the machine has.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

struct Running {
    url: String,
    board: ProgressBoard,
    labs: Labs,
    uploads: Arc<Uploads>,
    folder: tempfile::TempDir,
    triggers: tokio::sync::mpsc::UnboundedReceiver<crate::reconcile::trigger::Trigger>,
    metrics: Metrics,
    reviews: Arc<AtomicUsize>,
    client: reqwest::Client,
    acting: Arc<AtomicBool>,
}

async fn start() -> Running {
    let (reviewer, board, metrics) = (Fake::default(), ProgressBoard::default(), Metrics::new());
    let reviews = reviewer.0.clone();
    let labs = Labs::default();
    let acting = Arc::new(AtomicBool::new(true));
    let folder = tempfile::tempdir().unwrap();
    let (arrived, triggers) = tokio::sync::mpsc::unbounded_channel();
    let uploads =
        Uploads::open(folder.path(), "http://store.test".parse().unwrap(), 1000, arrived, jiff::Timestamp::now).unwrap();
    let uploads = Arc::new(uploads);
    let store = Store::new(
        Had { components: One, notebooks: labs.clone(), uploads: Arc::clone(&uploads) },
        reviewer,
        board.clone(),
        metrics.clone(),
        Arc::clone(&acting),
    );
    let listener = admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(admin::run(listener, store.router(), std::future::pending()));
    Running { url, board, labs, uploads, folder, triggers, metrics, reviews, client: client(), acting }
}

impl Running {
    async fn get(&self, token: &str, digest: &str) -> u16 {
        let request = self.client.get(format!("{}/plugins/{digest}", self.url)).bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    }

    async fn post(&self, token: &str, path: &str, body: impl Into<reqwest::Body>) -> u16 {
        self.send(token, &format!("progress/{path}"), body).await
    }

    async fn send(&self, token: &str, path: &str, body: impl Into<reqwest::Body>) -> u16 {
        let request = self.client.post(format!("{}/{path}", self.url)).bearer_auth(token).body(body);
        request.send().await.unwrap().status().as_u16()
    }
}

fn progress(inputs: &str, bytes_done: i64) -> Progress {
    let transfer = TransferStatus { bytes_done, bytes_total: 100, ..TransferStatus::default() };
    Progress { inputs: inputs.to_owned(), transfer }
}

fn key(name: &str) -> (String, String) {
    ("ns".to_owned(), name.to_owned())
}

fn body(progress: &Progress) -> String {
    serde_json::to_string(progress).unwrap()
}

#[tokio::test]
async fn a_worker_gets_a_component_by_its_digest() {
    let store = start().await;
    let response = store.client.get(format!("{}/plugins/{DIGEST}", store.url)).bearer_auth("team-a").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/wasm");
    assert_eq!(response.bytes().await.unwrap().as_ref(), b"\0asm");
    assert_eq!(store.get("team-a", &DIGEST.replace("00", "ff")).await, 404);
    assert_eq!(store.get("team-a", &DIGEST.replace("ff", "00")).await, 503, "a failure that passes is no 404");
    for wrong in ["sha256:abc", "sha512:00", &DIGEST.to_uppercase(), "..%2Fetc%2Fpasswd"] {
        assert_eq!(store.get("team-a", wrong).await, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_standby_serves_what_it_has_and_sends_on_what_it_cannot() {
    let store = start().await;
    store.acting.store(false, Ordering::Relaxed);
    assert_eq!(store.get("team-a", DIGEST).await, 200);
    assert_eq!(store.get("team-a", &DIGEST.replace("00", "ff")).await, 503, "the one that acts may have it");
    let report =
        store.client.post(format!("{}/progress/team-a/m", store.url)).bearer_auth("team-a").body(body(&progress("i", 1)));
    let answer = report.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["connection"].as_bytes()), (503, &b"close"[..]));
    assert!(store.board.get("team-a", "m").is_none());
    store.acting.store(true, Ordering::Relaxed);
    assert_eq!(store.post("team-a", "team-a/m", body(&progress("i", 1))).await, 204);
}

#[tokio::test]
async fn nobody_else_gets_anything() {
    let store = start().await;
    let bare = store.client.get(format!("{}/plugins/{DIGEST}", store.url)).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    for (token, status) in [("forged", 401), ("server", 403), ("down", 503), (&"x".repeat(9000), 401)] {
        assert_eq!(store.get(token, DIGEST).await, status, "{token:.10}");
        assert_eq!(store.post(token, "team-a/opt", body(&progress("i", 1))).await, status, "{token:.10}");
    }
    assert!(store.board.get("team-a", "opt").is_none());
}

#[tokio::test]
async fn a_notebook_speaks_of_itself_and_of_nothing_else() {
    let store = start().await;
    let idle = |seconds: i64| format!(r#"{{"idleSeconds": {seconds}}}"#);
    for (token, path, body, status) in [
        ("lab", "idle/team-a/lab", idle(7), 204),
        ("lab", "idle/team-a/lab", idle(0), 409),
        ("lab", "idle/team-a/other", idle(7), 403),
        ("lab", "idle/team-b/lab", idle(7), 403),
        ("team-a", "idle/team-a/lab", idle(7), 403),
        ("forged", "idle/team-a/lab", idle(7), 401),
        ("down", "idle/team-a/lab", idle(7), 503),
        ("lab", "idle/team-a/lab", idle(-1), 422),
        ("lab", "idle/team-a/lab", "{}".to_owned(), 422),
        ("lab", "idle/team-a/lab", r#"{"idleSeconds": 7, "suspend": "others"}"#.to_owned(), 422),
        ("lab", "idle/team-a/lab", " ".repeat(MAX_REPORT + 1), 413),
        ("lab", "progress/team-a/opt", body_of_a_worker(), 403),
    ] {
        assert_eq!(store.send(token, path, body.clone()).await, status, "{token} {path} {body:.60}");
    }
    assert_eq!(store.get("lab", DIGEST).await, 403, "plugins are for workers");
    let asked: Vec<(String, String, u64)> =
        store.labs.0.lock().unwrap().iter().map(|idle| (idle.notebook.clone(), idle.uid.clone(), idle.idle.as_secs())).collect();
    assert_eq!(asked, [("lab".to_owned(), "u1".to_owned(), 7), ("lab".to_owned(), "u1".to_owned(), 0)]);
}

fn body_of_a_worker() -> String {
    body(&progress("i", 1))
}

#[tokio::test]
async fn verdicts_are_remembered_but_failures_to_ask_are_not() {
    let store = start().await;
    for _ in 0..3 {
        store.get("team-a", DIGEST).await;
        store.get("forged", DIGEST).await;
    }
    assert_eq!(store.reviews.load(Ordering::Relaxed), 2);
    store.get("down", DIGEST).await;
    store.get("down", DIGEST).await;
    assert_eq!(store.reviews.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_report_reaches_who_listens() {
    let store = start().await;
    let mut changes = Box::pin(store.board.changes());
    assert_eq!(store.post("team-a", "team-a/opt", body(&progress("i", 10))).await, 204);
    let key = tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap();
    assert_eq!(key, ("team-a".to_owned(), "opt".to_owned()));
    let mut known = progress("i", 10);
    known.transfer.pod = Some("p".into());
    assert_eq!(store.board.get("team-a", "opt").unwrap().progress, known);
    store.board.remove("team-a", "opt");
    assert!(store.board.get("team-a", "opt").is_none());
}

#[tokio::test]
async fn a_worker_reports_for_its_own_namespace_only() {
    let store = start().await;
    assert_eq!(store.post("team-b", "team-a/opt", body(&progress("i", 10))).await, 403);
    assert!(store.board.get("team-a", "opt").is_none());
}

#[tokio::test]
async fn impossible_large_and_hasty_reports_are_refused() {
    let store = start().await;
    for (wrong, status) in [
        ("{}".to_owned(), 422),
        (body(&progress("i", -1)), 422),
        (body(&progress(&"i".repeat(200), 1)), 422),
        (" ".repeat(MAX_REPORT + 1), 413),
    ] {
        assert_eq!(store.post("team-a", "team-a/opt", wrong).await, status);
    }
    assert_eq!(store.post("team-a", "team-a/UPPER", body(&progress("i", 1))).await, 422);
    assert_eq!(store.post("team-a", "team-a/opt", body(&progress("i", 1))).await, 204);
    assert_eq!(store.post("team-a", "team-a/opt", body(&progress("i", 2))).await, 429);
    assert_eq!(store.post("team-a", "team-a/other", body(&progress("i", 2))).await, 204, "other loads are not held up");
}

#[test]
fn moved_bytes_are_counted_once() {
    let board = ProgressBoard::default();
    let mut now = Instant::now();
    let mut moved = Vec::new();
    for (inputs, bytes) in [("a", 0), ("a", 50), ("a", 50), ("a", 10), ("a", 15), ("b", 90)] {
        moved.push(board.put_at(key("opt"), progress(inputs, bytes), now).unwrap().bytes);
        now += Duration::from_secs(1);
    }
    assert_eq!(moved, [0, 50, 0, 0, 5, 0]);
}

#[test]
fn a_load_that_stands_is_told_from_one_that_moves() {
    let board = ProgressBoard::default();
    let mut now = Instant::now();
    let mut stood = Vec::new();
    for (inputs, bytes) in [("a", 5), ("a", 5), ("a", 5), ("a", 6), ("b", 6)] {
        board.put_at(key("opt"), progress(inputs, bytes), now).unwrap();
        now += Duration::from_secs(10);
        stood.push(board.get_at(&key("opt"), now).unwrap().still.as_secs());
    }
    assert_eq!(stood, [10, 20, 30, 10, 10]);
    let later = board.get_at(&key("opt"), now + Duration::from_mins(1)).unwrap();
    assert_eq!(later.still.as_secs(), 70, "also when nobody reports");
}

#[tokio::test]
async fn who_reports_is_known_by_the_token_and_what_is_ours_to_say_is_not_taken() {
    let store = start().await;
    let mut report = progress("i", 10);
    let liar = TransferStatus { pod: Some("another".into()), stalled: true, announced: Some(75), ..report.transfer };
    report.transfer = TransferStatus { file: Some("model.safetensors".into()), ..liar };
    assert_eq!(store.post("team-a", "team-a/opt", body(&report)).await, 204);
    let taken = store.board.get("team-a", "opt").unwrap().progress.transfer;
    assert_eq!((taken.pod.as_deref(), taken.stalled, taken.announced), (Some("p"), false, None));
    assert_eq!(taken.file.as_deref(), Some("model.safetensors"));
    report.transfer.file = Some("a\nb".into());
    assert_eq!(store.post("team-a", "team-a/other", body(&report)).await, 422);
}

#[tokio::test]
async fn the_endpoint_counts_what_moved() {
    let store = start().await;
    store.post("team-a", "team-a/opt", body(&progress("i", 10))).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.post("team-a", "team-a/opt", body(&progress("i", 25))).await;
    assert!(store.metrics.encode().contains("substratus_transfer_bytes_total 15\n"));
}

#[tokio::test]
async fn who_was_too_slow_is_told_about_every_load() {
    let board = ProgressBoard::default();
    let changes = board.changes();
    for number in 0..1500 {
        board.put("ns", &format!("m{number}"), progress("i", 1)).unwrap();
    }
    let seen: std::collections::BTreeSet<_> = changes.take(1500).collect().await;
    assert_eq!(seen.len(), 1500);
}

#[test]
fn silent_loads_make_room_and_a_flood_does_not_grow() {
    let board = ProgressBoard::default();
    let now = Instant::now();
    for number in 0..10_000 {
        board.put_at(key(&format!("m{number}")), progress("i", 1), now).unwrap();
    }
    assert_eq!(board.put_at(key("late"), progress("i", 1), now), Err(Refusal::Full));
    board.put_at(key("late"), progress("i", 1), now + Duration::from_secs(301)).unwrap();
    assert!(board.get("ns", "m0").is_none() && board.get("ns", "late").is_some());
}

mod uploads {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use jiff::{SignedDuration, Timestamp};
    use md5::{Digest as _, Md5};
    use substratus_crds::UploadSource;

    use super::*;
    use crate::reconcile::trigger::Trigger;
    use crate::uploads::ticket::Subject;

    const BODY: &[u8] = b"a tarball";

    fn upload() -> UploadSource {
        UploadSource { md5_checksum: hex::encode(Md5::digest(BODY)), request_id: "r".to_owned(), ..UploadSource::default() }
    }

    impl Running {
        /// The path and query of a ticket that ends so many seconds from now.
        fn signed(&self, name: &str, seconds: i64) -> String {
            let subject = Subject { kind: "model".to_owned(), namespace: "team-a".to_owned(), name: name.to_owned() };
            let end = Timestamp::now() + SignedDuration::from_secs(seconds);
            self.uploads.url(&subject, &upload(), end).replace("http://store.test", "")
        }

        fn put(&self, path: &str, body: &'static [u8]) -> reqwest::RequestBuilder {
            let md5 = BASE64_STANDARD.encode(Md5::digest(BODY));
            let request = self.client.put(format!("{}{path}", self.url)).header("Content-MD5", md5);
            request.header("Content-Type", "application/octet-stream").body(body)
        }
    }

    async fn status(request: reqwest::RequestBuilder) -> u16 {
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn who_has_a_url_sends_and_the_builder_of_the_namespace_takes() {
        let mut store = start().await;
        let url = store.signed("m", 60);
        assert_eq!(status(store.put(&url, BODY)).await, 200);
        assert_eq!(status(store.put(&url, BODY)).await, 200, "a client that heard no answer sends once more");
        assert_eq!(store.triggers.recv().await, Some(Trigger::Model("team-a".to_owned(), "m".to_owned())));
        let kept = format!("{}/uploads/model/team-a/m/{}", store.url, upload().md5_checksum);
        let taken = store.client.get(&kept).bearer_auth("builder").send().await.unwrap();
        assert_eq!((taken.status().as_u16(), taken.bytes().await.unwrap().as_ref()), (200, BODY));
        for (token, url, expected) in [
            ("team-a", kept.clone(), 403),
            ("lab", kept.clone(), 403),
            ("", kept.clone(), 401),
            ("builder", kept.replace("team-a", "team-b"), 403),
            ("builder", kept.replace("/m/", "/n/"), 404),
            ("builder", kept.replace("/m/", "/%2e%2e/"), 404),
            ("builder", kept.replace("/m/", "/.../"), 400),
            ("builder", format!("{kept}x"), 400),
        ] {
            assert_eq!(status(store.client.get(&url).bearer_auth(token)).await, expected, "{token} {url}");
        }
        assert!(store.folder.path().join("model/team-a/m").is_dir());
    }

    #[tokio::test]
    async fn whoever_has_none_or_sends_something_else_is_refused() {
        let store = start().await;
        let (url, over) = (store.signed("m", 60), store.signed("m", -1));
        let (path, _) = url.split_once('?').unwrap();
        assert_eq!(status(store.put(path, BODY)).await, 403);
        assert_eq!(status(store.put(&over, BODY)).await, 403);
        assert_eq!(status(store.put(&url.replace("/m?", "/n?"), BODY)).await, 403, "another object");
        assert_eq!(status(store.put(&url, b"something").header("Content-Length", "9")).await, 400, "other bytes");
        let text = reqwest::header::HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, "text/plain".parse().unwrap())]);
        assert_eq!(status(store.put(&url, BODY).headers(text)).await, 400);
        let bare = |name: &str, value: &str| {
            let request = store.client.put(format!("{}{url}", store.url)).header(name, value).body(BODY);
            status(request)
        };
        assert_eq!(bare("Content-Type", "application/octet-stream").await, 400, "no sum");
        let chunks = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>(BODY)]));
        assert_eq!(status(store.put(&url, b"").body(chunks)).await, 411, "nobody knows how much comes");
        let huge = status(store.put(&store.signed("m", 60), &[0; 1001])).await;
        assert_eq!(huge, 413);
        store.acting.store(false, Ordering::Relaxed);
        assert_eq!(status(store.put(&url, BODY)).await, 503, "another operator acts");
        assert!(!store.folder.path().join("model").exists(), "nothing was kept");
    }
}
