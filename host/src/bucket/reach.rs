//! Reaches a bucket of an object store: which store a URL means, with the settings and credentials that its own tools read from the
//! environment. Knows no artifact and no file.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{Certificate, ClientOptions, Error, RetryConfig};

use super::raw::{Azure, Google, Raw, S3};
use super::refusal::cut;
use super::sink::{SinkError, Trouble};
use super::store::{Environment, Store};
use super::url::{BucketUrl, Scheme};
use crate::causes;

/// What one request may take, its body included: a part at a few hundred kilobytes a second.
const REQUEST: Duration = Duration::from_mins(5);
/// What a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a request is repeated that met a busy server or a broken connection; the pauses between grow to 15 seconds.
const RETRIES: usize = 8;
/// Where Google is asked, when nothing else is said.
const GOOGLE: &str = "https://storage.googleapis.com";
/// A key, in Base64, that is nobody's: what is signed with it opens nothing.
const NOBODY: &str = "bm9ib2R5";

/// The bucket that `url` is in. `env` holds what the cloud's own tools read: `AWS_…`, `GOOGLE_…` or `AZURE_…`.
pub(super) fn open(url: &BucketUrl, env: &Environment) -> Result<Store, SinkError> {
    let known = Known(env);
    match url.scheme() {
        Scheme::S3 => s3(url, &known),
        Scheme::Gs => google(url, &known),
        Scheme::Az => azure(url, &known),
        Scheme::File | Scheme::Tar | Scheme::Pvc => Err(SinkError::Unsupported(url.clone())),
    }
}

fn s3(url: &BucketUrl, known: &Known<'_>) -> Result<Store, SinkError> {
    let endpoint = known.named(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
    let options = known.options(endpoint, "AWS_ALLOW_HTTP")?;
    let mut builder = AmazonS3Builder::new();
    // Keys of the client itself are set by us: the environment must not switch off what keeps credentials safe.
    for (name, value) in known.of("AWS_") {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>()
            && !matches!(key, AmazonS3ConfigKey::Client(_))
        {
            builder = builder.with_config(key, value);
        }
    }
    // One request for each: not every store that speaks like S3 knows the one for many.
    let builder = builder.with_client_options(options.clone()).with_disable_bulk_delete(true);
    let builder = endpoint.into_iter().fold(builder, AmazonS3Builder::with_endpoint);
    let built = builder.with_bucket_name(url.bucket()).with_retry(retry()).build();
    let (store, http) = built.and_then(|store| Ok((store, client(&options)?))).map_err(|error| unusable(url, &error))?;
    let raw = Raw::S3(S3 { signer: Arc::new(store.clone()), http, bucket: url.bucket().to_owned() });
    Ok(Store::of(store, name(url, endpoint), raw))
}

fn google(url: &BucketUrl, known: &Known<'_>) -> Result<Store, SinkError> {
    let base = known.google_base();
    let options = known.options(Some(&base), "GOOGLE_ALLOW_HTTP")?;
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(options.clone());
    for (name, value) in known.of("GOOGLE_") {
        if let Ok(key) = name.parse::<GoogleConfigKey>()
            && !matches!(key, GoogleConfigKey::Client(_))
        {
            builder = builder.with_config(key, value);
        }
    }
    let built = builder.with_base_url(&base).with_bucket_name(url.bucket()).with_retry(retry()).build();
    let (store, http) = built.and_then(|store| Ok((store, client(&options)?))).map_err(|error| unusable(url, &error))?;
    let bucket = format!("{}/{}", base.trim_end_matches('/'), url.bucket());
    let raw = Raw::Google(Google { credentials: Arc::clone(store.credentials()), http, bucket });
    Ok(Store::of(store, name(url, (base != GOOGLE).then_some(&base)), raw))
}

fn azure(url: &BucketUrl, known: &Known<'_>) -> Result<Store, SinkError> {
    let endpoint = known.named(&["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"]);
    let options = known.options(endpoint, "AZURE_ALLOW_HTTP")?;
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(options);
    for (name, value) in known.of("AZURE_") {
        match name.parse::<AzureConfigKey>() {
            Err(_) | Ok(AzureConfigKey::Client(_)) => {}
            // Workload identity says it with a slash at the end, and the client adds one of its own.
            Ok(AzureConfigKey::AuthorityHost) => {
                builder = builder.with_config(AzureConfigKey::AuthorityHost, value.trim_end_matches('/'));
            }
            Ok(key) => builder = builder.with_config(key, value),
        }
    }
    let builder = builder.with_container_name(url.bucket()).with_retry(retry());
    let said = |key| builder.get_config_value(&key).unwrap_or_default();
    let (account, key) = (said(AzureConfigKey::AccountName), said(AzureConfigKey::AccessKey));
    let urls = builder.clone().with_config(AzureConfigKey::CredentialType, "access_key").with_access_key(NOBODY).build();
    let built = builder.build().and_then(|store| Ok((store, urls?)));
    let (store, urls) = built.map_err(|error| unusable(url, &error))?;
    let credentials = Arc::clone(store.credentials());
    // The client has looked at it.
    let key = BASE64_STANDARD.decode(key).unwrap_or_default();
    let raw = Raw::Azure(Azure { urls: Arc::new(urls), credentials, account, container: url.bucket().to_owned(), key });
    Ok(Store::of(store, name(url, endpoint), raw))
}

/// What is said in an environment.
struct Known<'a>(&'a Environment);

