//! What a plugin may do: what its manifest asks for, cut down to what the administrator grants.

use serde::{Deserialize, Serialize};

/// The smaller of what was asked for and what was granted. Empty means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Host patterns: `scheme://host[:port]`, `https://*.example.com`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Secrets it may name.
    #[serde(default)]
    pub secrets: Vec<GrantedSecret>,
    /// Image prefixes a server adapter may run.
    #[serde(default)]
    pub images: Vec<String>,
    /// Resource, toleration and selector keys a GPU policy may set.
    #[serde(default)]
    pub scheduling: Vec<String>,
}

/// A secret that a plugin names but never sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantedSecret {
    /// Name of the use: what the guest says as `auth`.
    #[serde(rename = "use")]
    pub name: String,
    /// Environment variables of the object that carry it; the first one set counts.
    pub env: Vec<String>,
    /// How it is sent.
    #[serde(rename = "as")]
    pub scheme: SecretScheme,
    /// Host patterns it may be sent to.
    pub hosts: Vec<String>,
}

/// How a credential is put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretScheme {
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: Basic …` of `user:password`
    Basic,
    /// As OCI registries ask for it: the account that a pull Secret has for the registry, or a token that its realm gives for it.
    Registry,
}
