//! Registries that mean harm: they lead elsewhere, never end, stop in the middle, say something else than they said. Each is named
//! with what it did, nothing of it is kept, and the next pull works.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::stream;

use super::*;

/// What a path of a hostile registry answers.
type Answers = Arc<dyn Fn(&Asked<'_>) -> Response + Send + Sync>;

/// A request, as far as it matters.
struct Asked<'a> {
    /// Below `/v2/`.
    path: &'a str,
    /// What it shows of itself.
    shown: Option<&'a str>,
    /// The registry that is asked.
    host: &'a str,
}

/// A registry of which every answer is a test's.
struct Hostile {
    host: String,
    requests: Arc<AtomicUsize>,
}

impl Hostile {
    async fn start(answers: impl Fn(&Asked<'_>) -> Response + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (answers, requests): (Answers, _) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
        let (count, own) = (Arc::clone(&requests), host.clone());
        let app = Router::new().fallback(move |request: Request| {
            count.fetch_add(1, Ordering::Relaxed);
            let shown = request.headers().get("authorization").and_then(|value| value.to_str().ok());
            let answer = answers(&Asked { path: request.uri().path().trim_start_matches("/v2/"), shown, host: &own });
            std::future::ready(answer)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { host, requests }
    }

    fn plain(&self) -> PlainHttp {
        PlainHttp(vec![self.host.clone()])
    }
}

fn answer(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let response =
        headers.iter().fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
    response.body(body.into()).unwrap()
}

/// Tokens are had of the registry itself.
fn own_realm(asked: &Asked<'_>) -> Response {
    let realm = format!("Bearer realm=\"http://{}/v2/token\"", asked.host);
    answer(StatusCode::UNAUTHORIZED, &[("www-authenticate", &realm)], "")
}

fn ok(body: impl Into<Body>) -> Response {
    answer(StatusCode::OK, &[], body)
}

/// Bytes without end, a piece at a time.
fn endless() -> Body {
    Body::from_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 8192]))))
}

/// The manifest of a layer that is announced so.
fn plugin(layer: &str, size: usize) -> String {
    manifest("application/wasm", layer, size, 1).to_string()
}

/// Pulls from a hostile registry and then from a good one, into the same store.
async fn pulled(hostile: &Hostile, auth: RegistryAuth) -> RegistryError {
    let (cache, plugins) = fresh();
    let result = plugins.pull(&format!("{}/org/plugin:v1", hostile.host), auth, &hostile.plain()).await;
    let error = match result {
        Err(PluginError::Registry(error)) => error,
        other => panic!("{other:?}"),
    };
    let kept = std::fs::read_dir(cache.path().join("blobs/sha256")).unwrap().count();
    assert_eq!(kept, 0, "something of it is kept: {error}");
    let good = Registry::start().await;
    push(&good.reference(":v1"), &component(), RegistryAuth::Anonymous, &good.plain()).await.unwrap();
    let next = plugins.pull(&good.reference(":v1"), RegistryAuth::Anonymous, &good.plain()).await.unwrap();
    assert_eq!(next.manifest.name, "hostile", "the next registry is asked");
    plugins.prepare(&next.digest).await.unwrap();
    error
}

fn secret() -> RegistryAuth {
    RegistryAuth::Basic { username: "user".into(), password: "it_secret".into() }
}

/// Everything that a registry could call the realm of its tokens.
#[tokio::test]
async fn a_realm_near_this_machine_is_never_asked() {
    for (realm, words) in [
        ("http://169.254.169.254/latest/api/token", "it leads to 169.254.169.254"),
        ("http://[::ffff:169.254.169.254]/token", "it leads to ::ffff:169.254.169.254"),
        ("http://[fd00:ec2::254]/token", "it leads to fd00:ec2::254"),
        ("http://0xa9.0xfe.0xa9.0xfe/token", "it leads to 169.254.169.254"),
        ("http://168.63.129.16/token", "it leads to 168.63.129.16"),
        ("ftp://127.0.0.1/token", "its tokens come by `ftp`"),
        ("file:///etc/passwd", "its tokens come by `file`"),
        ("no url", "something that is no URL"),
    ] {
        let asked = format!("Bearer realm=\"{realm}\",service=\"registry\"");
        let hostile = Hostile::start(move |_| answer(StatusCode::UNAUTHORIZED, &[("www-authenticate", &asked)], "")).await;
        for auth in [RegistryAuth::Anonymous, secret()] {
            let before = hostile.requests.load(Ordering::Relaxed);
            let error = pulled(&hostile, auth).await;
            assert!(matches!(error, RegistryError::Malformed { what: "the registry", .. }), "{realm}: {error:?}");
            let told = error.to_string();
            assert!(told.contains(words) && told.contains(&hostile.host) && !told.contains("it_secret"), "{realm}: {told}");
            assert_eq!(hostile.requests.load(Ordering::Relaxed) - before, 1, "{realm}");
        }
    }
}

#[tokio::test]
async fn a_realm_that_leads_on_to_the_metadata_service_is_not_followed_and_the_password_stays() {
    let hostile = Hostile::start(|asked| match asked.path {
        "token" if asked.shown.is_some_and(|shown| shown.starts_with("Basic ")) => {
            answer(StatusCode::FOUND, &[("location", "http://169.254.169.254/latest/api/token")], "")
        }
        "" => own_realm(asked),
        _ => ok("{}"),
    })
    .await;
    let error = pulled(&hostile, secret()).await.to_string();
    assert!(error.contains("it leads to 169.254.169.254") && !error.contains("it_secret"), "{error}");
}