impl<'a> Known<'a> {
    /// What can be read of it.
    fn all(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)))
    }

    /// Variables whose names begin so, as the client spells them.
    fn of(&self, prefix: &'static str) -> impl Iterator<Item = (String, &'a str)> {
        self.all().filter(move |(name, _)| name.starts_with(prefix)).map(|(name, value)| (name.to_ascii_lowercase(), value))
    }

    /// The first of these variables that says something.
    fn named(&self, wanted: &[&str]) -> Option<&'a str> {
        wanted
            .iter()
            .find_map(|wanted| self.all().find(|(name, value)| name == wanted && !value.is_empty()))
            .map(|(_, value)| value)
    }

    /// Where Google is asked: another address can be in the service account's key, as in the client's own tests.
    fn google_base(&self) -> String {
        let key = self
            .named(&["GOOGLE_SERVICE_ACCOUNT_KEY"])
            .map(str::to_owned)
            .or_else(|| std::fs::read_to_string(self.named(&["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"])?).ok());
        let in_key = || {
            let key: serde_json::Value = serde_json::from_str(&key?).ok()?;
            key.get("gcs_base_url")?.as_str().map(str::to_owned)
        };
        self.named(&["GOOGLE_BASE_URL"]).map(str::to_owned).or_else(in_key).unwrap_or_else(|| GOOGLE.to_owned())
    }

    /// How connections are made; in plain text where `allow` says so.
    fn options(&self, endpoint: Option<&str>, allow: &str) -> Result<ClientOptions, SinkError> {
        let allowed = self.named(&[allow]) == Some("true");
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) && !allowed {
            let message =
                format!("the endpoint of the bucket is plain http; use https, or set {allow}=true where the network is trusted");
            return Err(SinkError::Store(Trouble::Settings, message));
        }
        let options = ClientOptions::new().with_timeout(REQUEST).with_connect_timeout(CONNECT).with_allow_http(allowed);
        let Some(bundle) = self.named(&["AWS_CA_BUNDLE"]).or_else(|| self.named(&["SSL_CERT_FILE"])) else { return Ok(options) };
        let pem = std::fs::read(bundle).map_err(SinkError::io("read certificates", bundle))?;
        let broken =
            |error: Error| SinkError::Store(Trouble::Settings, format!("certificates in `{bundle}` cannot be used: {error}"));
        Ok(Certificate::from_pem_bundle(&pem).map_err(broken)?.into_iter().fold(options, ClientOptions::with_root_certificate))
    }
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, ..RetryConfig::default() }
}

fn client(options: &ClientOptions) -> object_store::Result<HttpClient> {
    ReqwestConnector::default().connect(options)
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

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
