//! What is attached to a manifest: listed by the registry's referrers API, or by the tag that clients keep where a registry has
//! none. Knows nothing of what attachments mean.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Deserialize;

use super::{MANIFEST, Registry, RegistryError};
use crate::limits;
use crate::plugin::cache::{digest_of, is_sha256};

/// The media type of an OCI index.
pub(in crate::plugin) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What registries without the referrers API answer to it.
const NO_API: [StatusCode; 5] = [
    StatusCode::BAD_REQUEST,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_ACCEPTABLE,
    StatusCode::NOT_IMPLEMENTED,
];

/// How an index or a manifest names something else.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(in crate::plugin) struct Descriptor {
    pub(in crate::plugin) media_type: String,
    pub(in crate::plugin) digest: String,
    /// Bytes.
    pub(in crate::plugin) size: u64,
    #[serde(default)]
    pub(in crate::plugin) annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

impl Registry {
    /// What the referrers API lists for a digest; nothing where the registry has no such API. At most `max` entries: whatever
    /// comes behind them is not asked for.
    pub(in crate::plugin) async fn referrers(&self, digest: &str, max: usize) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        const WHAT: &str = "the list of attachments";
        let mut path = format!("referrers/{digest}");
        let mut found = Vec::new();
        // A page has at least one entry, or it is the last one.
        for _ in 0..max {
            let response = self.ask(&path, INDEX).await?;
            let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let is_index = kind.split(';').next().is_some_and(|kind| kind.trim() == INDEX);
            // Some registries answer every path with a page for people.
            if NO_API.contains(&response.status()) || (response.status().is_success() && !is_index) {
                return Ok(None);
            }
            self.check_status(response.status())?;
            let next = response.headers().get("link").and_then(|link| link.to_str().ok()).and_then(next_query).map(str::to_owned);
            let page = self.entries(&self.body(WHAT, response, limits::OCI_MANIFEST_BYTES as u64).await?)?;
            let is_empty = page.is_empty();
            found.extend(page);
            match next {
                Some(query) if !is_empty && found.len() < max => path = format!("referrers/{digest}?{query}"),
                _ => break,
            }
        }
        found.truncate(max);
        Ok(Some(found))
    }

    /// What the fallback tag of a digest lists, and the index's bytes; nothing where there is no such tag.
    pub(in crate::plugin) async fn fallback(&self, digest: &str) -> Result<Option<(Vec<Descriptor>, Vec<u8>)>, RegistryError> {
        let bytes = self.tagged("the index of attachments", &digest.replacen(':', "-", 1), INDEX).await?;
        bytes.map(|bytes| Ok((self.entries(&bytes)?, bytes))).transpose()
    }

    /// A manifest by tag, as it is; nothing where there is no such tag.
    pub(in crate::plugin) async fn tagged(
        &self,
        what: &'static str,
        tag: &str,
        media_type: &str,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let response = self.ask(&format!("manifests/{tag}"), media_type).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.check_status(response.status())?;
        self.body(what, response, limits::OCI_MANIFEST_BYTES as u64).await.map(Some)
    }

    /// The manifest that an entry announces: no byte more, and hashed.
    pub(in crate::plugin) async fn manifest_of(&self, what: &'static str, entry: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        self.announced(what, "manifests", entry, limits::OCI_MANIFEST_BYTES as u64).await
    }

    /// The blob that an entry announces: no byte more, and hashed.
    pub(in crate::plugin) async fn blob_of(
        &self,
        what: &'static str,
        entry: &Descriptor,
        max: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        self.announced(what, "blobs", entry, max).await
    }

    async fn announced(&self, what: &'static str, kind: &str, entry: &Descriptor, max: u64) -> Result<Vec<u8>, RegistryError> {
        // It becomes part of a URL.
        if !entry.digest.strip_prefix("sha256:").is_some_and(is_sha256) {
            return Err(self.malformed(what, "its digest is no SHA-256".to_owned()));
        }
        if entry.size > max {
            return Err(self.too_large(what, entry.size, max));
        }
        let accept = if entry.media_type == INDEX { INDEX } else { MANIFEST };
        let response = self.ask(&format!("{kind}/{}", entry.digest), accept).await?;
        self.check_status(response.status())?;
        let bytes = self.body(what, response, entry.size).await?;
        self.expect(what, &entry.digest, &digest_of(&bytes))?;
        Ok(bytes)
    }

    fn entries(&self, bytes: &[u8]) -> Result<Vec<Descriptor>, RegistryError> {
        let index: Index = serde_json::from_slice(bytes)
            .map_err(|error| self.malformed("the list of attachments", format!("it is no OCI index ({error})")))?;
        Ok(index.manifests)
    }

    fn malformed(&self, what: &'static str, reason: String) -> RegistryError {
        RegistryError::Malformed { reference: self.reference.whole(), what, reason }
    }
}

/// The query of a `Link` header's next page. Only that: whose server and which path it is stays our decision.
fn next_query(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
    let (_, query) = target.split_once('?')?;
    (is_next && query.len() <= 1024 && query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_a_query_and_never_another_address() {
        assert_eq!(next_query("</v2/a/referrers/b?n=1&last=c>; rel=\"next\""), Some("n=1&last=c"));
        assert_eq!(next_query("<http://169.254.169.254/latest?n=1>; rel=next"), Some("n=1"));
        for bad in [
            "</v2/a>; rel=\"next\"",
            "</v2/a?n=1>",
            "</v2/a?n=1>; rel=\"prev\"",
            "</v2/a?n=1#x>; rel=next",
            "",
            "<?a b>; rel=next",
        ] {
            assert_eq!(next_query(bad), None, "{bad}");
        }
    }
}
