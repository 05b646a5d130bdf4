//! From the name of an image to a component in the store: resolve, verify, pull, each a step of its own. Knows nothing of who may
//! be trusted; policies are handed in.

use oci_client::Reference;
use sha2::{Digest as _, Sha256};

use super::registry::{self, Registry, Roots};
use super::signature::{SignaturePolicy, Signed};
use super::{Loaded, PlainHttp, PluginError, Plugins, Pulled, RegistryAuth};

/// What a tag or a digest names, before anything of it is pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `sha256:…` of the OCI manifest: what is signed, and what pins an image.
    pub manifest: String,
    /// `sha256:…` of the component's bytes, as the manifest has it.
    pub component: String,
}

impl Plugins {
    /// The same host that trusts these certificates, too, when it speaks to registries.
    #[must_use]
    pub fn trusting(&self, roots: Roots) -> Self {
        Self { roots, ..self.clone() }
    }

    /// A connection to the registry of an image; nothing is sent yet.
    pub(super) fn registry(&self, reference: &str, auth: RegistryAuth, plain: &PlainHttp) -> Result<Registry, PluginError> {
        Ok(Registry::trusting(registry::parse(reference)?, auth, plain, &self.roots)?)
    }

    /// Asks what a reference names. One by digest that is in the store already needs no registry.
    pub async fn resolve_image(&self, reference: &str, auth: RegistryAuth, plain: &PlainHttp) -> Result<Named, PluginError> {
        let artifact = if let Some(artifact) = self.kept_manifest(&registry::parse(reference)?)? {
            artifact
        } else {
            let registry = self.registry(reference, auth, plain)?;
            registry.within(registry.manifest()).await?
        };
        // What is verified next is what was looked at, also where the tag moves meanwhile.
        self.inner.cache.keep(&artifact.bytes)?;
        Ok(Named { manifest: artifact.digest, component: artifact.layer })
    }

    /// Pulls a plugin into the store. A reference by digest that is in the store already needs no registry.
    pub async fn pull(&self, reference: &str, auth: RegistryAuth, plain: &PlainHttp) -> Result<Pulled, PluginError> {
        let registry = self.registry(reference, auth, plain)?;
        let cache = &self.inner.cache;
        let artifact = match self.kept_manifest(&registry.reference)? {
            Some(artifact) => artifact,
            None => registry.within(registry.manifest()).await?,
        };
        let bytes = match cache.blob(&artifact.layer) {
            Ok(bytes) => bytes,
            Err(_) => registry.within(registry.layer(&artifact)).await?,
        };
        let loaded = self.add(&bytes)?;
        cache.keep(&artifact.bytes)?;
        Ok(pulled(&registry.reference, &artifact.digest, loaded))
    }

    /// An image that is named by its digest and was pulled before, from the store alone.
    pub fn kept(&self, reference: &str) -> Result<Option<Pulled>, PluginError> {
        let reference = registry::parse(reference)?;
        let Some(artifact) = self.kept_manifest(&reference)? else { return Ok(None) };
        let Ok(bytes) = self.inner.cache.blob(&artifact.layer) else { return Ok(None) };
        let loaded = self.add(&bytes)?;
        Ok(Some(pulled(&reference, &artifact.digest, loaded)))
    }

    fn kept_manifest(&self, reference: &Reference) -> Result<Option<registry::Artifact>, PluginError> {
        let Some(digest) = reference.digest() else { return Ok(None) };
        match self.inner.cache.blob(digest) {
            Ok(bytes) => Ok(Some(registry::read_manifest(reference, bytes, digest.to_owned())?)),
            Err(_) => Ok(None),
        }
    }

    /// What an earlier [`Plugins::verify`] of this image by this very policy said.
    pub fn known_signed(&self, manifest: &str, policy: &SignaturePolicy) -> Option<Signed> {
        serde_json::from_slice(&self.inner.cache.note(&note(manifest, policy))?).ok()
    }

    /// Keeps what [`Plugins::verify`] said, so that it is asked again only of another image or by another policy.
    pub fn keep_signed(&self, manifest: &str, policy: &SignaturePolicy, signed: &Signed) {
        if let Ok(text) = serde_json::to_vec(signed)
            && let Err(error) = self.inner.cache.keep_note(&note(manifest, policy), &text)
        {
            tracing::warn!(%error, "a verification cannot be kept; it is done again after a restart");
        }
    }
}

fn pulled(reference: &Reference, manifest: &str, loaded: Loaded) -> Pulled {
    Pulled {
        reference_with_digest: format!("{}/{}@{manifest}", reference.registry(), reference.repository()),
        digest: loaded.digest,
        manifest: loaded.manifest,
        size: loaded.size,
    }
}

/// The name of a note about an image and a policy.
fn note(manifest: &str, policy: &SignaturePolicy) -> String {
    let policy = serde_json::to_vec(policy).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(manifest.as_bytes());
    hash.update([0]);
    hash.update(&policy);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::super::PluginOptions;
    use super::*;

    #[test]
    fn a_verification_is_remembered_by_image_and_policy_and_only_as_we_wrote_it() {
        let cache = tempfile::tempdir().unwrap();
        let plugins = Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() }).unwrap();
        let policy = |key: &str| SignaturePolicy { keys: vec![key.to_owned()], minimum: 1 };
        let signed = Signed { by: vec!["sha256:aa".to_owned()] };
        plugins.keep_signed("sha256:11", &policy("a"), &signed);
        assert_eq!(plugins.known_signed("sha256:11", &policy("a")), Some(signed.clone()));
        assert_eq!(plugins.known_signed("sha256:11", &policy("b")), None, "another policy");
        assert_eq!(plugins.known_signed("sha256:22", &policy("a")), None, "another image");

        let notes: Vec<_> = std::fs::read_dir(cache.path().join("notes")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let other = cache.path().join("notes").join(note("sha256:22", &policy("a")));
        std::fs::copy(&notes[0], &other).unwrap();
        assert_eq!(plugins.known_signed("sha256:22", &policy("a")), None, "a note under another name");
        let mut bytes = std::fs::read(&notes[0]).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&notes[0], bytes).unwrap();
        assert_eq!(plugins.known_signed("sha256:11", &policy("a")), None, "a note that somebody changed");
    }
}
