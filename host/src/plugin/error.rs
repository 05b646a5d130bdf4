//! Why a question got no answer, and who is to blame. Knows nothing about conditions: others turn a category into a reason.

use std::fmt::Write;

use substratus_crds::PluginRole;

use super::registry::RegistryError;
use super::signature::SignatureError;
use super::types::{Failure, Problem};

/// Whose mistake it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The plugin's, or the user's as the plugin says.
    Guest,
    /// Ours, or that of what we stand on: disk, registry, load.
    Host,
}

/// Why a question to a plugin got no answer.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The plugin's own, typed answer.
    #[error("{}", describe(.0))]
    Failure(Failure),
    /// The guest ended in the middle.
    #[error("plugin `{plugin}` crashed in `{function}`: {reason}")]
    Trap {
        /// Name in the manifest.
        plugin: String,
        /// What it was asked.
        function: &'static str,
        /// What happened: the guest's last words, where it had any, and the engine's.
        reason: String,
    },
    /// The guest wanted more than its tier has.
    #[error("plugin `{plugin}` hit a limit in `{function}`: {limit} is at most {value} in tier `{tier}`")]
    Limit {
        /// Name in the manifest.
        plugin: String,
        /// What it was asked.
        function: &'static str,
        /// Which limit.
        limit: &'static str,
        /// Its value, with the unit.
        value: String,
        /// Name of the tier.
        tier: &'static str,
    },
    /// A stream ended the call: bad data, a full bucket, a path that leaves the target.
    #[error("plugin `{plugin}` was ended in `{function}`: {reason}")]
    Stream {
        /// Name in the manifest.
        plugin: String,
        /// What it was asked.
        function: &'static str,
        /// What happened to the stream.
        reason: String,
    },
    /// The question does not fit the tier.
    #[error("the question `{function}` to plugin `{plugin}` has {size} bytes; tier `{tier}` takes at most {max}")]
    QuestionTooLarge {
        /// Name in the manifest.
        plugin: String,
        /// What it was to be asked.
        function: &'static str,
        /// Bytes of the question.
        size: usize,
        /// Bytes it may have.
        max: usize,
        /// Name of the tier.
        tier: &'static str,
    },
    /// The answer is well-typed, and no answer of a correct plugin.
    #[error("plugin `{plugin}` gave an answer to `{function}` that is refused: {reason}")]
    BadAnswer {
        /// Name in the manifest.
        plugin: String,
        /// What it was asked.
        function: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Too many calls wait for this plugin already.
    #[error("plugin `{plugin}` is busy: {running} calls run and {queued} wait; try again later")]
    Busy {
        /// Name in the manifest.
        plugin: String,
        /// Calls that may run at once.
        running: usize,
        /// Calls that may wait.
        queued: usize,
    },
    /// The process that runs guests ended, or fell silent, while it had this question; twice.
    #[error("the sandbox ended while plugin `{plugin}` was asked `{function}`, and did so again: {reason}")]
    Sandbox {
        /// Name in the manifest.
        plugin: String,
        /// What it was asked.
        function: &'static str,
        /// What is known of it.
        reason: String,
    },
    /// It ended the process that runs guests too often.
    #[error(
        "plugin `{plugin}` ended its sandbox {crashes} times and is not asked for another {minutes} min; another version of it is asked at once"
    )]
    Quarantined {
        /// Name in the manifest.
        plugin: String,
        /// How often, not long ago.
        crashes: usize,
        /// Until when.
        minutes: u64,
    },
    /// It is a plugin for something else.
    #[error("plugin `{plugin}` is a {role:?} and cannot answer `{function}`")]
    WrongRole {
        /// Name in the manifest.
        plugin: String,
        /// What it is.
        role: PluginRole,
        /// What it was to be asked.
        function: &'static str,
    },
    /// The component is not one that we run.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Nobody whom we trust signed it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It was never pulled or added.
    #[error("no component {digest} in the plugin store; pull the plugin first")]
    Unknown {
        /// The digest asked for.
        digest: String,
    },
    /// Reading or writing the plugin store failed.
    #[error("{action}")]
    Store {
        /// What we were doing, with the path.
        action: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The engine itself failed.
    #[error("{action}: {reason}")]
    Engine {
        /// What we were doing.
        action: &'static str,
        /// What it says.
        reason: String,
    },
}

