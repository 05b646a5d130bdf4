//! Bucket URLs and the hashes that name artifacts, spelled as existing buckets have them. Pure: opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Folder of a bucket URL that holds the files of an artifact.
pub const ARTIFACTS: &str = "artifacts";
/// Folder beside [`ARTIFACTS`] that holds our own records.
pub const RECORDS: &str = ".substratus";

/// A place in a bucket: `scheme://bucket/path`.
///
/// Printing puts one slash between bucket and path and parsing takes exactly one away. A node path therefore shows four
/// slashes where its path is absolute (`tar:////bucket/93ea…`), and round-trips.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketUrl {
    scheme: Scheme,
    bucket: String,
    path: String,
}

/// What a bucket is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// A folder of the machine.
    File,
    /// A folder of the node: the embedded default.
    Tar,
    /// Google Cloud Storage.
    Gs,
    /// S3 and what speaks like it.
    S3,
    /// Azure Blob Storage.
    Az,
    /// A `PersistentVolumeClaim`: the bucket is the claim's name.
    Pvc,
}

impl Scheme {
    const ALL: [Self; 6] = [Self::File, Self::Tar, Self::Gs, Self::S3, Self::Az, Self::Pvc];

    /// As written in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Tar => "tar",
            Self::Gs => "gs",
            Self::S3 => "s3",
            Self::Az => "az",
            Self::Pvc => "pvc",
        }
    }

    /// It is asked over a network, object by object.
    pub const fn is_object(self) -> bool {
        matches!(self, Self::Gs | Self::S3 | Self::Az)
    }

    const fn is_local(self) -> bool {
        matches!(self, Self::File | Self::Tar)
    }
}

/// Why a text is no bucket URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BucketUrlError {
    /// There is no `://`, or the scheme is unknown.
    #[error("bucket URL `{0}` has no known scheme; use one of tar://, file://, gs://, s3://, az://, pvc://")]
    Scheme(String),
    /// The scheme needs a bucket, and the URL names none.
    #[error("bucket URL `{0}` names no bucket; write {1}://BUCKET/PATH")]
    NoBucket(String, &'static str),
    /// A node path with something where the bucket would be.
    #[error("bucket URL `{0}` names a host where only a path can be; write {1}:///PATH")]
    NotAPath(String, &'static str),
    /// `.` or `..`, a query, a fragment or a control character.
    #[error("bucket URL `{0}` holds `{1}`, which no bucket path may have")]
    Unsafe(String, String),
}

impl BucketUrl {
    /// The URL of an absolute folder of this machine.
    pub fn of_folder(folder: &std::path::Path) -> Result<Self, BucketUrlError> {
        format!("file:///{}", folder.display()).parse()
    }

    /// What it is kept in.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Name of the bucket, container or claim; empty for a node path.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Path in the bucket, without the slash that parts it from the bucket.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The place `segment` below this one.
    #[must_use]
    pub fn join(&self, segment: &str) -> Self {
        let segment = segment.trim_matches('/');
        let path = match self.path.trim_end_matches('/') {
            // An absolute node path that is the root itself.
            "" if self.path.starts_with('/') => format!("/{segment}"),
            "" => segment.to_owned(),
            base => format!("{base}/{segment}"),
        };
        Self { scheme: self.scheme, bucket: self.bucket.clone(), path }
    }

    /// The folder this is on a node; `None` where it is no node path.
    pub fn local_path(&self) -> Option<PathBuf> {
        // `tar:///bucket` says `bucket`, `tar:////bucket` says `/bucket`: both mean the folder `/bucket`.
        self.scheme.is_local().then(|| PathBuf::from(format!("/{}", self.path.trim_start_matches('/'))))
    }
}

impl FromStr for BucketUrl {
    type Err = BucketUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| BucketUrlError::Scheme(text.to_owned()))?;
        let scheme = Scheme::ALL
            .into_iter()
            .find(|known| known.as_str() == scheme)
            .ok_or_else(|| BucketUrlError::Scheme(text.to_owned()))?;
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if scheme.is_local() && !bucket.is_empty() {
            return Err(BucketUrlError::NotAPath(text.to_owned(), scheme.as_str()));
        }
        if !scheme.is_local() && bucket.is_empty() {
            return Err(BucketUrlError::NoBucket(text.to_owned(), scheme.as_str()));
        }
        refuse_unsafe(text, bucket, path)?;
        Ok(Self { scheme, bucket: bucket.to_owned(), path: path.to_owned() })
    }
}

