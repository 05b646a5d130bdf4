//! A bucket of an object store, reached: which store a URL means, with the settings and credentials that its own tools read from
//! the environment, and what its refusals mean for the user. Knows no artifact and no file.

use std::ffi::OsString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{Certificate, ClientOptions, Error, ObjectStore, ObjectStoreExt, RetryConfig};

use super::sink::{SinkError, Trouble};
use super::url::{BucketUrl, Scheme};
use crate::causes;

/// What one request may take, its body included: a part at a few hundred kilobytes a second.
const REQUEST: Duration = Duration::from_mins(5);
/// What a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a request is repeated that met a busy server or a broken connection; the pauses between grow to 15 seconds.
const RETRIES: usize = 8;
/// How often we ask again ourselves, after that.
const TRIES: u32 = 3;
/// Bytes of a store's own words that are kept.
const WORDS: usize = 300;

/// A process's environment.
pub type Environment = [(OsString, OsString)];

/// A bucket. Clones share connections and credentials.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    multipart: Arc<dyn MultipartStore>,
    /// Makes URLs that anybody can read with; a store in memory has none.
    signer: Option<Arc<dyn Signer>>,
    /// `s3://bucket`, and where it is asked for.
    name: Arc<str>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Store {
    /// The bucket that `url` is in. `env` holds what the cloud's own tools read: `AWS_…`, `GOOGLE_…` or `AZURE_…`.
    pub fn open(url: &BucketUrl, env: &Environment) -> Result<Self, SinkError> {
        let known = || env.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        let named = |wanted: &str| known().find(|(name, value)| *name == wanted && !value.is_empty()).map(|(_, value)| value);
        let endpoint = named("AWS_ENDPOINT_URL_S3").or_else(|| named("AWS_ENDPOINT_URL"));
        let options = options(named("AWS_CA_BUNDLE").or_else(|| named("SSL_CERT_FILE")))?;
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let wrong = |error| unusable(url, &error);
        let bucket = url.bucket();
        match url.scheme() {
            Scheme::S3 => {
                if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) && named("AWS_ALLOW_HTTP") != Some("true") {
                    return Err(SinkError::Store(
                        Trouble::Settings,
                        "the endpoint of the bucket is plain http; use https, or set AWS_ALLOW_HTTP=true where the network is trusted".to_owned(),
                    ));
                }
                let mut builder = AmazonS3Builder::new();
                // Keys of the client itself are set by us: the environment must not switch off what keeps credentials safe.
                for (key, value) in known().filter(|(name, _)| name.starts_with("AWS_")) {
                    if let Ok(key) = key.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
                        && !matches!(key, AmazonS3ConfigKey::Client(_))
                    {
                        builder = builder.with_config(key, value);
                    }
                }
                let allow = named("AWS_ALLOW_HTTP") == Some("true");
                // One request for each: not every store that speaks like S3 knows the one for many.
                let builder = builder.with_client_options(options.with_allow_http(allow)).with_disable_bulk_delete(true);
                let builder = endpoint.into_iter().fold(builder, AmazonS3Builder::with_endpoint);
                let store = builder.with_bucket_name(bucket).with_retry(retry).build().map_err(wrong)?;
                Ok(Self::signing(store, name(url, endpoint)))
            }
            Scheme::Gs => {
                let mut builder = GoogleCloudStorageBuilder::new().with_client_options(options);
                for (key, value) in known().filter(|(name, _)| name.starts_with("GOOGLE_")) {
                    if let Ok(key) = key.to_ascii_lowercase().parse::<GoogleConfigKey>()
                        && !matches!(key, GoogleConfigKey::Client(_))
                    {
                        builder = builder.with_config(key, value);
                    }
                }
                let store = builder.with_bucket_name(bucket).with_retry(retry).build().map_err(wrong)?;
                Ok(Self::signing(store, name(url, None)))
            }
            Scheme::Az => {
                let mut builder = MicrosoftAzureBuilder::new().with_client_options(options);
                for (key, value) in known().filter(|(name, _)| name.starts_with("AZURE_")) {
                    if let Ok(key) = key.to_ascii_lowercase().parse::<AzureConfigKey>()
                        && !matches!(key, AzureConfigKey::Client(_))
                    {
                        builder = builder.with_config(key, value);
                    }
                }
                let store = builder.with_container_name(bucket).with_retry(retry).build().map_err(wrong)?;
                Ok(Self::signing(store, name(url, None)))
            }
            Scheme::File | Scheme::Tar | Scheme::Pvc => Err(SinkError::Unsupported(url.clone())),
        }
    }

    fn signing(store: impl ObjectStore + MultipartStore + Signer + Clone, name: String) -> Self {
        let signer: Arc<dyn Signer> = Arc::new(store.clone());
        Self { signer: Some(signer), ..Self::of(store, name) }
    }

    pub(super) fn of(store: impl ObjectStore + MultipartStore, name: String) -> Self {
        let store = Arc::new(store);
        let objects: Arc<dyn ObjectStore> = store.clone();
        Self { objects, multipart: store, signer: None, name: name.into() }
    }

    /// Whether both are the same bucket, reached the same way.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name
    }

    /// Single objects.
    pub(super) fn objects(&self) -> &dyn ObjectStore {
        &*self.objects
    }

    /// Objects in parts.
    pub(super) fn multipart(&self) -> &dyn MultipartStore {
        &*self.multipart
    }

    /// The bytes of an object; `None` where there is none.
    pub(super) async fn get(&self, key: &Path) -> Result<Option<Vec<u8>>, SinkError> {
        let mut tries = 0;
        loop {
            let bytes = match self.objects.get(key).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            match bytes {
                Ok(bytes) => return Ok(Some(bytes.into())),
                Err(error) if is_missing_object(&error) => return Ok(None),
                Err(error) => self.again(&mut tries, "read", key, &error)?,
            }
        }
    }

    /// Begins an upload in parts. One that was begun and not heard of is left to the bucket's own rules.
    pub(super) async fn begin(&self, key: &Path) -> Result<String, SinkError> {
        let mut tries = 0;
        loop {
            match self.multipart.create_multipart(key).await {
                Ok(upload) => return Ok(upload),
                Err(error) => self.again(&mut tries, "begin an upload of", key, &error)?,
            }
        }
    }

    /// Removes an object where there is one.
    pub(super) async fn delete(&self, key: &Path) -> Result<(), SinkError> {
        let mut tries = 0;
        loop {
            match self.objects.delete(key).await {
                Ok(()) => return Ok(()),
                Err(error) if is_missing_object(&error) => return Ok(()),
                Err(error) => self.again(&mut tries, "remove", key, &error)?,
            }
        }
    }

    /// Busy servers are asked again by the client itself; a broken connection only where it knows that nothing happens twice.
    /// What comes here may happen twice.
    fn again(&self, tries: &mut u32, action: &str, key: &Path, error: &Error) -> Result<(), SinkError> {
        *tries += 1;
        let error = self.explain(action, key.as_ref(), error);
        if matches!(error, SinkError::Store(Trouble::Passing, _)) && *tries < TRIES { Ok(()) } else { Err(error) }
    }

    /// A URL with which `key` can be read for a time, without a credential. It is one itself: it shows nowhere.
    pub(super) async fn sign(&self, key: &Path, valid: Duration) -> Result<::url::Url, SinkError> {
        let unable = || SinkError::Store(Trouble::Settings, format!("{} cannot sign URLs", self.name));
        let signed = self.signer.as_ref().ok_or_else(unable)?.signed_url(Method::GET, key, valid).await;
        signed.map_err(|error| self.explain("sign a URL of", key.as_ref(), &error))
    }

    /// Writes an object whole.
    pub(super) async fn put(&self, key: &Path, bytes: object_store::PutPayload) -> Result<(), SinkError> {
        self.objects.put(key, bytes).await.map(drop).map_err(|error| self.explain("write", key.as_ref(), &error))
    }

    /// What an error means for the user. The store's code and its sentence are kept, and nothing else of its answer: some stores
    /// repeat what was signed.
    pub(super) fn explain(&self, action: &str, path: &str, error: &Error) -> SinkError {
        let text = error.to_string();
        let code = element(&text, "Code").or_else(|| element(&text, "code")).unwrap_or_default();
        let doing = format!("cannot {action} `{path}` in {}", self.name);
        let (trouble, message) = match code {
            "NoSuchUpload" => (Trouble::Gone, format!("{doing}: the upload in parts is gone; it begins again")),
            "NoSuchBucket" | "ContainerNotFound" => (
                Trouble::Missing,
                format!("{doing}: the bucket does not exist; create it, or correct the bucket's URL or endpoint"),
            ),
            "ExpiredToken" | "TokenRefreshRequired" | "ExpiredTokenException" => (
                Trouble::Denied,
                format!("{doing}: the credentials have expired ({code}); renew the Secret, or let workload identity renew them"),
            ),
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "XAdminUserNotFound"
            | "InvalidToken"
            | "InvalidClientTokenId"
            | "AuthenticationFailed" => {
                (Trouble::Denied, format!("{doing}: the credentials are wrong ({code}); correct the access key and its secret"))
            }
            "AccessDenied" | "AuthorizationFailure" | "AuthorizationPermissionMismatch" => (
                Trouble::Denied,
                format!(
                    "{doing}: the credentials may not do this ({code}); they need to list, read, write and remove objects there"
                ),
            ),
            "RequestTimeTooSkewed" => {
                (Trouble::Denied, format!("{doing}: the clocks of node and store differ ({code}); set the node's clock"))
            }
            "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                let region = element(&text, "Region").map(|region| format!(" to {region}")).unwrap_or_default();
                (Trouble::Settings, format!("{doing}: the bucket is in another region ({code}); set AWS_REGION{region}"))
            }
            _ if text.contains("incorrectly configured region") => {
                (Trouble::Settings, format!("{doing}: the bucket is in another region; set AWS_REGION to where it is"))
            }
            _ => return self.explain_kind(&doing, code, &text, error),
        };
        SinkError::Store(trouble, message)
    }

    /// By the kind of answer, where its code says nothing.
    #[expect(clippy::unused_self, reason = "the second half of `explain`")]
    fn explain_kind(&self, doing: &str, code: &str, text: &str, error: &Error) -> SinkError {
        let said = match (code, element(text, "Message")) {
            ("", _) => cut(&causes::innermost(error)),
            (code, Some(words)) => format!("{code}, {}", cut(words)),
            (code, None) => code.to_owned(),
        };
        let unasked = ["169.254.", "metadata.google.internal", "No credentials"].iter().any(|word| text.contains(word));
        let (trouble, hint) = match error {
            _ if unasked => (
                Trouble::Denied,
                "there are no credentials; name a Secret with BUCKET_SECRET, or bind the service account to an identity of the cloud",
            ),
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                (Trouble::Denied, "the credentials may not do this; they need to list, read, write and remove objects there")
            }
            Error::NotFound { .. } => (Trouble::Missing, "it is not there"),
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                (Trouble::Settings, "the store does not know this request")
            }
            _ => (Trouble::Passing, "it is tried again later"),
        };
        SinkError::Store(trouble, format!("{doing}: {said}; {hint}"))
    }
}

