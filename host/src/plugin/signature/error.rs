//! Why a plugin does not count as signed. Knows nothing of how that was found out.

/// Why a plugin does not count as signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The policy itself cannot be held to.
    #[error("the signature policy cannot be used: {reason}")]
    Policy {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// Signatures are about digests.
    #[error("{reference} names no sha256 digest, and a signature is about one; write …@sha256:…")]
    NoDigest {
        /// As asked for.
        reference: String,
    },
    /// Nobody signed.
    #[error(
        "{reference} is not signed: neither a Sigstore bundle nor the tag {tag} is attached to it; sign it with `cosign sign --key`"
    )]
    Unsigned {
        /// What was to be verified.
        reference: String,
        /// The tag of the older form.
        tag: String,
    },
    /// Somebody signed, and not who must.
    #[error("{reference} is not signed as it must be: {missing} found; {found}")]
    Untrusted {
        /// What was to be verified.
        reference: String,
        /// Whose signature was looked for.
        missing: String,
        /// What there was instead.
        found: String,
    },
}

impl SignatureError {
    /// A short fixed word.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "signature-policy",
            Self::NoDigest { .. } => "signature-no-digest",
            Self::Unsigned { .. } => "signature-missing",
            Self::Untrusted { .. } => "signature-untrusted",
        }
    }
}
