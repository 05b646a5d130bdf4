//! Requests to a store that its client has no words for: where an object is read by whoever has an HTTP client, which uploads in
//! parts are pending, and copies of parts. Knows no artifact.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::TryStreamExt;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::azure::{AzureCredential, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::gcp::GcpCredentialProvider;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{Error, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use sha2::Sha256;
use url::Url;

/// How long a URL works that is signed for a request of our own.
const NOW: Duration = Duration::from_mins(10);
/// What is left of a token at least, when the client hands it out.
const TOKEN: Duration = Duration::from_mins(4);
/// The version of its interface that Azure is asked in.
const AZURE_VERSION: &str = "2021-12-02";
/// Bytes of an answer that are read: a thousand uploads with the longest names.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Answers that are read of one list of uploads.
const MAX_PAGES: usize = 20;
/// What stays as it is in a path.
const PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How an object is read without its store's client.
pub struct Address {
    /// Where it is. It may be signed, and is a credential then: it shows nowhere.
    pub url: Url,
    /// What has to be sent along; a credential is marked as such.
    pub headers: HeaderMap,
    /// How long this works at least.
    pub valid: Duration,
}

/// What is known of a store beside its client.
#[derive(Clone)]
pub(super) enum Raw {
    /// Nothing: a store in memory.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests keep objects in memory"))]
    None,
    /// S3 and what speaks like it.
    S3(S3),
    /// Google Cloud Storage.
    Google(Google),
    /// Azure Blob Storage.
    Azure(Azure),
}

/// Every request can be signed into its URL.
#[derive(Clone)]
pub(super) struct S3 {
    pub(super) signer: Arc<dyn Signer>,
    pub(super) http: HttpClient,
    pub(super) bucket: String,
}

/// Every request takes a token. Signing would do too, but asks an identity of the cloud to be allowed to sign, for each file.
#[derive(Clone)]
pub(super) struct Google {
    pub(super) credentials: GcpCredentialProvider,
    pub(super) http: HttpClient,
    /// URL of the bucket.
    pub(super) bucket: String,
}

/// Who has the account's key signs, others send what they have: a token, or a signature that they were given. The client could sign,
/// too, but signs names as they are escaped in URLs, and the store checks them as they are.
#[derive(Clone)]
pub(super) struct Azure {
    /// Knows where objects are, and signs with a key of nobody.
    pub(super) urls: Arc<dyn Signer>,
    pub(super) credentials: AzureCredentialProvider,
    pub(super) account: String,
    pub(super) container: String,
    /// The account's key.
    pub(super) key: Vec<u8>,
}

/// An upload in parts that has neither ended nor been given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) key: Path,
    pub(super) upload: String,
}

impl Raw {
    /// How `key` is read for a time.
    pub(super) async fn address(&self, key: &Path, valid: Duration) -> Result<Address> {
        match self {
            Self::None => Err(unknown("addresses of objects")),
            Self::S3(S3 { signer, .. }) => signed(signer, key, valid).await,
            Self::Google(google) => {
                let url = format!("{}/{}", google.bucket, utf8_percent_encode(key.as_ref(), &PATH));
                Ok(Address { url: parsed(&url)?, headers: google.headers().await?, valid: TOKEN })
            }
            Self::Azure(azure) => azure.address(key, valid).await,
        }
    }

    /// Uploads in parts of objects whose names begin so. Azure has none: what belongs to nothing goes away by itself.
    pub(super) async fn pending(&self, prefix: &str) -> Result<Vec<Pending>> {
        let (mut found, mut after) = (Vec::new(), Vec::new());
        for _ in 0..MAX_PAGES {
            let query = [("uploads", String::new()), ("prefix", prefix.to_owned())].into_iter().chain(after);
            let text = match self {
                Self::None | Self::Azure(_) => return Ok(found),
                Self::S3(s3) => s3.send(Method::GET, &Path::default(), query, HeaderMap::new()).await?,
                Self::Google(google) => {
                    let mut url = parsed(&google.bucket)?;
                    url.query_pairs_mut().extend_pairs(query);
                    send(&google.http, Method::GET, &url, google.headers().await?).await?
                }
            };
            let list: Uploads = quick_xml::de::from_str(&text).map_err(|error| generic(error.into()))?;
            for upload in list.upload {
                // A name that this code could not have given is somebody else's.
                found.extend(Path::parse(upload.key).ok().map(|key| Pending { key, upload: upload.upload_id }));
            }
            let (Some(key), true) = (list.next_key_marker, list.is_truncated) else { break };
            after =
                [("key-marker", key)].into_iter().chain(list.next_upload_id_marker.map(|id| ("upload-id-marker", id))).collect();
        }
        Ok(found)
    }

