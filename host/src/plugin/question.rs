//! Every question that a plugin can be asked, every answer, and every way to fail, as values: what is handed to a guest in this
//! process, or crosses the socket to one in another. Knows nothing of how a guest is run.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use substratus_crds::PluginRole;

use super::PluginError;
use super::answers;
use super::text::clip;
use super::types::{
    Container, Failure, File, Fitness, ImportPage, ImportRequest, PlaceRequest, Placement, PlanPage, ResolveRequest,
    ServeRequest, Shard, ShardReport,
};
use crate::limits::{self, Tier};

/// What a plugin is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Resolve(ResolveRequest, Option<String>),
    Refresh(ResolveRequest, String),
    Plan(ImportRequest, Option<String>),
    RefreshImport(ImportRequest, String),
    Transform(ImportRequest, Shard),
    Place(PlaceRequest, Option<Placement>),
    Fit(ServeRequest),
    Serve(ServeRequest),
}

/// What it answers; not yet judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    Plan(PlanPage),
    File(File),
    Import(ImportPage),
    Report(ShardReport),
    Placement(Placement),
    Fitness(Fitness),
    Container(Box<Container>),
}

/// Why there is no answer. The texts are a guest's, or those of a process that a guest may have taken over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Failed {
    /// The plugin's own, typed answer.
    Failure(Failure),
    /// The guest ended in the middle.
    Trap(String),
    /// The guest wanted more than its tier has.
    Limit { limit: Cow<'static, str>, value: String },
    /// A stream ended the call.
    Stream(String),
    /// No room for one more instance.
    Busy,
    /// The engine itself failed.
    Engine(String),
}

/// Every limit that a call can hit, by the words that errors name it with.
const LIMITS: [&str; 14] = [
    "processor time",
    "processor time without reading or writing",
    "memory",
    "the size of tables",
    "what a shard writes",
    "the files of a shard",
    "the open files of a shard",
    "wall-clock time",
    "the guest's stack",
    "data from guest to host",
    "live handles",
    "instances",
    "memories",
    "tables",
];

impl Question {
    /// The function of the guest, as errors and metrics name it.
    pub(super) fn function(&self) -> &'static str {
        match self {
            Self::Resolve(..) => "resolve",
            Self::Refresh(..) | Self::RefreshImport(..) => "refresh",
            Self::Plan(..) => "plan",
            Self::Transform(..) => "transform",
            Self::Place(..) => "place",
            Self::Fit(_) => "fit",
            Self::Serve(_) => "serve",
        }
    }

    /// Who can answer it.
    pub(super) fn role(&self) -> PluginRole {
        match self {
            Self::Resolve(..) | Self::Refresh(..) => PluginRole::ModelLoader,
            Self::Plan(..) | Self::RefreshImport(..) | Self::Transform(..) => PluginRole::DatasetImporter,
            Self::Place(..) => PluginRole::GpuPolicy,
            Self::Fit(_) | Self::Serve(_) => PluginRole::ServerAdapter,
        }
    }

    /// What answering it may cost.
    pub(super) fn tier(&self) -> &'static Tier {
        match self {
            Self::Resolve(..) | Self::Refresh(..) | Self::Plan(..) | Self::RefreshImport(..) => &limits::STANDARD,
            Self::Transform(..) => &limits::BULK,
            Self::Place(..) | Self::Fit(_) | Self::Serve(_) => &limits::PURE,
        }
    }

    /// Refuses a question that is larger than its tier takes.
    pub(super) fn check_size(&self, plugin: &str) -> Result<(), PluginError> {
        let (mut size, tier) = (Counter(0), self.tier());
        serde_json::to_writer(&mut size, self)
            .map_err(|error| PluginError::Engine { action: "measure a question", reason: error.to_string() })?;
        if size.0 <= tier.question {
            return Ok(());
        }
        Err(PluginError::QuestionTooLarge {
            plugin: plugin.to_owned(),
            function: self.function(),
            size: size.0,
            max: tier.question,
            tier: tier.name,
        })
    }
}

impl Failed {
    pub(super) fn limit(limit: &'static str, value: impl Into<String>) -> Self {
        Self::Limit { limit: Cow::Borrowed(limit), value: value.into() }
    }

    /// The wall-clock limit of a tier.
    pub(super) fn wall(tier: &Tier) -> Self {
        Self::limit("wall-clock time", format!("{} ms", tier.wall.as_millis()))
    }

    /// In the words of the caller, fit to be shown.
    pub(super) fn of(self, plugin: &str, question: &Question) -> PluginError {
        let (plugin, function, tier) = (plugin.to_owned(), question.function(), question.tier());
        let shown = |text: &str| clip(text, 4 * limits::SENTENCE_BYTES);
        match self {
            Self::Failure(failure) => PluginError::Failure(answers::failure(failure)),
            Self::Trap(reason) => PluginError::Trap { plugin, function, reason: shown(&reason) },
            Self::Limit { limit, value } => {
                let known = LIMITS.into_iter().find(|known| *known == limit);
                let limit = known.unwrap_or("something without a name");
                PluginError::Limit { plugin, function, limit, value: shown(&value), tier: tier.name }
            }
            Self::Stream(reason) => PluginError::Stream { plugin, function, reason: shown(&reason) },
            Self::Busy => PluginError::Busy { plugin, running: tier.concurrent, queued: tier.queue },
            Self::Engine(reason) => PluginError::Engine { action: "run a plugin", reason: shown(&reason) },
        }
    }
}

/// Counts what would be written.
struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
