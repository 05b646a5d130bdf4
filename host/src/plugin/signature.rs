//! Who signed a plugin: gathers what is attached to its OCI manifest and holds it to an administrator's keys. Refuses what is not
//! proved. Knows nothing of what plugins are, nor of who sets the policy.
//!
//! Two forms are read, the ones that `cosign` writes: a Sigstore bundle per signature, found by the referrers API or its fallback
//! tag ([`bundle`]), and the older tag `sha256-<hex>.sig` ([`legacy`]). What both come to is the same: bytes that name the digest,
//! and an ECDSA signature of them.
//!
//! We check that ourselves. With a public key a bundle is a DSSE envelope and nothing else, while `sigstore-verify` brings what
//! certificates, transparency logs and time stamps need: some fifteen crates (X.509, CMS, Merkle trees, a second const-oid), of which a
//! key uses none. It will be worth them once identities count. The signature itself is checked by aws-lc, which `sigstore-verify`
//! would use, too, and which every TLS connection of ours already rests on.

mod bundle;
mod error;
mod key;
mod legacy;
mod tally;

use serde::{Deserialize, Serialize};

pub use self::error::SignatureError;
use self::key::Keys;
pub(super) use self::legacy::tag;
use self::tally::Tally;
use super::cache::is_sha256;
use super::registry::{self, Descriptor, Registry};
use super::{PlainHttp, PluginError, Plugins, RegistryAuth, RegistryError};
use crate::limits;

/// Who must have signed.
///
/// Identities of people and of build systems (keyless signatures) will stand beside `keys`; a bundle by one is refused until then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignaturePolicy {
    /// Public keys as PEM, ECDSA P-256: what `cosign generate-key-pair` writes to `cosign.pub`.
    pub keys: Vec<String>,
    /// How many different ones of them must have signed; at least one.
    pub minimum: usize,
}

/// What was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `sha256:<hex of DER SPKI>` of every key of the policy that signed, sorted.
    pub by: Vec<String>,
}

