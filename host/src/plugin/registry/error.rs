//! Why a registry did not give a component. Knows nothing of how it was asked.

/// Why a registry did not give a component.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The text is no image reference.
    #[error("`{reference}` is no image reference: {reason}")]
    Reference {
        /// As written.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// No such repository, tag or digest.
    #[error("{reference} does not exist in its registry; check the name, and the pull secret if it is private")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// The registry wants other credentials.
    #[error("the registry refuses access to {reference}; check the pull secret ({reason})")]
    Auth {
        /// What was asked for.
        reference: String,
        /// What it says.
        reason: String,
    },
    /// No answer, or one that means "later".
    #[error("the registry of {reference} is unavailable: {reason}")]
    Unavailable {
        /// What was asked for.
        reference: String,
        /// What happened.
        reason: String,
    },
    /// More bytes than we take.
    #[error("{what} of {reference} has {size} bytes, and at most {max} are taken")]
    TooLarge {
        /// What was asked for.
        reference: String,
        /// Manifest or component.
        what: &'static str,
        /// Announced or received so far.
        size: u64,
        /// The most we take.
        max: u64,
    },
    /// Other bytes than announced.
    #[error("{what} of {reference} has digest {actual} where {expected} was announced; it is not used")]
    DigestMismatch {
        /// What was asked for.
        reference: String,
        /// Manifest or component.
        what: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// A list or a name that is none.
    #[error("{what} of {reference} cannot be used: {reason}")]
    Malformed {
        /// What was asked for.
        reference: String,
        /// What the registry gave.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An image of something else.
    #[error("{reference} is no plugin: {reason}; push it with `substratus plugin push`")]
    NotAPlugin {
        /// What was asked for.
        reference: String,
        /// What it is instead.
        reason: String,
    },
}

impl RegistryError {
    /// A short fixed word.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Reference { .. } => "registry-reference",
            Self::NotFound { .. } => "registry-not-found",
            Self::Auth { .. } => "registry-auth",
            Self::Unavailable { .. } => "registry-unavailable",
            Self::TooLarge { .. } => "registry-too-large",
            Self::DigestMismatch { .. } => "registry-digest-mismatch",
            Self::Malformed { .. } => "registry-malformed",
            Self::NotAPlugin { .. } => "registry-not-a-plugin",
        }
    }

    /// Whether asking again later may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
