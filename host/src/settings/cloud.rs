//! What follows from where the cluster runs: bucket, registry and identity. Knows the names that the first operator gave
//! them, and nothing of how a bucket is read.

use std::fmt;

use super::{OperatorSettings, SettingsError, given, invalid};

const SCHEMES: [&str; 6] = ["tar", "file", "pvc", "gs", "s3", "az"];

/// Base URL of all artifacts, printed as `status.artifacts.url` begins: without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket(String);

impl Bucket {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks the scheme and brings the address into the one form whose hashes and paths older installations have.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        const FLAG: &str = "artifact-bucket-url";
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| invalid(FLAG, text, "write scheme://bucket, such as gs://my-artifacts"))?;
        if !SCHEMES.contains(&scheme) {
            return Err(invalid(FLAG, text, "the scheme must be one of tar, file, pvc, gs, s3 and az"));
        }
        let rest = rest.trim_end_matches('/');
        if rest.trim_start_matches('/').is_empty() {
            return Err(invalid(FLAG, text, "name a bucket or a folder; the root of a node cannot be one"));
        }
        if rest.split('/').any(|part| part == "..") || rest.contains(['?', '#']) {
            return Err(invalid(FLAG, text, "a bucket has no '..', '?' or '#'"));
        }
        if matches!(scheme, "tar" | "file") && !rest.starts_with('/') {
            return Err(invalid(FLAG, text, "the folder of a node must be absolute: tar:///bucket"));
        }
        // The first operator printed an empty bucket name and an absolute path: four slashes, whoever typed how many.
        let rest = if scheme == "tar" { format!("//{}", rest.trim_start_matches('/')) } else { rest.to_owned() };
        Ok(Self(format!("{scheme}://{rest}")))
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the cloud decides where nothing was said.
pub(super) struct Defaults {
    pub(super) bucket: Bucket,
    pub(super) registry: Option<String>,
    pub(super) principal: Option<String>,
}

pub(super) fn defaults(settings: &OperatorSettings) -> Result<Defaults, SettingsError> {
    let project = given(settings.project_id.clone());
    let gcp = (settings.cloud == "gcp").then_some(project.as_deref()).flatten();
    let bucket = given(settings.artifact_bucket_url.clone())
        .or_else(|| gcp.map(|project| format!("gs://{project}-substratus-artifacts")))
        .or_else(|| matches!(settings.cloud.as_str(), "local" | "kind").then(|| "tar:////bucket".to_owned()))
        .ok_or(SettingsError::Missing {
            flag: "artifact-bucket-url",
            env: "ARTIFACT_BUCKET_URL",
            hint: "this cloud has no default bucket: write gs://… or s3://…, or on gcp set PROJECT_ID",
        })?;
    let registry = given(settings.registry_url.clone())
        .map(|registry| registry.trim_end_matches('/').to_owned())
        .or_else(|| Some(format!("{}-docker.pkg.dev/{}/substratus", region(settings)?, gcp?)));
    let principal =
        given(settings.principal.clone()).or_else(|| gcp.map(|project| format!("substratus@{project}.iam.gserviceaccount.com")));
    Ok(Defaults { bucket: Bucket::parse(&bucket)?, registry, principal })
}

/// `us-central1` of both `us-central1` and `us-central1-a`.
fn region(settings: &OperatorSettings) -> Option<String> {
    let location = given(settings.cluster_location.clone())?;
    let mut parts = location.splitn(3, '-');
    Some(format!("{}-{}", parts.next()?, parts.next()?))
}