/// What one attachment says: the bytes that were signed, and the signature. That they speak of our digest is checked already.
#[derive(Debug, PartialEq, Eq)]
struct Statement {
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// An OCI manifest, as far as signatures need it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    artifact_type: Option<String>,
    subject: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

impl Plugins {
    /// Whether enough keys of the policy signed the manifest that `reference_with_digest` names. What was proved once is not
    /// asked for again.
    pub async fn verify(
        &self,
        reference_with_digest: &str,
        auth: RegistryAuth,
        plain: &PlainHttp,
        policy: &SignaturePolicy,
    ) -> Result<Signed, PluginError> {
        let keys = Keys::of(policy)?;
        let registry = self.registry(reference_with_digest, auth, plain)?;
        let digest = subject(&registry)?;
        if let Some(signed) = self.known_signed(&digest, policy) {
            return Ok(signed);
        }
        let signed = check(&registry, &digest, &keys).await?;
        self.keep_signed(&digest, policy, &signed);
        Ok(signed)
    }
}

/// [`Plugins::verify`] for who has no plugin host, and perhaps a tag alone. Gives the reference by digest, too.
pub(super) async fn verify(
    reference: &str,
    auth: RegistryAuth,
    plain: &PlainHttp,
    policy: &SignaturePolicy,
) -> Result<(String, Signed), PluginError> {
    let keys = Keys::of(policy)?;
    let registry = Registry::new(registry::parse(reference)?, auth, plain)?;
    let digest = match registry.reference.digest() {
        Some(_) => subject(&registry)?,
        None => registry.within(registry.manifest()).await?.digest,
    };
    let signed = check(&registry, &digest, &keys).await?;
    let name = &registry.reference;
    Ok((format!("{}/{}@{digest}", name.registry(), name.repository()), signed))
}

/// The digest that signatures must speak of.
fn subject(registry: &Registry) -> Result<String, SignatureError> {
    let digest = registry.reference.digest().filter(|digest| digest.strip_prefix("sha256:").is_some_and(is_sha256));
    digest.map(str::to_owned).ok_or_else(|| SignatureError::NoDigest { reference: registry.reference.whole() })
}

async fn check(registry: &Registry, digest: &str, keys: &Keys) -> Result<Signed, PluginError> {
    let mut tally = Tally::new(keys);
    let looked = registry.within(look(registry, digest, &mut tally)).await;
    // Enough signatures are enough, whatever happened to the rest.
    if let Some(signed) = tally.verdict() {
        return Ok(signed);
    }
    looked?;
    Err(tally.refusal(&registry.reference.whole(), digest).into())
}

/// Counts every signature that can be found. Fails only where the registry does.
async fn look(registry: &Registry, digest: &str, tally: &mut Tally<'_>) -> Result<(), RegistryError> {
    let attached = match registry.referrers(digest, limits::SIGNATURE_ATTACHMENTS + 1).await? {
        Some(attached) => attached,
        None => registry.fallback(digest).await?.map_or_else(Vec::new, |(attached, _)| attached),
    };
    for entry in tally.bounded(attached) {
        let read = bundle_of(registry, digest, &entry).await;
        tally.count(read)?;
    }
    let tag = tag(digest);
    let Some(bytes) = registry.tagged(legacy::WHAT, &tag, registry::MANIFEST).await? else { return Ok(()) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
        tally.refuse(&format!("tag {tag} is no manifest of an image"));
        return Ok(());
    };
    for layer in tally.bounded(manifest.layers) {
        let read = legacy_of(registry, digest, &layer).await;
        tally.count(read)?;
    }
    Ok(())
}

/// What came of an attachment: a signature, something that is none of our business, or why it proves nothing.
#[derive(Debug)]
enum Read {
    Statement(Statement),
    Other,
    Refused(String),
    Registry(RegistryError),
}

impl From<RegistryError> for Read {
    fn from(error: RegistryError) -> Self {
        match error {
            // The registry works; what it has is no good.
            RegistryError::NotFound { .. } => Self::Refused("an attachment is listed and not there".to_owned()),
            error @ (RegistryError::TooLarge { .. } | RegistryError::DigestMismatch { .. } | RegistryError::Malformed { .. }) => {
                Self::Refused(error.to_string())
            }
            error => Self::Registry(error),
        }
    }
}

impl From<Result<Statement, String>> for Read {
    fn from(result: Result<Statement, String>) -> Self {
        result.map_or_else(Self::Refused, Self::Statement)
    }
}

/// An attachment of the new form. Its own manifest says what it is: what a list says of it may be wrong.
async fn bundle_of(registry: &Registry, digest: &str, entry: &Descriptor) -> Read {
    let bytes = match registry.manifest_of("the manifest of an attachment", entry).await {
        Ok(bytes) => bytes,
        Err(error) => return error.into(),
    };
    let manifest: Manifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        // An index, or something from the future.
        Err(_) => return Read::Other,
    };
    if manifest.artifact_type.as_deref() != Some(bundle::MEDIA_TYPE) {
        return Read::Other;
    }
    if manifest.subject.is_none_or(|subject| subject.digest != digest) {
        return Read::Refused("a bundle is attached to another manifest".to_owned());
    }
    let [layer] = manifest.layers.as_slice() else {
        return Read::Refused(format!("a bundle has {} layers instead of one", manifest.layers.len()));
    };
    if layer.media_type != bundle::MEDIA_TYPE {
        return Read::Refused("the layer of a bundle has another media type".to_owned());
    }
    match registry.blob_of("a signature bundle", layer, limits::SIGNATURE_BYTES).await {
        Ok(bytes) => bundle::read(&bytes, digest).into(),
        Err(error) => error.into(),
    }
}

/// A layer of the old form.
async fn legacy_of(registry: &Registry, digest: &str, layer: &Descriptor) -> Read {
    if layer.media_type != legacy::MEDIA_TYPE {
        return Read::Other;
    }
    match registry.blob_of("a signature's payload", layer, limits::SIGNATURE_BYTES).await {
        Ok(payload) => legacy::read(payload, layer.annotations.as_ref(), digest).into(),
        Err(error) => error.into(),
    }
}