    /// Has the store copy bytes of `from` as a part of an upload of `to`. Answers with the part's tag; nothing where the store has no
    /// such request.
    pub(super) async fn copy_part(
        &self,
        (from, bytes): (&Path, std::ops::Range<u64>),
        to: &Path,
        (upload, index): (&str, usize),
    ) -> Result<Option<String>> {
        let Self::S3(s3) = self else { return Ok(None) };
        let source = format!("/{}/{}", s3.bucket, utf8_percent_encode(from.as_ref(), &PATH));
        let range = format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1));
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-amz-copy-source", source), ("x-amz-copy-source-range", range)] {
            headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).map_err(|error| generic(error.into()))?);
        }
        let query = [("partNumber", (index + 1).to_string()), ("uploadId", upload.to_owned())];
        // An answer that begins well may still end in a refusal.
        let text = s3.send(Method::PUT, to, query, headers).await?;
        let copied: Copied = quick_xml::de::from_str(&text).map_err(|_| generic(text.into()))?;
        Ok(Some(copied.e_tag))
    }

    /// Whether an object can be copied part by part.
    pub(super) const fn copies_parts(&self) -> bool {
        matches!(self, Self::S3(_))
    }
}

impl S3 {
    async fn send(
        &self,
        method: Method,
        key: &Path,
        query: impl IntoIterator<Item = (&'static str, String)>,
        headers: HeaderMap,
    ) -> Result<String> {
        let signed = headers.iter().fold(SignedUrlOptions::new().with_query(query), |options, (name, value)| {
            options.with_signed_header(name.clone(), value.clone())
        });
        let url = self.signer.signed_url_opts(method.clone(), key, NOW, &signed).await?;
        send(&self.http, method, &url, headers).await
    }
}

impl Google {
    async fn headers(&self) -> Result<HeaderMap> {
        let token = &self.credentials.get_credential().await?.bearer;
        if token.is_empty() { Ok(HeaderMap::new()) } else { bearer(token) }
    }
}

impl Azure {
    async fn address(&self, key: &Path, valid: Duration) -> Result<Address> {
        let mut url = self.urls.signed_url(Method::GET, key, valid).await?;
        url.set_query(None);
        let mut address = Address { url, headers: HeaderMap::new(), valid };
        match &*self.credentials.get_credential().await? {
            AzureCredential::SASToken(pairs) => {
                address.url.query_pairs_mut().extend_pairs(pairs);
            }
            AzureCredential::AccessKey(_) => {
                address.url.query_pairs_mut().extend_pairs(self.signature(key, valid)?);
            }
            AzureCredential::BearerToken(token) => {
                address.headers = bearer(token)?;
                // Without one the store does not know tokens.
                address.headers.insert("x-ms-version", HeaderValue::from_static(AZURE_VERSION));
                address.valid = TOKEN;
            }
        }
        Ok(address)
    }

    /// A signature that opens one object for reading:
    /// <https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas#version-2020-12-06-and-later>.
    fn signature(&self, key: &Path, valid: Duration) -> Result<[(&'static str, String); 5]> {
        let ends = jiff::Timestamp::UNIX_EPOCH
            .checked_add(UNIX_EPOCH.elapsed().unwrap_or_default() + valid)
            .map_err(|error| generic(error.into()))?;
        let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let object = format!("/blob/{}/{}/{key}", self.account, self.container);
        // What is left empty is not restricted, and not asked for.
        let text = ["r", "", &ends, &object, "", "", "", AZURE_VERSION, "b", "", "", "", "", "", "", ""].join("\n");
        let mut hash = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|error| generic(error.into()))?;
        hash.update(text.as_bytes());
        let signature = BASE64_STANDARD.encode(hash.finalize().into_bytes());
        let fixed = [("sv", AZURE_VERSION), ("sr", "b"), ("sp", "r")].map(|(name, value)| (name, value.to_owned()));
        let [version, resource, rights] = fixed;
        Ok([version, resource, rights, ("se", ends), ("sig", signature)])
    }
}

fn bearer(token: &str) -> Result<HeaderMap> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| generic("the token is malformed".into()))?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Uploads {
    is_truncated: bool,
    next_key_marker: Option<String>,
    next_upload_id_marker: Option<String>,
    upload: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    key: String,
    upload_id: String,
}

