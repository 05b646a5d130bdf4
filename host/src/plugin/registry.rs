//! Pulls components from OCI registries: one manifest, one layer, each no larger than announced, allowed, and hashed.
//! Knows nothing about what a component is.

mod error;
mod guarded;
mod realm;
mod referrers;
mod roots;
mod upload;

use std::collections::HashMap;

use futures::StreamExt;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciImageManifest;
use oci_client::{Client, Reference};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::Url;

pub use self::error::RegistryError;
pub(super) use self::referrers::{Descriptor, INDEX};
pub use self::roots::Roots;
use super::cache::digest_of;
use crate::causes;
use crate::limits;

/// The layer's media type that we push.
pub(super) const LAYER: &str = "application/wasm";
/// The config's media type of the CNCF Wasm layout.
pub(super) const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// The media type of an OCI manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Layers that hold a component; the later two come from older tools.
const LAYERS: [&str; 3] =
    [LAYER, "application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm"];

/// How we show who we are.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Not at all.
    #[default]
    Anonymous,
    /// Name and password, or a token as password.
    Basic {
        /// User name.
        username: String,
        /// Password or token.
        password: String,
    },
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => write!(f, "Basic {{ username: {username:?}, .. }}"),
        }
    }
}

/// Registries (`host` or `host:port`) that are spoken to without TLS. Empty means none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainHttp(pub Vec<String>);

/// One repository of one registry, for one pull or push.
pub(super) struct Registry {
    pub(super) client: Client,
    http: reqwest::Client,
    pub(super) reference: Reference,
    auth: RegistryAuth,
    /// Where its API begins.
    root: Url,
    base: String,
    /// What requests show that pull, and that push.
    shown: Mutex<HashMap<bool, Option<HeaderValue>>>,
}

/// A manifest as it came, and its only layer.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: String,
    pub(super) layer: String,
    pub(super) size: u64,
}

/// Parses an image reference.
pub(super) fn parse(reference: &str) -> Result<Reference, RegistryError> {
    reference.parse().map_err(|error: oci_client::ParseError| RegistryError::Reference {
        reference: super::text::clip(reference, 300),
        reason: error.to_string(),
    })
}

impl Registry {
    /// Prepares to talk; does no I/O.
    pub(super) fn new(reference: Reference, auth: RegistryAuth, plain: &PlainHttp) -> Result<Self, RegistryError> {
        Self::trusting(reference, auth, plain, &Roots::default())
    }

