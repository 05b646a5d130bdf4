//! What `spec.source` names: a registry, a repository, and a tag or a digest. Pure; no registry is asked here.

use substratus_plugin::{Failure, invalid, loader::Request};

/// Where Docker Hub answers.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// Longest name of a repository, as the specification has it.
const MAX_NAME: usize = 255;

/// A place in a registry.
#[derive(Debug, PartialEq)]
pub(crate) struct Reference {
    /// Host and port of the API.
    pub(crate) host: String,
    pub(crate) repository: String,
    /// A tag, or `sha256:…`.
    pub(crate) wanted: String,
}

impl Reference {
    /// Reads `spec.source`; a revision that an earlier answer gave takes the place of what is written.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let source = request.source.as_deref().unwrap_or_default();
        let wrong = |why: &str| {
            invalid("spec.source", format!("is {source:?}: {why}; write oci://registry.example/team/model:tag or …@sha256:…"))
        };
        let rest = source.strip_prefix("oci://").ok_or_else(|| wrong("does not start with oci://"))?;
        let (host, rest) = rest.split_once('/').ok_or_else(|| wrong("names no repository"))?;
        if host.contains('@') {
            return Err(wrong("holds a credential; name a Secret in spec.imagePullSecrets"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(fits) || !(host.contains(['.', ':']) || host == "localhost") {
            return Err(wrong("does not begin with a registry's host"));
        }
        let (rest, digest) = rest.split_once('@').map_or((rest, None), |(rest, digest)| (rest, Some(digest)));
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_repository(repository) {
            return Err(wrong("has a repository with something other than lower-case letters, digits and '._-/'"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("has no valid tag"));
        }
        if digest.is_some_and(|digest| !is_digest(digest)) {
            return Err(wrong("has a digest that is no sha256 in hexadecimal"));
        }
        let is_hub = matches!(host, "docker.io" | "index.docker.io");
        let repository =
            if is_hub && !repository.contains('/') { format!("library/{repository}") } else { repository.to_owned() };
        let wanted = request.revision.as_deref().or(digest).or(tag).unwrap_or("latest");
        let host = if is_hub { DOCKER_HUB } else { host };
        Ok(Self { host: host.to_owned(), repository, wanted: wanted.to_owned() })
    }

    /// The same place, by a digest.
    pub(crate) fn at(&self, digest: &str) -> Self {
        Self { host: self.host.clone(), repository: self.repository.clone(), wanted: digest.to_owned() }
    }

    /// For people.
    pub(crate) fn shown(&self) -> String {
        let sign = if is_digest(&self.wanted) { '@' } else { ':' };
        format!("oci://{}/{}{sign}{}", self.host, self.repository, self.wanted)
    }
}

fn is_repository(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    let part = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(part.chars().next()) && edge(part.chars().last()) && part.chars().all(fits)
    };
    text.len() <= MAX_NAME && text.split('/').all(part)
}

fn is_tag(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=128).contains(&text.len()) && text.chars().all(fits) && !text.starts_with(['.', '-'])
}

/// Whether it is the digest that blobs and manifests are asked for by.
pub(crate) fn is_digest(text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    text.strip_prefix("sha256:").is_some_and(|text| text.len() == 64 && text.chars().all(hex))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use substratus_plugin::testing;

    use super::*;

    fn of(source: &str) -> Result<Reference, Failure> {
        Reference::of(&testing::request("Model", json!({ "source": source })))
    }

    fn shown(source: &str) -> String {
        of(source).unwrap().shown()
    }

    #[test]
    fn sources_are_read() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(shown("oci://ghcr.io/team/model:v1"), "oci://ghcr.io/team/model:v1");
        assert_eq!(shown("oci://registry.example:5000/m"), "oci://registry.example:5000/m:latest");
        assert_eq!(shown(&format!("oci://ghcr.io/a/b:v1@{digest}")), format!("oci://ghcr.io/a/b@{digest}"));
        assert_eq!(shown("oci://docker.io/ai/smollm2"), "oci://registry-1.docker.io/ai/smollm2:latest");
        assert_eq!(shown("oci://docker.io/x:1"), "oci://registry-1.docker.io/library/x:1");
        let pinned = Reference::of(&testing::request("Model", json!({"source": "oci://ghcr.io/a/b:v1", "revision": digest})));
        assert_eq!(pinned.unwrap().wanted, digest);
    }

    #[test]
    fn mistakes_name_the_field() {
        for source in [
            "",
            "hf://a/b",
            "oci://ghcr.io",
            "oci://team/model",
            "oci:///x",
            "oci://u:p@ghcr.io/a",
            "oci://ghcr.io/../a",
            "oci://ghcr.io/a//b",
            "oci://ghcr.io/A",
            "oci://ghcr.io/a?b=c",
            "oci://ghcr.io/a%2e%2e/b",
            "oci://ghcr.io/a:",
            "oci://ghcr.io/a:.x",
            "oci://ghcr.io/a@sha256:00",
            "oci://gh cr.io/a",
        ] {
            assert!(matches!(of(source), Err(Failure::Invalid(problems)) if problems[0].field == "spec.source"), "{source}");
        }
    }
}