#[tokio::test]
async fn a_layer_that_lies_at_the_metadata_service_is_not_fetched() {
    for to in ["http://169.254.169.254/latest/user-data", "http://[fe80::1]/", "http://0.0.0.0:1/"] {
        let layer = digest(b"anything");
        let hostile = Hostile::start(move |asked| match asked.path {
            path if path.contains("/manifests/") => ok(plugin(&layer, 8)),
            path if path.contains("/blobs/") => answer(StatusCode::TEMPORARY_REDIRECT, &[("location", to)], ""),
            _ => ok("{}"),
        })
        .await;
        let error = pulled(&hostile, RegistryAuth::Anonymous).await;
        assert!(
            matches!(&error, RegistryError::Malformed { reason, .. } if reason.starts_with("it leads to")),
            "{to}: {error:?}"
        );
    }
}

#[tokio::test]
async fn redirects_without_end_end() {
    let hostile = Hostile::start(|asked| match asked.path {
        path if path.contains("/manifests/") => answer(StatusCode::FOUND, &[("location", "v1")], ""),
        _ => ok("{}"),
    })
    .await;
    let error = pulled(&hostile, RegistryAuth::Anonymous).await;
    assert!(error.is_passing() && error.to_string().contains("redirects again and again"), "{error}");
    assert!(hostile.requests.load(Ordering::Relaxed) < 10);
}

#[tokio::test]
async fn answers_without_end_are_cut_at_what_was_announced() {
    let manifests = Hostile::start(|asked| if asked.path.is_empty() { ok("{}") } else { ok(endless()) }).await;
    let error = pulled(&manifests, RegistryAuth::Anonymous).await;
    assert!(matches!(error, RegistryError::TooLarge { what: "the manifest", .. }), "{error:?}");
    let layer = digest(b"anything");
    let layers = Hostile::start(move |asked| match asked.path {
        path if path.contains("/manifests/") => ok(plugin(&layer, 10_000)),
        path if path.contains("/blobs/") => ok(endless()),
        _ => ok("{}"),
    })
    .await;
    let error = pulled(&layers, RegistryAuth::Anonymous).await;
    assert!(matches!(error, RegistryError::TooLarge { what: "the component", max: 10_000, .. }), "{error:?}");
    let realm = Hostile::start(|asked| if asked.path == "token" { ok(endless()) } else { own_realm(asked) }).await;
    let error = pulled(&realm, RegistryAuth::Anonymous).await;
    assert!(matches!(error, RegistryError::TooLarge { what: "the token", .. }), "{error:?}");
}

#[tokio::test]
async fn a_layer_that_stops_in_the_middle_is_not_used() {
    let bytes = component();
    let (layer, size) = (digest(&bytes), bytes.len());
    let half = Bytes::copy_from_slice(bytes.get(..size / 2).unwrap());
    let (cut, short) = (half.clone(), half);
    let of = layer.clone();
    let broken = Hostile::start(move |asked| match asked.path {
        path if path.contains("/manifests/") => ok(plugin(&of, size)),
        path if path.contains("/blobs/") => {
            let pieces = [Ok(cut.clone()), Err(std::io::Error::other("the cable is out"))];
            ok(Body::from_stream(stream::iter(pieces)))
        }
        _ => ok("{}"),
    })
    .await;
    let error = pulled(&broken, RegistryAuth::Anonymous).await;
    assert!(error.is_passing(), "another time it may be whole: {error:?}");
    let shorter = Hostile::start(move |asked| match asked.path {
        path if path.contains("/manifests/") => ok(plugin(&layer, size)),
        path if path.contains("/blobs/") => ok(short.clone()),
        _ => ok("{}"),
    })
    .await;
    let error = pulled(&shorter, RegistryAuth::Anonymous).await;
    assert!(matches!(error, RegistryError::DigestMismatch { what: "the component", .. }), "{error:?}");
}

/// Compressed on the way, or as it lies there: nobody unpacks it.
#[tokio::test]
async fn a_bomb_is_not_unpacked() {
    let pack = Command::new("sh").args(["-c", "head -c 67108864 /dev/zero | gzip -9"]).output().unwrap();
    let bomb = pack.stdout;
    let (layer, size) = (digest(&bomb), bomb.len());
    assert!((1000..100_000).contains(&size), "{size}");
    for encoding in [&[][..], &[("content-encoding", "gzip")]] {
        let (layer, bomb) = (layer.clone(), bomb.clone());
        let hostile = Hostile::start(move |asked| match asked.path {
            path if path.contains("/manifests/") => ok(plugin(&layer, size)),
            path if path.contains("/blobs/") => answer(StatusCode::OK, encoding, bomb.clone()),
            _ => ok("{}"),
        })
        .await;
        let (_cache, plugins) = fresh();
        let result = plugins.pull(&format!("{}/org/plugin:v1", hostile.host), RegistryAuth::Anonymous, &hostile.plain()).await;
        let error = result.unwrap_err();
        assert_eq!(error.category(), "refused", "{encoding:?}: {error}");
        assert!(error.to_string().contains("is not WebAssembly"), "{encoding:?}: {error}");
    }
}

/// A byte now and then keeps no pull alive for longer than silence would.
#[tokio::test]
async fn a_registry_that_says_nothing_for_a_while_is_given_up() {
    let start = Instant::now();
    let hostile = Hostile::start(|asked| match asked.path {
        path if path.contains("/manifests/") => ok(Body::from_stream(stream::unfold(0_u64, |sent| async move {
            // A minute for every byte but the first.
            tokio::time::sleep(std::time::Duration::from_secs(sent * 60)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), sent + 1))
        }))),
        _ => ok("{}"),
    })
    .await;
    let error = pulled(&hostile, RegistryAuth::Anonymous).await;
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error:?}");
    assert!(start.elapsed() >= limits::REGISTRY_IDLE && start.elapsed() < limits::REGISTRY_TOTAL, "{:?}", start.elapsed());
}
