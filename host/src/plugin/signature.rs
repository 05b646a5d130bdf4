//! Who signed an image. Knows nothing of who has to have signed it: that is the policy's, which is handed in.

use serde::{Deserialize, Serialize};

use super::{PlainHttp, PluginError, Plugins, RegistryAuth};

/// Who must have signed an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignaturePolicy {
    /// Public keys in PEM format.
    pub keys: Vec<String>,
    /// How many of them at least, each counted once.
    pub minimum: usize,
}

/// Who signed an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `sha256:…` of every key of the policy that did.
    pub by: Vec<String>,
}

impl Plugins {
    /// Looks for the signatures of an image, which is named by its digest, and holds them against the policy.
    pub async fn verify(
        &self,
        reference_with_digest: &str,
        auth: RegistryAuth,
        plain: &PlainHttp,
        policy: &SignaturePolicy,
    ) -> Result<Signed, PluginError> {
        // What is not there has no signatures either.
        self.resolve_image(reference_with_digest, auth, plain).await?;
        let reason = format!(
            "this version cannot verify signatures, and {} of {} keys must have signed it",
            policy.minimum,
            policy.keys.len()
        );
        Err(PluginError::Signature { reference: super::text::clip(reference_with_digest, 300), reason })
    }
}
