//! Questions to a registry, and what its refusals mean. The host adds the account; nothing here has seen one.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use substratus_plugin::{
    Failure,
    http::{Error, Http, Request, Response, get, header, no_answer},
};

use crate::{
    manifest::{Descriptor, Manifest},
    reference::{Reference, is_digest},
};

/// The manifest's name for an account at a registry.
const AUTH: &str = "registry";
/// Every kind of manifest that there is; what cannot be used is told apart from what is not there.
const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// Manifests of an index that a refusal names.
const SHOWN: usize = 5;

/// The manifest and its digest; an index is followed where it leads to one.
pub(crate) fn manifest(http: &dyn Http, place: &Reference) -> Result<(Manifest, String), Failure> {
    let (bytes, digest) = pinned(http, place)?;
    let found = Manifest::parse(&bytes).map_err(|why| unsupported(place, &why))?;
    let Some(entries) = found.manifests else { return Ok((found, digest)) };
    let [only] = entries.as_slice() else {
        let some: Vec<&str> = entries.iter().take(SHOWN).map(|entry| entry.digest.as_str()).collect();
        let why = format!(
            "it is an index of {} manifests; name the one of the model by its digest{}{}",
            entries.len(),
            if some.is_empty() { "" } else { ": " },
            some.join(", ")
        );
        return Err(unsupported(place, &why));
    };
    if !is_digest(&only.digest) {
        return Err(unsupported(place, "it is an index whose manifest has no sha256"));
    }
    let (bytes, digest) = pinned(http, &place.at(&only.digest))?;
    let inner = Manifest::parse(&bytes).map_err(|why| unsupported(place, &why))?;
    if inner.manifests.is_some() { Err(unsupported(place, "it is an index of an index")) } else { Ok((inner, digest)) }
}

/// A manifest's bytes, if they are the ones that were asked for.
fn pinned(http: &dyn Http, place: &Reference) -> Result<(Vec<u8>, String), Failure> {
    let response = ask(http, place, &format!("manifests/{}", place.wanted), ACCEPT)?;
    let digest = digest(&response.body);
    let said = header(&response, "docker-content-digest").filter(|said| is_digest(said));
    let expected = if is_digest(&place.wanted) { Some(place.wanted.as_str()) } else { said };
    match expected {
        Some(expected) if expected != digest => {
            let host = &place.host;
            Err(Failure::Unavailable(format!(
                "{host} answered with a manifest of digest {digest} where {expected} was announced"
            )))
        }
        _ => Ok((response.body, digest)),
    }
}

/// The config as JSON; nothing where it is not what it says, or cannot be had.
pub(crate) fn config(http: &dyn Http, place: &Reference, config: &Descriptor) -> Option<Value> {
    let response = ask(http, place, &format!("blobs/{}", config.digest), "application/json, */*").ok()?;
    if digest(&response.body) != config.digest {
        return None;
    }
    serde_json::from_slice(&response.body).ok()
}

fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing into a String cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// By https, or without where that is what was granted.
fn ask(http: &dyn Http, place: &Reference, path: &str, accept: &str) -> Result<Response, Failure> {
    let request = |scheme: &str| Request {
        headers: vec![("accept".into(), accept.into())],
        ..get(format!("{scheme}://{}/v2/{}/{path}", place.host, place.repository), Some(AUTH))
    };
    let doing = format!("asking for {}", place.shown());
    let response = match http.send(&request("https")) {
        Err(Error::Denied(why)) => match http.send(&request("http")) {
            // What is refused may be something on the way, such as where the registry gives tokens.
            Err(Error::Denied(other)) => {
                let same = other.starts_with(&format!("http://{} ", place.host));
                Err(Error::Denied(if same { why } else { other }))
            }
            other => other,
        },
        other => other,
    };
    let response = response.map_err(|error| no_answer(error, &doing))?;
    if response.status == 200 { Ok(response) } else { Err(refused(place, &response)) }
}

/// What an answer other than 200 means.
fn refused(place: &Reference, response: &Response) -> Failure {
    let (shown, host, repository) = (place.shown(), &place.host, &place.repository);
    match response.status {
        401 => Failure::NeedsAuth(format!(
            "{host} wants an account that may read {repository}: in a cluster `kubectl create secret docker-registry NAME \
             --docker-server={host} --docker-username=… --docker-password=…` and spec.imagePullSecrets: [{{name: NAME}}], by hand \
             `docker login {host}`"
        )),
        403 => Failure::Forbidden(format!("the account may not read {repository} at {host}: give it the right to pull")),
        404 => {
            Failure::NotFound(format!("{shown} does not exist: check repository and tag, and the account where it is private"))
        }
        429 => Failure::RateLimited(header(response, "retry-after").and_then(|seconds| seconds.trim().parse().ok())),
        408 | 425 | 500..=599 => Failure::Unavailable(format!("{host} answered {} to a question for {shown}", response.status)),
        status => Failure::Unsupported(format!("{host} answered {status} to a question for {shown}")),
    }
}

/// It is there, and nothing that can be loaded.
pub(crate) fn unsupported(place: &Reference, why: &str) -> Failure {
    Failure::Unsupported(format!("{} cannot be loaded: {why}", place.shown()))
}
