//! Registries that answer, and registries that lie: a small one of our own, on loopback. Knows nothing of what components do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod hostile;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use substratus::limits;
use substratus::plugin::{PlainHttp, PluginError, PluginOptions, Plugins, Pulled, RegistryAuth, RegistryError, push};

use crate::hostile::module::Guest;

/// What a path answers, where it is not what was pushed.
type Lie = fn() -> (StatusCode, Vec<u8>);

#[derive(Default)]
struct Inner {
    stored: BTreeMap<String, Vec<u8>>,
    lies: BTreeMap<String, Lie>,
    password: Option<&'static str>,
    requests: usize,
}

/// A registry that keeps what is pushed.
#[derive(Clone)]
pub(crate) struct Registry {
    inner: Arc<Mutex<Inner>>,
    pub(crate) host: String,
}

impl Registry {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let registry = Self { inner: Arc::default(), host: listener.local_addr().unwrap().to_string() };
        let app = Router::new().fallback(answer).with_state(Arc::clone(&registry.inner));
        tokio::spawn(async move { axum::serve(listener, app).await });
        registry
    }

    pub(crate) fn reference(&self, suffix: &str) -> String {
        format!("{}/org/plugin{suffix}", self.host)
    }

    pub(crate) fn plain(&self) -> PlainHttp {
        PlainHttp(vec![self.host.clone()])
    }

    /// Puts a manifest over these layers.
    fn put(&self, tag: &str, manifest: &Value) {
        self.inner.lock().unwrap().stored.insert(format!("manifests/{tag}"), manifest.to_string().into_bytes());
    }

    fn put_blob(&self, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        self.inner.lock().unwrap().stored.insert(format!("blobs/{digest}"), bytes.to_vec());
        digest
    }

    fn lie(&self, path: &str, lie: Lie) {
        self.inner.lock().unwrap().lies.insert(path.to_owned(), lie);
    }

    async fn pull(&self, suffix: &str) -> Result<Pulled, RegistryError> {
        let (_cache, plugins) = fresh();
        match plugins.pull(&self.reference(suffix), RegistryAuth::Anonymous, &self.plain()).await {
            Ok(pulled) => Ok(pulled),
            Err(PluginError::Registry(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        }
    }
}

async fn answer(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let authorization = parts.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    respond(&mut inner.lock().unwrap(), &parts.method, parts.uri.path(), parts.uri.query(), authorization.as_deref(), &body)
}

fn respond(
    inner: &mut Inner,
    method: &Method,
    path: &str,
    query: Option<&str>,
    authorization: Option<&str>,
    body: &Bytes,
) -> Response {
    inner.requests += 1;
    let reply = |status: StatusCode| Response::builder().status(status);
    if inner.password.is_some_and(|password| authorization != Some(password)) {
        return reply(StatusCode::UNAUTHORIZED).header("www-authenticate", "Basic realm=\"test\"").body(Body::empty()).unwrap();
    }
    let path = path.strip_prefix("/v2/org/plugin/").unwrap_or_default();
    if let Some(lie) = inner.lies.get(path) {
        let (status, bytes) = lie();
        return reply(status).body(Body::from(bytes)).unwrap();
    }
    match *method {
        Method::POST if path == "blobs/uploads/" => {
            reply(StatusCode::ACCEPTED).header("location", "/v2/org/plugin/uploads/1").body(Body::empty()).unwrap()
        }
        Method::PUT | Method::PATCH => {
            let announced = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("digest=")));
            let key = announced.map_or_else(|| path.to_owned(), |digest| format!("blobs/{}", digest.replace("%3A", ":")));
            inner.stored.insert(format!("manifests/{}", digest(body)), body.to_vec());
            inner.stored.insert(key.clone(), body.to_vec());
            reply(StatusCode::CREATED).header("location", format!("/v2/org/plugin/{key}")).body(Body::empty()).unwrap()
        }
        _ if path.is_empty() => reply(StatusCode::OK).body(Body::from("{}")).unwrap(),
        _ => match inner.stored.get(path) {
            Some(bytes) => reply(StatusCode::OK).body(Body::from(bytes.clone())).unwrap(),
            None => reply(StatusCode::NOT_FOUND).body(Body::empty()).unwrap(),
        },
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn fresh() -> (tempfile::TempDir, Plugins) {
    let cache = tempfile::tempdir().unwrap();
    let plugins = Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() }).unwrap();
    (cache, plugins)
}

