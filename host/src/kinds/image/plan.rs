//! Which image is to be there, and what became of it. Pure.

use std::time::Duration;

use substratus_crds::BuildStatus;

use super::observe::Observed;
use super::source::{self, Source};
use crate::builder::report::Report;
use crate::kinds::artifact::retry::{self, Attempt};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{cause, hash, names};
use crate::reconcile::views::JobView;

/// A plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the image to be.
    pub image: String,
    /// Hash of what it is built from.
    pub inputs: String,
    /// What it is built from.
    pub source: Source,
    /// What became of it.
    pub state: State,
}

/// What became of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The image is there.
    Done(BuildStatus),
    /// What it is built from is not here.
    Awaits,
    /// A Job has to run for it, or has failed.
    Due {
        /// Which try it is.
        attempt: Attempt,
        /// The Job of this very try is there.
        is_there: bool,
        /// How the last one ended, where it failed.
        failure: Option<(String, String)>,
    },
}

/// What an image is built from: everything that a user may edit of it, and what asks for another build.
pub fn inputs(observed: &Observed<'_>, image: &str) -> String {
    let mut build = observed.build.clone();
    if let Some(upload) = &mut build.upload {
        // Asking again for the same bytes makes no other image.
        upload.request_id.clear();
        upload.size_bytes = None;
        upload.md5_checksum.make_ascii_lowercase();
    }
    hash::of(&(image, &build, observed.rebuild))
}

/// Checks the source and looks at what is there.
pub fn plan(observed: &Observed<'_>, environment: &Environment) -> Result<Plan, Verdict> {
    let source = source::of(observed.build)?;
    let image = source::image(environment, &observed.kind(), &observed.owner.namespace, observed.name(), &source)?;
    let inputs = inputs(observed, &image);
    let is_under_way = || current(observed).is_some_and(|job| is_of(job, &inputs));
    let awaits = matches!(source, Source::Upload(_)) && !observed.sent.is_here;
    let state = match done(observed, &image, &inputs) {
        Some(record) => State::Done(record),
        None if awaits && !is_under_way() => State::Awaits,
        None => due(observed, &inputs),
    };
    Ok(Plan { image, inputs, source, state })
}

fn done(observed: &Observed<'_>, image: &str, inputs: &str) -> Option<BuildStatus> {
    let built = observed.record.filter(|record| record.image.is_some());
    if let Some(record) = built.filter(|record| record.inputs.as_deref() == Some(inputs)) {
        return Some(BuildStatus { attempt: 0, ..record.clone() });
    }
    let job = current(observed);
    if let Some(job) = job.filter(|job| is_of(job, inputs) && job.holds("Complete").is_some()) {
        let Some(Report::Built { digest, commit, .. }) = observed.report(inputs) else { return None };
        let name = job.annotation(names::IMAGE).unwrap_or(image).to_owned();
        return Some(BuildStatus {
            image: Some(name),
            digest: Some(digest),
            commit,
            inputs: Some(inputs.to_owned()),
            attempt: 0,
        });
    }
    // Built before we came: the spec names the image already.
    let is_taken_over = built.is_none() && observed.job.is_none() && observed.image == Some(image);
    is_taken_over.then(|| BuildStatus {
        image: Some(image.to_owned()),
        inputs: Some(inputs.to_owned()),
        ..BuildStatus::default()
    })
}

fn due(observed: &Observed<'_>, inputs: &str) -> State {
    let job = current(observed);
    let same = job.is_some_and(|job| is_of(job, inputs));
    let recorded = observed.record.and_then(|record| u32::try_from(record.attempt).ok()).unwrap_or_default();
    let report = same.then(|| observed.report(inputs)).flatten();
    let ended_well = same && job.is_some_and(|job| job.holds("Complete").is_some());
    let failed = job.filter(|job| same && job.holds("Failed").is_some());
    let is_final = matches!(report, Some(Report::Failed { passing: false, .. }));
    // A Job may be known to have ended before its pod is: the last words are on their way.
    let is_telling = ended_well && observed.pods.iter().any(|pod| !cause::has_ended(pod));
    let attempt = if (failed.is_some() && is_final) || is_telling {
        retry::once(job, recorded, same, None)
    } else {
        retry::attempt(job, recorded, same, None, None, observed.now)
    };
    let failure = failed.map(|job| why(observed, job, report));
    let identity = identity(inputs, &attempt);
    let is_there = job.is_some_and(|job| job.annotation(names::IDENTITY) == Some(&identity));
    State::Due { attempt, is_there, failure }
}

/// Reason and message of a Job that failed.
fn why(observed: &Observed<'_>, job: &JobView, report: Option<Report>) -> (String, String) {
    use substratus_crds::conditions::reason;
    if let Some(Report::Failed { reason, message, .. }) = report {
        return (reason, message);
    }
    let said = cause::of(observed.pods.iter().map(AsRef::as_ref));
    let own = || job.holds("Failed").and_then(|condition| condition.message.clone());
    (reason::JOB_FAILED.to_owned(), said.or_else(own).unwrap_or_else(|| "the builder failed and left no message".to_owned()))
}

/// The Job, unless it is going.
fn current<'a>(observed: &'a Observed<'_>) -> Option<&'a JobView> {
    observed.job.as_deref().filter(|job| job.metadata.deletion_timestamp.is_none())
}

/// Whether a Job is there for something else, whose end nobody waits for.
pub fn is_stray(observed: &Observed<'_>, plan: &Plan) -> bool {
    current(observed).is_some_and(|job| !is_of(job, &plan.inputs))
}

fn is_of(job: &JobView, inputs: &str) -> bool {
    job.annotation(names::IDENTITY).is_some_and(|identity| identity.starts_with(inputs))
}

/// What a Job is made for.
pub fn identity(inputs: &str, attempt: &Attempt) -> String {
    format!("{inputs}-{}", attempt.number)
}

impl Plan {
    /// How long until the next try, where the last one failed and another one may end otherwise.
    pub fn wait(&self) -> Option<Duration> {
        match &self.state {
            State::Due { attempt, .. } => attempt.wait,
            State::Done(_) | State::Awaits => None,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