#[derive(Deserialize)]
struct Copied {
    #[serde(rename = "ETag")]
    e_tag: String,
}

async fn signed(signer: &Arc<dyn Signer>, key: &Path, valid: Duration) -> Result<Address> {
    Ok(Address { url: signer.signed_url(Method::GET, key, valid).await?, headers: HeaderMap::new(), valid })
}

/// Sends a request without a body; what the store says is kept in an error, and where it was asked is not.
async fn send(http: &HttpClient, method: Method, url: &Url, headers: HeaderMap) -> Result<String> {
    let mut request = http::Request::new(HttpRequestBody::empty());
    *request.method_mut() = method;
    *request.uri_mut() = http::Uri::try_from(url.as_str()).map_err(|_| generic("the store's address is malformed".into()))?;
    *request.headers_mut() = headers;
    let answer = http.execute(request).await.map_err(|error| generic(error.into()))?;
    let status = answer.status();
    let (mut body, mut pieces) = (Vec::new(), answer.into_body().bytes_stream());
    while let Some(piece) = pieces.try_next().await.map_err(|error| generic(error.into()))? {
        if body.len() + piece.len() > MAX_ANSWER {
            return Err(generic("the answer is too long".into()));
        }
        body.extend_from_slice(&piece);
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let (path, source) = (String::new(), format!("{status}: {text}").into());
    match status {
        _ if status.is_success() => Ok(text),
        StatusCode::UNAUTHORIZED => Err(Error::Unauthenticated { path, source }),
        StatusCode::FORBIDDEN => Err(Error::PermissionDenied { path, source }),
        StatusCode::NOT_FOUND => Err(Error::NotFound { path, source }),
        StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => Err(Error::NotSupported { source }),
        _ => Err(generic(source)),
    }
}

fn parsed(url: &str) -> Result<Url> {
    Url::parse(url).map_err(|error| generic(error.into()))
}

fn unknown(what: &str) -> Error {
    Error::NotSupported { source: format!("the store has no {what}").into() }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Generic { store: "bucket", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_uploads_are_read_as_stores_write_them() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><KeyMarker/>
            <UploadIdMarker></UploadIdMarker><NextKeyMarker>a&amp;b</NextKeyMarker><NextUploadIdMarker>2</NextUploadIdMarker>
            <MaxUploads>2</MaxUploads><IsTruncated>true</IsTruncated>
            <Upload><Key>some/a&amp;b</Key><UploadId>1</UploadId><Initiator><ID>i</ID></Initiator><StorageClass>S</StorageClass></Upload>
            <Upload><Key>some/c</Key><UploadId>2</UploadId></Upload></ListMultipartUploadsResult>"#;
        let list: Uploads = quick_xml::de::from_str(text).unwrap();
        let found: Vec<_> = list.upload.iter().map(|upload| (upload.key.as_str(), upload.upload_id.as_str())).collect();
        assert_eq!(found, [("some/a&b", "1"), ("some/c", "2")]);
        assert_eq!((list.is_truncated, list.next_key_marker.as_deref()), (true, Some("a&b")));
        let none: Uploads =
            quick_xml::de::from_str("<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>").unwrap();
        assert!(none.upload.is_empty() && !none.is_truncated);
    }

    #[test]
    fn a_part_that_was_not_copied_after_all_has_no_tag() {
        let copied: Copied = quick_xml::de::from_str("<CopyPartResult><ETag>&quot;a&quot;</ETag></CopyPartResult>").unwrap();
        assert_eq!(copied.e_tag, "\"a\"");
        assert!(quick_xml::de::from_str::<Copied>("<Error><Code>InternalError</Code></Error>").is_err());
    }
}