fn component() -> Vec<u8> {
    Guest::default().component()
}

fn manifest(media: &str, digest: &str, size: usize, layers: usize) -> Value {
    let layer = json!({"mediaType": media, "digest": digest, "size": size});
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": format!("sha256:{}", "0".repeat(64)), "size": 2},
        "layers": vec![layer; layers],
    })
}

#[tokio::test]
async fn what_is_pushed_comes_back_by_tag_and_by_digest() {
    let registry = Registry::start().await;
    let bytes = component();
    let pushed = push(&registry.reference(":v1"), &bytes, RegistryAuth::Anonymous, &registry.plain()).await.unwrap();
    let again = push(&registry.reference(":v2"), &bytes, RegistryAuth::Anonymous, &registry.plain()).await.unwrap();
    assert_eq!(pushed, again, "a push is reproducible");
    let pulled = registry.pull(":v1").await.unwrap();
    assert_eq!((pulled.reference_with_digest.as_str(), pulled.digest), (pushed.as_str(), digest(&bytes)));
    assert_eq!(pulled.manifest.name, "hostile");

    let stored = registry.inner.lock().unwrap().stored["manifests/v1"].clone();
    let manifest: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    let annotation: Value = serde_json::from_str(manifest["annotations"]["ai.substratus.plugin"].as_str().unwrap()).unwrap();
    assert_eq!(annotation["name"], "hostile");
}

#[tokio::test]
async fn a_cached_digest_needs_no_registry() {
    let registry = Registry::start().await;
    let pushed = push(&registry.reference(":v1"), &component(), RegistryAuth::Anonymous, &registry.plain()).await.unwrap();
    let (_cache, plugins) = fresh();
    let first = plugins.pull(&pushed, RegistryAuth::Anonymous, &registry.plain()).await.unwrap();
    let before = registry.inner.lock().unwrap().requests;
    let second = plugins.pull(&pushed, RegistryAuth::Anonymous, &registry.plain()).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(registry.inner.lock().unwrap().requests, before);
}

#[tokio::test]
async fn credentials_are_sent_and_their_lack_is_told() {
    let registry = Registry::start().await;
    let bytes = component();
    let layer = registry.put_blob(&bytes);
    registry.put("v1", &manifest("application/wasm", &layer, bytes.len(), 1));
    registry.inner.lock().unwrap().password = Some("Basic dTpw");
    let error = registry.pull(":v1").await.unwrap_err();
    assert!(matches!(error, RegistryError::Auth { .. }), "{error:?}");
    let (_cache, plugins) = fresh();
    let auth = RegistryAuth::Basic { username: "u".into(), password: "p".into() };
    plugins.pull(&registry.reference(":v1"), auth, &registry.plain()).await.unwrap();
}

#[tokio::test]
async fn older_media_types_are_accepted_and_others_are_not() {
    let registry = Registry::start().await;
    let bytes = component();
    let layer = registry.put_blob(&bytes);
    for media in ["application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm"] {
        registry.put("old", &manifest(media, &layer, bytes.len(), 1));
        registry.pull(":old").await.unwrap();
    }
    registry.put("tar", &manifest("application/vnd.oci.image.layer.v1.tar+gzip", &layer, bytes.len(), 1));
    let error = registry.pull(":tar").await.unwrap_err().to_string();
    assert!(error.contains("its layer is `application/vnd.oci.image.layer.v1.tar+gzip`"), "{error}");
    registry.put("two", &manifest("application/wasm", &layer, bytes.len(), 2));
    let error = registry.pull(":two").await.unwrap_err().to_string();
    assert!(error.contains("it has 2 layers and a plugin has exactly one"), "{error}");
    registry.put("index", &json!({"schemaVersion": 2, "manifests": []}));
    assert!(matches!(registry.pull(":index").await.unwrap_err(), RegistryError::NotAPlugin { .. }));
}

