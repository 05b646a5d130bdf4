//! Condition types and reasons: the closed list of what a status may say.
//!
//! | type | kinds | true means |
//! |---|---|---|
//! | `Complete` | Model, Dataset | the artifact is whole and in the bucket |
//! | `Published` | Model | what is complete lies in the registry that `spec.publish` names |
//! | `Serving` | Server, Notebook | at least one pod answers |
//! | `Built` | Model, Dataset, Server, Notebook | the image of `spec.build` is in the registry |
//! | `Resolved` … `Active`, `UpdateAvailable` | Plugin | see [`plugin`] |
//! | `PlanOutdated` | Server | a newer revision of its plugin is active, or none; it keeps the plan it has |

/// The artifact of a Model or Dataset is whole.
pub const COMPLETE: &str = "Complete";
/// The artifact lies in the registry that it is to be published to.
pub const PUBLISHED: &str = "Published";
/// A Server or Notebook answers.
pub const SERVING: &str = "Serving";
/// The image that `spec.build` asks for is in the registry.
pub const BUILT: &str = "Built";
/// The sources of the image have come; objects of the first operator may have it.
pub const UPLOADED: &str = "Uploaded";
/// A newer revision of the plugin is active than the one the object was planned with.
pub const PLAN_OUTDATED: &str = "PlanOutdated";

/// Reasons of `Complete`, `Published`, `Serving` and `Built`. The first group is the contract of the first operator, spelled as it spelled them.
pub mod reason {
    /// The Job succeeded.
    pub const JOB_COMPLETE: &str = "JobComplete";
    /// The Job runs or waits; the message says for what.
    pub const JOB_NOT_COMPLETE: &str = "JobNotComplete";
    /// The Job failed; the message says why.
    pub const JOB_FAILED: &str = "JobFailed";
    /// `spec.model` names no Model of this namespace.
    pub const BASE_MODEL_NOT_FOUND: &str = "BaseModelNotFound";
    /// The base Model is not ready yet.
    pub const BASE_MODEL_NOT_READY: &str = "BaseModelNotReady";
    /// `spec.dataset` names no Dataset of this namespace.
    pub const DATASET_NOT_FOUND: &str = "DatasetNotFound";
    /// The Dataset is not ready yet; the value is the first operator's own.
    pub const DATASET_NOT_READY: &str = "ReasonDatasetNotReady";
    /// The Model to serve or to mount does not exist.
    pub const MODEL_NOT_FOUND: &str = "ModelNotFound";
    /// The Model to serve or to mount is not ready yet.
    pub const MODEL_NOT_READY: &str = "ModelNotReady";
    /// At least one replica is ready.
    pub const DEPLOYMENT_READY: &str = "DeploymentReady";
    /// No replica is ready; the message carries the pod's own cause.
    pub const DEPLOYMENT_NOT_READY: &str = "DeploymentNotReady";
    /// The Notebook's pod answers.
    pub const POD_READY: &str = "PodReady";
    /// The Notebook's pod does not answer; the message carries its own cause.
    pub const POD_NOT_READY: &str = "PodNotReady";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";

    /// The object contradicts itself or a plugin's rules; the message names the fields.
    pub const INVALID: &str = "Invalid";
    /// No active plugin claims the scheme, or the named plugin does not exist.
    pub const PLUGIN_NOT_FOUND: &str = "PluginNotFound";
    /// The plugin exists but is not active; its own conditions say why.
    pub const PLUGIN_NOT_READY: &str = "PluginNotReady";
    /// The plugin trapped, looped or answered nonsense.
    pub const PLUGIN_FAILED: &str = "PluginFailed";
    /// The plugin answered with something it has no grant for.
    pub const PLUGIN_DENIED: &str = "PluginDenied";
    /// No adapter can serve this model here; the message lists what each said.
    pub const UNSUPPORTED: &str = "Unsupported";
    /// A child would have been unsafe or belongs to somebody else.
    pub const REFUSED: &str = "Refused";
    /// The API server refused a child (quota, admission); the message carries its words.
    pub const REJECTED: &str = "Rejected";
    /// The hub wants a credential.
    pub const NEEDS_AUTH: &str = "NeedsAuth";
    /// The hub wants the user to ask for access.
    pub const GATED: &str = "Gated";
    /// The hub knows the credential, and it may not read this.
    pub const FORBIDDEN: &str = "Forbidden";
    /// The hub took the source down for everybody.
    pub const DISABLED: &str = "Disabled";
    /// The hub asks to come back later.
    pub const RATE_LIMITED: &str = "RateLimited";
    /// The source, revision or file does not exist.
    pub const NOT_FOUND: &str = "NotFound";
    /// The hub or network does not answer; retried.
    pub const UNAVAILABLE: &str = "Unavailable";
    /// The bytes do not match their digest.
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";
    /// Not enough room for the files.
    pub const TOO_LARGE: &str = "TooLarge";
    /// This cluster, or this version, does not build such an image; the message says which.
    pub const BUILD_UNSUPPORTED: &str = "BuildUnsupported";
    /// There is no image to run yet; `Built` says why.
    pub const IMAGE_NOT_BUILT: &str = "ImageNotBuilt";
    /// The repository cannot be fetched.
    pub const CLONE_FAILED: &str = "CloneFailed";
    /// The repository wants another account or key.
    pub const CLONE_DENIED: &str = "CloneDenied";
    /// The repository has no such branch, tag or commit.
    pub const REF_NOT_FOUND: &str = "RefNotFound";
    /// There is no Dockerfile where it was looked for.
    pub const NO_DOCKERFILE: &str = "NoDockerfile";
    /// A line of the Dockerfile failed; the message has it, and the last lines of the log.
    pub const BUILD_FAILED: &str = "BuildFailed";
    /// The registry did not take the image.
    pub const PUSH_FAILED: &str = "PushFailed";
    /// The registry wants another account.
    pub const PUSH_DENIED: &str = "PushDenied";
    /// The builder did not start; the message says what its pod lacks.
    pub const BUILDER_FAILED: &str = "BuilderFailed";
    /// The sources are here.
    pub const UPLOAD_FOUND: &str = "UploadFound";
    /// `status.buildUpload` says where the sources are to be sent.
    pub const AWAITING_UPLOAD: &str = "AwaitingUpload";
    /// Nobody sent the sources while the URL was good.
    pub const UPLOAD_EXPIRED: &str = "UploadExpired";
    /// What was sent is not what was announced.
    pub const UPLOAD_REFUSED: &str = "UploadRefused";
    /// The sources were here and are not any more.
    pub const UPLOAD_LOST: &str = "UploadLost";
    /// The plan in use is the newest.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// A newer plugin revision is active.
    pub const NEWER_PLUGIN: &str = "NewerPlugin";
    /// The plugin is not installed any more.
    pub const PLUGIN_GONE: &str = "PluginGone";
}