    /// The same, with certificates to trust besides the system's.
    pub(super) fn trusting(
        reference: Reference,
        auth: RegistryAuth,
        plain: &PlainHttp,
        roots: &Roots,
    ) -> Result<Self, RegistryError> {
        let host = reference.resolve_registry().to_owned();
        let scheme = if plain.0.contains(&host) { "http" } else { "https" };
        let config = ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain.0.clone()),
            connect_timeout: Some(limits::REGISTRY_CONNECT),
            read_timeout: Some(limits::REGISTRY_IDLE),
            user_agent: concat!("substratus/", env!("CARGO_PKG_VERSION")),
            use_monolithic_push: true,
            extra_root_certificates: roots.for_oci(),
            ..ClientConfig::default()
        };
        let unavailable = |error: String| RegistryError::Unavailable { reference: reference.whole(), reason: error };
        // `Client::new` would go on with other settings where these do not work.
        let client = Client::try_from(config).map_err(|error| unavailable(error.to_string()))?;
        let http = guarded::client(reqwest::Client::builder())
            .connect_timeout(limits::REGISTRY_CONNECT)
            .read_timeout(limits::REGISTRY_IDLE)
            .tls_certs_merge(roots.for_http())
            .user_agent(concat!("substratus/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unavailable(error.to_string()))?;
        let root = Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| unavailable(error.to_string()))?;
        let base = format!("{scheme}://{host}/v2/{}", reference.repository());
        Ok(Self { client, http, reference, auth, root, base, shown: Mutex::default() })
    }

    /// Runs a whole pull or push, within its time.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        match tokio::time::timeout(limits::REGISTRY_TOTAL, work).await {
            Ok(result) => result,
            Err(_) => Err(self.unavailable(format!("no end after {} s", limits::REGISTRY_TOTAL.as_secs()))),
        }
    }

    /// The manifest of the reference's digest or tag.
    pub(super) async fn manifest(&self) -> Result<Artifact, RegistryError> {
        let wanted = self.reference.digest().or_else(|| self.reference.tag()).unwrap_or("latest");
        let max = limits::OCI_MANIFEST_BYTES as u64;
        let bytes = self.get("the manifest", &format!("manifests/{wanted}"), max).await?;
        let digest = digest_of(&bytes);
        if let Some(expected) = self.reference.digest() {
            self.expect("the manifest", expected, &digest)?;
        }
        read_manifest(&self.reference, bytes, digest)
    }

    /// The layer's bytes, if they are the ones announced.
    pub(super) async fn layer(&self, artifact: &Artifact) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.get("the component", &format!("blobs/{}", artifact.layer), artifact.size).await?;
        self.expect("the component", &artifact.layer, &digest_of(&bytes))?;
        Ok(bytes)
    }

    /// Gets at most `max` bytes; one more ends the transfer.
    async fn get(&self, what: &'static str, path: &str, max: u64) -> Result<Vec<u8>, RegistryError> {
        let response = self.ask(path, MANIFEST).await?;
        self.check_status(response.status())?;
        self.body(what, response, max).await
    }

    /// Asks for a path of the repository; any status is an answer.
    async fn ask(&self, path: &str, accept: &str) -> Result<reqwest::Response, RegistryError> {
        let request = self.http.get(format!("{}/{path}", self.base)).header("accept", accept);
        self.send(request, false).await
    }

    /// Sends a request in our name, which may push.
    async fn send(&self, request: reqwest::RequestBuilder, pushes: bool) -> Result<reqwest::Response, RegistryError> {
        let request = match self.authorization(pushes).await? {
            Some(shown) => request.header(AUTHORIZATION, shown),
            None => request,
        };
        request.send().await.map_err(|error| self.lost(&error))
    }

    async fn body(&self, what: &'static str, response: reqwest::Response, max: u64) -> Result<Vec<u8>, RegistryError> {
        if let Some(size) = response.content_length().filter(|size| *size > max) {
            return Err(self.too_large(what, size, max));
        }
        let mut bytes = Vec::new();
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| self.lost(&error))?);
            if bytes.len() as u64 > max {
                return Err(self.too_large(what, bytes.len() as u64, max));
            }
        }
        Ok(bytes)
    }

    /// Our credentials in the client's words.
    pub(super) fn oci_auth(&self) -> oci_client::secrets::RegistryAuth {
        match &self.auth {
            RegistryAuth::Anonymous => oci_client::secrets::RegistryAuth::Anonymous,
            RegistryAuth::Basic { username, password } => {
                oci_client::secrets::RegistryAuth::Basic(username.clone(), password.clone())
            }
        }
    }

    fn check_status(&self, status: StatusCode) -> Result<(), RegistryError> {
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { reference: self.reference.whole() }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused(format!("status {status}"))),
            status => Err(self.unavailable(format!("status {status}"))),
        }
    }

    /// The client's errors in our words.
    pub(super) fn translate(&self, error: &OciDistributionError) -> RegistryError {
        match error {
            OciDistributionError::AuthenticationFailure(reason) => self.refused(super::text::sentence(reason)),
            OciDistributionError::UnauthorizedError { .. } => self.refused("status 401".to_owned()),
            OciDistributionError::ServerError { code: 401 | 403, .. } => self.refused("status 403".to_owned()),
            OciDistributionError::ImageManifestNotFoundError(_) | OciDistributionError::ServerError { code: 404, .. } => {
                RegistryError::NotFound { reference: self.reference.whole() }
            }
            error => self.unavailable(super::text::sentence(&causes::chain(error))),
        }
    }

    fn expect(&self, what: &'static str, expected: &str, actual: &str) -> Result<(), RegistryError> {
        if expected == actual {
            return Ok(());
        }
        Err(RegistryError::DigestMismatch {
            reference: self.reference.whole(),
            what,
            expected: super::text::clip(expected, 128),
            actual: actual.to_owned(),
        })
    }

    fn refused(&self, reason: String) -> RegistryError {
        RegistryError::Auth { reference: self.reference.whole(), reason }
    }

    /// A connection that broke, or that was not made.
    fn lost(&self, error: &reqwest::Error) -> RegistryError {
        match guarded::refusal(error) {
            Some(refused) => self.misled(refused),
            None => self.unavailable(causes::chain(error)),
        }
    }

    /// It wants us to go where nobody should.
    fn misled(&self, reason: String) -> RegistryError {
        RegistryError::Malformed { reference: self.reference.whole(), what: "the registry", reason }
    }

    fn unavailable(&self, reason: String) -> RegistryError {
        RegistryError::Unavailable { reference: self.reference.whole(), reason }
    }

    fn too_large(&self, what: &'static str, size: u64, max: u64) -> RegistryError {
        RegistryError::TooLarge { reference: self.reference.whole(), what, size, max }
    }
}

