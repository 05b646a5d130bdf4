//! Who may read a source's files, as a loader answers where somebody only looks: the extension `access` of a plan's page, to a
//! question with the extension `looking`. A loader that knows neither is none the worse; `wit/README.md` lists both.

use serde::{Deserialize, Serialize};

use super::asking::Asker;
use super::failure::LoadError;
use crate::plugin::types::Failure;
use crate::plugin::{PluginError, sentence};

/// Who may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// What the source lets whom do.
    pub kind: Kind,
    /// Why whoever asked may not read; nothing where they may.
    pub refused: Option<LoadError>,
}

/// What a source lets whom do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Anybody reads.
    Public,
    /// Access is asked for first.
    Gated,
    /// Nobody else knows of it.
    Private,
}

/// As it is written.
#[derive(Deserialize)]
struct Said {
    kind: Kind,
    refused: Option<Refused>,
}

/// As the failures of the interface are called.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Refused {
    NeedsAuth(String),
    Gated(String),
    Forbidden(String),
}

/// The extension of a question that is only looking.
pub(super) fn question() -> (String, String) {
    ("looking".to_owned(), "true".to_owned())
}

impl Access {
    /// What a page's extensions say; something else is as good as nothing.
    pub(super) fn read(extensions: &[(String, String)], asker: &Asker) -> Option<Self> {
        let (_, json) = extensions.iter().find(|(name, _)| name == "access")?;
        let said: Said = serde_json::from_str(json).ok()?;
        let refused = said.refused.map(|refused| {
            let failure = match refused {
                Refused::NeedsAuth(text) => Failure::NeedsAuth(sentence(&text)),
                Refused::Gated(text) => Failure::Gated(sentence(&text)),
                Refused::Forbidden(text) => Failure::Forbidden(sentence(&text)),
            };
            asker.failure(&PluginError::Failure(failure))
        });
        Some(Self { kind: said.kind, refused })
    }
}