/// Conditions of a Plugin, in the order a revision passes them, and their reasons.
pub mod plugin {
    /// The image name was resolved to a digest.
    pub const RESOLVED: &str = "Resolved";
    /// The image is the one that was named, and signed as its `PluginSource` wants it.
    pub const VERIFIED: &str = "Verified";
    /// The component is of a world this host serves and carries a manifest.
    pub const COMPATIBLE: &str = "Compatible";
    /// Native code is in the cache.
    pub const COMPILED: &str = "Compiled";
    /// `spec.config` fits the manifest's schema.
    pub const CONFIG_VALID: &str = "ConfigValid";
    /// This plugin answers questions.
    pub const ACTIVE: &str = "Active";
    /// A revision is there that does not answer yet.
    pub const UPDATE_AVAILABLE: &str = "UpdateAvailable";

    /// The step was passed.
    pub const OK: &str = "Succeeded";
    /// An earlier step failed.
    pub const WAITING: &str = "Waiting";
    /// The registry does not have the image.
    pub const IMAGE_NOT_FOUND: &str = "ImageNotFound";
    /// The registry could not be reached.
    pub const REGISTRY_UNAVAILABLE: &str = "RegistryUnavailable";
    /// The registry wants credentials.
    pub const REGISTRY_AUTH: &str = "RegistryAuth";
    /// Over the size cap.
    pub const TOO_LARGE: &str = "TooLarge";
    /// What was pulled is not what was named.
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";
    /// A core module, native code or something else.
    pub const NOT_A_COMPONENT: &str = "NotAComponent";
    /// The component carries no or a broken manifest.
    pub const MANIFEST: &str = "InvalidManifest";
    /// The component imports or exports what no world of this host has.
    pub const WORLD: &str = "IncompatibleWorld";
    /// Compilation failed.
    pub const COMPILE: &str = "CompileFailed";
    /// `spec.config` does not fit.
    pub const CONFIG: &str = "ConfigInvalid";
    /// An older plugin holds one of the claims.
    pub const CLAIM_CONFLICT: &str = "ClaimConflict";
    /// No `PluginSource` fits the image.
    pub const NO_SOURCE: &str = "NoPluginSource";
    /// The `PluginSource` that fits cannot be used; the message says what is wrong with it.
    pub const SOURCE_INVALID: &str = "PluginSourceInvalid";
    /// The `PluginSource` takes images by digest only.
    pub const DIGEST_REQUIRED: &str = "DigestRequired";
    /// Nobody verifies the image: passed where the `PluginSource` allows that, failed elsewhere.
    pub const UNVERIFIED: &str = "Unverified";
    /// No signature that counts was found.
    pub const SIGNATURE: &str = "SignatureInvalid";
    /// The revision waits until an administrator approves it.
    pub const APPROVAL_NEEDED: &str = "ApprovalNeeded";
    /// The revision asks for more than its predecessor and waits until an administrator approves it.
    pub const PERMISSIONS: &str = "AsksForMore";
    /// The tag names what answers already.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// The tag names something that a step refuses.
    pub const UPDATE_FAILED: &str = "UpdateFailed";
    /// The Plugin was deleted while objects used it.
    pub const DELETED_IN_USE: &str = "DeletedInUse";
    /// A file of the operator's plugin store was changed behind its back.
    pub const STORE_TAMPERED: &str = "StoreTampered";
}