fn refuse_unsafe(text: &str, bucket: &str, path: &str) -> Result<(), BucketUrlError> {
    let unsafe_ = |what: &str| BucketUrlError::Unsafe(text.to_owned(), what.to_owned());
    if let Some(bad) = text.chars().find(|c| c.is_control() || matches!(c, '?' | '#' | '\\')) {
        return Err(unsafe_(&bad.escape_default().to_string()));
    }
    if let Some(bad) = bucket.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        return Err(unsafe_(&bad.to_string()));
    }
    path.split('/').find(|segment| matches!(*segment, "." | "..")).map_or(Ok(()), |segment| Err(unsafe_(segment)))
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme.as_str(), self.bucket, self.path)
    }
}

impl TryFrom<String> for BucketUrl {
    type Error = BucketUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BucketUrl> for String {
    fn from(url: BucketUrl) -> Self {
        url.to_string()
    }
}

/// Name of an object's folder in the bucket: the same object of a cluster of the same name finds it again.
pub fn artifact_hash(cluster: &str, namespace: &str, kind: &str, name: &str) -> String {
    let kind = kind.to_lowercase();
    hex::encode(Md5::digest(format!("clusters/{cluster}/namespaces/{namespace}/{kind}s/{name}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> BucketUrl {
        text.parse().unwrap()
    }

    #[test]
    fn hashes_are_those_of_existing_buckets() {
        assert_eq!(artifact_hash("my-cluster", "my-ns", "Model", "my-model"), "93ea94b18012ca14d84e1468d65e8709");
        assert_eq!(artifact_hash("substratus-1", "team-a", "Model", "falcon-7b"), "f94a0d128bcbd9c1b824e9e5572baf86");
    }

    #[test]
    fn an_absolute_node_path_shows_four_slashes_and_round_trips() {
        let base = url("tar:////bucket");
        assert_eq!(base.path(), "/bucket");
        let joined = base.join("93ea94b18012ca14d84e1468d65e8709");
        assert_eq!(joined.to_string(), "tar:////bucket/93ea94b18012ca14d84e1468d65e8709");
        assert_eq!(url(&joined.to_string()), joined);
        assert_eq!(joined.local_path().unwrap(), PathBuf::from("/bucket/93ea94b18012ca14d84e1468d65e8709"));
        assert_eq!(url("tar:///bucket").local_path().unwrap(), PathBuf::from("/bucket"));
        assert_eq!(BucketUrl::of_folder(std::path::Path::new("/tmp/x")).unwrap().to_string(), "file:////tmp/x");
    }

    #[test]
    fn object_stores_and_claims_have_a_bucket_and_no_local_path() {
        for (text, bucket, path) in [
            ("gs://proj-artifacts/93ea", "proj-artifacts", "93ea"),
            ("s3://b/a/b", "b", "a/b"),
            ("az://container", "container", ""),
            ("pvc://claim/path/in", "claim", "path/in"),
        ] {
            let parsed = url(text);
            assert_eq!((parsed.bucket(), parsed.path(), parsed.local_path()), (bucket, path, None), "{text}");
            assert_eq!(url(&parsed.to_string()), parsed);
        }
        assert_eq!(url("gs://b").join("h").join("artifacts").to_string(), "gs://b/h/artifacts");
    }

    #[test]
    fn what_is_no_bucket_url_is_refused() {
        for text in
            ["", "bucket", "ftp://b/p", "gs:///p", "tar://host/p", "s3://b/../c", "file:///a/./b", "gs://b/p?x", "gs://u@b/p"]
        {
            assert!(text.parse::<BucketUrl>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_back(text in "(tar|file|gs|s3|az|pvc)://[a-z./?~ ]{0,24}") {
            if let Ok(parsed) = text.parse::<BucketUrl>() {
                prop_assert_eq!(parsed.to_string().parse::<BucketUrl>().unwrap(), parsed.clone());
                if let Some(path) = parsed.local_path() {
                    prop_assert!(path.is_absolute() && !path.components().any(|c| c == std::path::Component::ParentDir));
                }
            }
        }
    }
}
