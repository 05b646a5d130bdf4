//! A store that is asked as Google Cloud Storage is, through its XML interface: a translator before a real S3 server. It must not know
//! who asks.
//!
//! Google documents lists, copies and uploads in parts of that interface as those of S3, with headers of its own names; so the
//! server behind does what they do. What differs is done here: every request needs a token, whose signature is checked with the key of
//! the one service account, and the tags of objects are no MD5 sums.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;

use crate::proxy::{self, Pass, Proxy, forward, refused};
use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// The only service account.
const ACCOUNT: &str = "tests@substratus.example";
/// What its tokens must be good for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// What stays as it is in a path that is signed.
const PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A store with one bucket. Ends when dropped.
#[derive(Debug)]
pub struct Gcs {
    /// Misbehaves, and knows what was asked.
    pub proxy: Proxy,
    /// Where the objects lie.
    pub s3: S3,
}

/// The test key of the service account: made anew by every process, and good for nothing else.
fn test_key() -> Result<&'static KeyPair> {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let made = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("making a test key")?;
    Ok(KEY.get_or_init(|| made))
}

impl Gcs {
    /// Starts it; its proxies run in `runtime`.
    pub fn start(runtime: &Handle) -> Result<Self> {
        let (s3, client) = (S3::start(runtime)?, proxy::client()?);
        let (server, public) = (s3.direct_url(), Arc::new(test_key()?.public_key_raw().to_vec()));
        let pass: Pass = Arc::new(move |head, body| {
            let (client, server, public) = (client.clone(), server.clone(), Arc::clone(&public));
            Box::pin(async move { pass(client, &server, &public, head, body).await })
        });
        Ok(Self { proxy: Proxy::start(Ipv4Addr::LOCALHOST.into(), runtime, pass)?, s3 })
    }

    /// The environment with which the bucket is reached.
    pub fn env(&self) -> Result<BTreeMap<&'static str, String>> {
        Ok(BTreeMap::from([
            ("GOOGLE_SERVICE_ACCOUNT_KEY", self.service_account(test_key()?)),
            ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
        ]))
    }

    /// The same with a key that the store does not know.
    pub fn env_of_a_stranger(&self) -> Result<BTreeMap<&'static str, String>> {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).context("making a test key")?;
        let mut env = self.env()?;
        env.insert("GOOGLE_SERVICE_ACCOUNT_KEY", self.service_account(&key));
        Ok(env)
    }

    /// The file that Google gives for a service account, with the address of this store.
    fn service_account(&self, key: &KeyPair) -> String {
        let key = json!({
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key_id": "test-key",
            "private_key": key.serialize_pem(),
            "gcs_base_url": self.proxy.url,
        });
        key.to_string()
    }
}

async fn pass(client: reqwest::Client, server: &str, public: &[u8], head: Parts, body: Body) -> Result<Response> {
    if let Err(error) = check_token(&head.headers, public) {
        tracing::debug!(%error, "refused");
        return Ok(refused(401, "AuthenticationRequired"));
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    let (url, head) = translated(server, head)?;
    let mut response = forward(client, url, head, body).await?;
    if reads && let Some(tag) = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()) {
        let tag = HeaderValue::try_from(format!("\"-{}\"", tag.trim_matches('"')))?;
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert("x-goog-generation", 1.into());
    Ok(response)
}

/// A request to the server behind, signed for it.
fn translated(server: &str, mut head: Parts) -> Result<(String, Parts)> {
    let path = percent_decode_str(head.uri.path()).decode_utf8()?.into_owned();
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let url = format!("{server}{}{query}", utf8_percent_encode(&path, &PATH));
    let kept = [CONTENT_LENGTH, CONTENT_TYPE, RANGE].map(|name| (name.as_str().to_owned(), name));
    let ours = ("x-goog-copy-source".to_owned(), HeaderName::from_static("x-amz-copy-source"));
    let mut headers = HeaderMap::new();
    for (name, becomes) in kept.into_iter().chain([ours]) {
        headers.extend(head.headers.get(&name).map(|value| (becomes, value.clone())));
    }
    let mut request = http::Request::new(HttpRequestBody::empty());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = url.parse()?;
    *request.headers_mut() = headers;
    let credential = AwsCredential { key_id: ACCESS_KEY.to_owned(), secret_key: SECRET_KEY.to_owned(), token: None };
    AwsAuthorizer::new(&credential, "s3", "us-east-1").with_sign_payload(false).try_authorize(&mut request, None)?;
    head.headers = std::mem::take(request.headers_mut());
    head.headers.remove(HOST);
    Ok((url, head))
}

/// What a token says.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    scope: String,
    exp: u64,
}

/// A token that a service account signed itself, as Google documents them: for us, and not over.
fn check_token(headers: &HeaderMap, public: &[u8]) -> Result<()> {
    let token = headers.get(AUTHORIZATION).context("no credentials")?.to_str()?.strip_prefix("Bearer ").context("no token")?;
    let (signed, signature) = token.rsplit_once('.').context("no signature")?;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public);
    ensure!(key.verify(signed.as_bytes(), &BASE64.decode(signature)?).is_ok(), "somebody else's signature");
    let claims = signed.split_once('.').context("no claims")?.1;
    let claims: Claims = serde_json::from_slice(&BASE64.decode(claims)?)?;
    ensure!(claims.iss == ACCOUNT && claims.scope == SCOPE, "somebody else's token");
    ensure!(claims.exp > SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), "the token is over");
    Ok(())
}