/// What a manifest's bytes say, once their digest is known to be right.
pub(super) fn read_manifest(reference: &Reference, bytes: Vec<u8>, digest: String) -> Result<Artifact, RegistryError> {
    let not_a_plugin = |reason: String| RegistryError::NotAPlugin { reference: reference.whole(), reason };
    let manifest: OciImageManifest = serde_json::from_slice(&bytes)
        .map_err(|error| not_a_plugin(format!("its manifest is not one of a single image ({error})")))?;
    let [layer] = manifest.layers.as_slice() else {
        return Err(not_a_plugin(format!("it has {} layers and a plugin has exactly one", manifest.layers.len())));
    };
    if !LAYERS.contains(&layer.media_type.as_str()) {
        return Err(not_a_plugin(format!("its layer is `{}`, not `{LAYER}`", super::text::sentence(&layer.media_type))));
    }
    let hex = layer.digest.strip_prefix("sha256:").is_some_and(super::cache::is_sha256);
    if !hex {
        return Err(not_a_plugin("its layer's digest is no SHA-256".to_owned()));
    }
    let (size, max) = (u64::try_from(layer.size).unwrap_or(u64::MAX), limits::COMPONENT_BYTES);
    if size > max {
        return Err(RegistryError::TooLarge { reference: reference.whole(), what: "the component", size, max });
    }
    Ok(Artifact { layer: layer.digest.clone(), size, bytes, digest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn descriptor() -> impl Strategy<Value = Value> {
        let digest = prop_oneof!["sha256:[0-9a-f]{64}", "sha256:[0-9a-fA-F/.]{60,66}", "sha512:[0-9a-f]{128}", "\\PC{0,12}"];
        let media = prop_oneof![prop::sample::select(LAYERS.to_vec()).prop_map(str::to_owned), "\\PC{0,20}"];
        let size = prop_oneof![any::<i64>(), 0..100_000_000_i64];
        (media, digest, size).prop_map(|(media, digest, size)| json!({"mediaType": media, "digest": digest, "size": size}))
    }

    proptest! {
        /// Whatever a registry calls a manifest: what is taken has one layer of a good name and of bounded size.
        #[test]
        fn any_manifest_is_that_of_a_plugin_or_is_refused(
            config in descriptor(),
            layers in prop::collection::vec(descriptor(), 0..3),
            version in prop_oneof![Just(json!(2)), any::<u64>().prop_map(Value::from), Just(Value::Null)],
            junk in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let reference = parse("registry.example/org/plugin:v1").unwrap();
            let read = |bytes: Vec<u8>| read_manifest(&reference, bytes, "sha256:00".to_owned());
            prop_assert!(read(junk).is_err());
            let manifest = json!({"schemaVersion": version, "config": config, "layers": layers});
            if let Ok(artifact) = read(manifest.to_string().into_bytes()) {
                prop_assert_eq!(layers.len(), 1);
                prop_assert!(artifact.size <= limits::COMPONENT_BYTES);
                let hex = artifact.layer.strip_prefix("sha256:").unwrap();
                prop_assert!(super::super::cache::is_sha256(hex), "{hex}");
            }
        }

        #[test]
        fn any_configuration_of_docker_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), auth in "\\PC{0,30}") {
            let _ = RegistryAuth::from_docker_config(&bytes, "registry.example");
            let config = json!({"auths": {"registry.example": {"auth": auth}}}).to_string();
            let _ = RegistryAuth::from_docker_config(config.as_bytes(), "registry.example");
        }
    }
}