/// Why a component is not run. The text tells its author what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Larger than any component we take.
    #[error("the component has {size} bytes and at most {max} are taken; build it in release mode and strip it")]
    TooLarge {
        /// Its bytes.
        size: u64,
        /// The most we take.
        max: u64,
    },
    /// Something else altogether.
    #[error("the file is not WebAssembly; give the `.wasm` file that `substratus plugin build` wrote")]
    NotWasm,
    /// A module where a component is needed.
    #[error("the file is a core WebAssembly module, not a component; build it with `substratus plugin build`")]
    CoreModule,
    /// Machine code that somebody else compiled.
    #[error("the file is precompiled machine code, which is never loaded; give the component it was compiled from")]
    NativeCode,
    /// The bytes break the format, or use a proposal that is switched off.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// It does not say what it is.
    #[error(
        "the component has no custom section `substratus:manifest`; build it with `substratus plugin build`, which embeds plugin.yaml"
    )]
    NoManifest,
    /// It says twice what it is.
    #[error("the component has more than one custom section `substratus:manifest`; keep one")]
    ManyManifests,
    /// The manifest is wrong; the text has the path of the mistake.
    #[error("the plugin's manifest is wrong at `{field}`: {reason}")]
    Manifest {
        /// Path in the manifest.
        field: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// It wants a host that we are not.
    #[error(
        "the plugin runs on hosts {wanted} and this is {version}; rebuild it against this version, or correct `host` in plugin.yaml"
    )]
    HostVersion {
        /// The manifest's range.
        wanted: String,
        /// Our version of the package `substratus:plugin`.
        version: &'static str,
    },
    /// It asks for a function that plugins of its role do not get.
    #[error("the component imports `{import}`, which a {role:?} does not get; {hint}")]
    Import {
        /// Name of the import.
        import: String,
        /// Role in the manifest.
        role: PluginRole,
        /// What to change.
        hint: String,
    },
    /// It does not answer what its role is asked.
    #[error("the component does not export `{export}`, which a {role:?} must; implement it, or correct `role` in plugin.yaml")]
    Export {
        /// Name of the missing export.
        export: &'static str,
        /// Role in the manifest.
        role: PluginRole,
    },
    /// The names are right and the types are not.
    #[error("the component does not fit world `{world}`: {reason}; rebuild it against this host's wit/")]
    World {
        /// Name of the world.
        world: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// It cannot even start within its tier.
    #[error("the component needs {needed} to start, and tier `{tier}` has {max}; build it with less")]
    Resources {
        /// What it needs, with the unit.
        needed: String,
        /// What there is.
        max: String,
        /// Name of the tier.
        tier: &'static str,
    },
}

impl PluginError {
    /// Whose mistake it was.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Failure(_)
            | Self::Trap { .. }
            | Self::Limit { .. }
            | Self::Stream { .. }
            | Self::BadAnswer { .. }
            | Self::WrongRole { .. }
            | Self::Quarantined { .. }
            | Self::Refused(_) => Blame::Guest,
            Self::QuestionTooLarge { .. }
            | Self::Busy { .. }
            | Self::Sandbox { .. }
            | Self::Registry(_)
            | Self::Signature(_)
            | Self::Unknown { .. }
            | Self::Store { .. }
            | Self::Engine { .. } => Blame::Host,
        }
    }

    /// A short fixed word, for metrics and for choosing a condition's reason.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Failure(_) => "failure",
            Self::Trap { .. } => "trap",
            Self::Limit { .. } => "limit",
            Self::Stream { .. } => "stream",
            Self::QuestionTooLarge { .. } => "question-too-large",
            Self::BadAnswer { .. } => "bad-answer",
            Self::Busy { .. } => "busy",
            Self::Sandbox { .. } => "sandbox",
            Self::Quarantined { .. } => "quarantined",
            Self::WrongRole { .. } => "wrong-role",
            Self::Refused(_) => "refused",
            Self::Registry(error) => error.category(),
            Self::Signature(error) => error.category(),
            Self::Unknown { .. } => "unknown-component",
            Self::Store { .. } => "store",
            Self::Engine { .. } => "engine",
        }
    }

    /// Whether the same question may get an answer later, with nothing changed.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Failure(failure) => matches!(failure, Failure::RateLimited(_) | Failure::Unavailable(_)),
            Self::Registry(error) => error.is_passing(),
            Self::Busy { .. } | Self::Sandbox { .. } | Self::Quarantined { .. } | Self::Store { .. } | Self::Engine { .. } => {
                true
            }
            _ => false,
        }
    }
}

/// A plugin's failure as one sentence for the user.
pub fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Invalid(problems) => describe_problems(problems),
        Failure::NotFound(what) => format!("not found: {what}"),
        Failure::NeedsAuth(what) => format!("a credential is missing or wrong: {what}"),
        Failure::Gated(url) => format!("access must be asked for at {url}"),
        Failure::Forbidden(what) => format!("the credential may not read it: {what}"),
        Failure::Disabled(what) => format!("taken down at the source: {what}"),
        Failure::RateLimited(Some(seconds)) => format!("the source asks to wait {seconds} s"),
        Failure::RateLimited(None) => "the source asks to wait".to_owned(),
        Failure::Unavailable(what) => format!("unavailable for now: {what}"),
        Failure::Unsupported(what) => format!("not supported: {what}"),
        Failure::Internal(what) => format!("mistake in the plugin: {what}"),
    }
}

/// Mistakes in a document as one sentence.
pub fn describe_problems(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{}: {}", problem.field, problem.reason);
    }
    if text.is_empty() { "the request is invalid".to_owned() } else { text }
}