fn options(bundle: Option<&str>) -> Result<ClientOptions, SinkError> {
    let options = ClientOptions::new().with_timeout(REQUEST).with_connect_timeout(CONNECT);
    let Some(bundle) = bundle else { return Ok(options) };
    let pem = std::fs::read(bundle).map_err(SinkError::io("read certificates", bundle))?;
    let broken =
        |error: Error| SinkError::Store(Trouble::Settings, format!("certificates in `{bundle}` cannot be used: {error}"));
    Ok(Certificate::from_pem_bundle(&pem).map_err(broken)?.into_iter().fold(options, ClientOptions::with_root_certificate))
}

fn name(url: &BucketUrl, endpoint: Option<&str>) -> String {
    // An endpoint may be written with a user and a password in it.
    let host = endpoint.and_then(|endpoint| url::Url::parse(endpoint).ok());
    let host = host.as_ref().and_then(|endpoint| Some((endpoint.host_str()?, endpoint.port())));
    match host {
        Some((host, Some(port))) => format!("{}://{} at {host}:{port}", url.scheme().as_str(), url.bucket()),
        Some((host, None)) => format!("{}://{} at {host}", url.scheme().as_str(), url.bucket()),
        None => format!("{}://{}", url.scheme().as_str(), url.bucket()),
    }
}

fn unusable(url: &BucketUrl, error: &Error) -> SinkError {
    SinkError::Store(
        Trouble::Settings,
        format!("bucket `{url}` cannot be used with these settings: {}", cut(&causes::innermost(error))),
    )
}

/// There is no such object. A bucket that is missing answers with the same status.
pub(super) fn is_missing_object(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. })
        && !matches!(element(&error.to_string(), "Code"), Some("NoSuchBucket" | "ContainerNotFound"))
}

/// The text of an element of a store's XML.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once("</").map(|(inside, _)| inside)
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(WORDS)).unwrap_or_default().to_owned()
}