#[tokio::test]
async fn sizes_are_kept_to() {
    let registry = Registry::start().await;
    let bytes = component();
    let layer = registry.put_blob(&bytes);
    let most = usize::try_from(limits::COMPONENT_BYTES).unwrap();
    registry.put("huge", &manifest("application/wasm", &layer, most + 1, 1));
    let before = registry.inner.lock().unwrap().requests;
    let error = registry.pull(":huge").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { what: "the component", .. }), "{error:?}");
    assert!(registry.inner.lock().unwrap().requests - before <= 2, "the layer was asked for");
    registry.put("more", &manifest("application/wasm", &layer, bytes.len() - 1, 1));
    let error = registry.pull(":more").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { what: "the component", .. }), "{error:?}");
    registry.lie("manifests/long", || (StatusCode::OK, vec![b' '; limits::OCI_MANIFEST_BYTES + 1]));
    let error = registry.pull(":long").await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { what: "the manifest", .. }), "{error:?}");
}

#[tokio::test]
async fn other_bytes_than_announced_are_not_used() {
    let registry = Registry::start().await;
    let bytes = component();
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    let layer = digest(&bytes);
    registry.inner.lock().unwrap().stored.insert(format!("blobs/{layer}"), other);
    registry.put("v1", &manifest("application/wasm", &layer, bytes.len(), 1));
    let error = registry.pull(":v1").await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { what: "the component", .. }), "{error:?}");
    let wanted = format!("sha256:{}", "1".repeat(64));
    registry.put(&wanted, &manifest("application/wasm", &layer, bytes.len(), 1));
    let error = registry.pull(&format!("@{wanted}")).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { what: "the manifest", .. }), "{error:?}");
}

#[tokio::test]
async fn absence_failure_and_silence_are_told_apart() {
    let registry = Registry::start().await;
    assert!(matches!(registry.pull(":none").await.unwrap_err(), RegistryError::NotFound { .. }));
    registry.lie("manifests/ill", || (StatusCode::BAD_GATEWAY, Vec::new()));
    let error = registry.pull(":ill").await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }) && error.is_passing(), "{error:?}");
    registry.lie("manifests/forbidden", || (StatusCode::FORBIDDEN, Vec::new()));
    assert!(matches!(registry.pull(":forbidden").await.unwrap_err(), RegistryError::Auth { .. }));
    let (_cache, plugins) = fresh();
    let nowhere = PlainHttp(vec!["127.0.0.1:1".into()]);
    let error = plugins.pull("127.0.0.1:1/org/plugin:v1", RegistryAuth::Anonymous, &nowhere).await.unwrap_err();
    assert_eq!(error.category(), "registry-unavailable");
    let error = plugins.pull("Not A Reference", RegistryAuth::Anonymous, &nowhere).await.unwrap_err();
    assert_eq!(error.category(), "registry-reference");
}

#[tokio::test]
async fn a_registry_that_is_not_named_is_never_spoken_to_without_tls() {
    let registry = Registry::start().await;
    let (_cache, plugins) = fresh();
    let error = plugins.pull(&registry.reference(":v1"), RegistryAuth::Anonymous, &PlainHttp::default()).await.unwrap_err();
    assert_eq!(error.category(), "registry-unavailable");
    assert_eq!(registry.inner.lock().unwrap().requests, 0);
}

#[tokio::test]
async fn a_component_that_is_refused_is_not_kept() {
    let registry = Registry::start().await;
    let bytes = b"\0asm\x0d\0\x01\0".to_vec();
    let layer = registry.put_blob(&bytes);
    registry.put("v1", &manifest("application/wasm", &layer, bytes.len(), 1));
    let (_cache, plugins) = fresh();
    let error = plugins.pull(&registry.reference(":v1"), RegistryAuth::Anonymous, &registry.plain()).await.unwrap_err();
    assert_eq!(error.category(), "refused");
    assert!(matches!(plugins.bytes(&layer), Err(PluginError::Unknown { .. })));
}
