//! What is said of a build, and which image the rest of the pipeline sees. Pure: the time is handed in.

use std::time::Duration;

use substratus_crds::conditions::{BUILT, reason};
use substratus_crds::{Build, BuildStatus, BuildUpload, ObjectRef, PodOptions};

use super::handshake::shake;
use super::observe::Observed;
use super::plan::{Plan, State};
use super::source::Source;
use crate::kinds::shared::cause;
use crate::kinds::shared::conditions::Say;
use crate::kinds::shared::names::REBUILD;
use crate::kinds::shared::verdict::{Retry, Verdict};

/// What came out of looking at a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Concluded {
    /// The condition `Built`.
    pub said: Say,
    /// What the status keeps.
    pub record: Option<BuildStatus>,
    /// What the status keeps of an upload, where the image is built from one, and what is new of the condition `Uploaded`.
    pub upload: Option<(BuildUpload, Option<Say>)>,
    /// When to look again.
    pub retry: Retry,
    /// What `spec.image` has to become.
    pub write: Option<String>,
    /// What runs.
    pub runs: Runs,
}

/// What the rest of the pipeline sees of `spec.image` and `spec.build`.
#[derive(Clone, Debug, PartialEq)]
pub enum Runs {
    /// Both, as they are.
    Spec,
    /// This image, and no build; whether it is pulled with the Secret for built images.
    Image(String, bool),
    /// Nothing yet.
    Nothing(Verdict),
}

/// The fields of a spec that say where its image comes from.
#[derive(Debug)]
pub struct Fields<'a> {
    /// `spec.image`.
    pub image: &'a mut Option<String>,
    /// `spec.build`.
    pub build: &'a mut Option<Build>,
    /// What else of a pod is in the spec.
    pub pod: &'a mut PodOptions,
}

impl Runs {
    /// Puts it into a spec; `secret` pulls built images.
    pub fn put(&self, Fields { image: runs, build, pod }: Fields<'_>, secret: Option<&str>) {
        let Self::Image(image, is_built) = self else { return };
        *runs = Some(image.clone());
        *build = None;
        let secret = secret.filter(|_| *is_built).map(|name| ObjectRef { name: name.to_owned() });
        if let Some(secret) = secret.filter(|secret| !pod.image_pull_secrets.contains(secret)) {
            pod.image_pull_secrets.push(secret);
        }
    }
}

/// What is said where a plan could be made.
pub fn conclude(observed: &Observed<'_>, plan: &Plan) -> Concluded {
    let is_built = matches!(plan.state, State::Done(_));
    let concluded = of_image(observed, plan);
    let Source::Upload(source) = &plan.source else { return concluded };
    let shaken = shake(source, observed.handshake, &observed.sent, is_built, observed.now);
    Concluded { upload: Some((shaken.status, Some(shaken.said))), retry: shaken.retry.sooner(concluded.retry), ..concluded }
}

fn of_image(observed: &Observed<'_>, plan: &Plan) -> Concluded {
    match &plan.state {
        State::Awaits => {
            let said = Say::no(BUILT, reason::AWAITING_UPLOAD, "the sources are not here; the condition Uploaded says more");
            waiting(observed, said, Retry::OnChange, observed.record.cloned())
        }
        State::Done(record) => done(observed, record),
        State::Due { attempt, is_there, failure } => {
            let (said, retry) = match failure {
                // The next try begins; until its Job is there, the last one's words stand.
                Some((why, message)) if *is_there || attempt.wait.is_some() => failed(observed, why, message, attempt.wait),
                _ => (running(observed), Retry::OnChange),
            };
            let number = i32::try_from(attempt.number).unwrap_or(i32::MAX);
            let record = match observed.record {
                Some(record) => Some(BuildStatus { attempt: number, ..record.clone() }),
                None => (number > 0).then(|| BuildStatus { attempt: number, ..BuildStatus::default() }),
            };
            waiting(observed, said, retry, record)
        }
    }
}

fn waiting(observed: &Observed<'_>, said: Say, retry: Retry, record: Option<BuildStatus>) -> Concluded {
    let runs = meanwhile(observed, &said);
    Concluded { said: with_what_runs(observed, said), record, upload: None, retry, write: None, runs }
}

/// What is said where there is none, or its children cannot be.
pub fn stopped(observed: &Observed<'_>, verdict: &Verdict) -> Concluded {
    let said = Say::no(BUILT, verdict.reason, verdict.message.clone());
    let runs = match meanwhile(observed, &said) {
        Runs::Nothing(_) => Runs::Nothing(verdict.clone()),
        runs => runs,
    };
    let said = with_what_runs(observed, said);
    // What is wrong elsewhere takes no URL from a client that sends.
    let upload = observed.build.upload.as_ref().and_then(|_| Some((observed.handshake.cloned()?, None)));
    Concluded { said, record: observed.record.cloned(), upload, retry: verdict.retry, write: None, runs }
}

fn done(observed: &Observed<'_>, record: &BuildStatus) -> Concluded {
    let image = record.image.clone().unwrap_or_default();
    let commit = record.commit.as_ref().map(|commit| format!(" from commit {commit}")).unwrap_or_default();
    let digest = record.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
    Concluded {
        said: Say::yes(BUILT, reason::JOB_COMPLETE, format!("{image}{digest}{commit}")),
        record: Some(record.clone()),
        upload: None,
        retry: Retry::OnChange,
        write: (observed.image != Some(image.as_str())).then(|| image.clone()),
        // What was built before we came has no digest on record, and stays what it was planned as.
        runs: pinned(record).map_or(Runs::Spec, |image| Runs::Image(image, true)),
    }
}

/// The image by its digest: whatever its tag leads to later, this is what was built.
fn pinned(record: &BuildStatus) -> Option<String> {
    Some(format!("{}@{}", record.image.as_deref()?, record.digest.as_deref()?))
}

/// What runs while an image is built, or cannot be.
fn meanwhile(observed: &Observed<'_>, said: &Say) -> Runs {
    let Some(image) = observed.image else {
        let message = format!("the image is not built: {}", said.message);
        return Runs::Nothing(Verdict::new(reason::IMAGE_NOT_BUILT, message));
    };
    let own = observed.record.filter(|record| record.image.as_deref() == Some(image));
    match own.and_then(pinned) {
        Some(pinned) => Runs::Image(pinned, true),
        None => Runs::Image(image.to_owned(), own.is_some()),
    }
}

fn with_what_runs(observed: &Observed<'_>, said: Say) -> Say {
    let Some(image) = observed.image else { return said };
    Say { message: format!("until then `{image}` is what runs; {}", said.message), ..said }
}

fn running(observed: &Observed<'_>) -> Say {
    let cause = cause::of(observed.pods.iter().map(AsRef::as_ref));
    let message = match (observed.job.as_deref(), cause) {
        (Some(_), Some(cause)) => cause,
        (Some(job), None) => format!("the Job builds{}", cause::since(job.metadata.creation_timestamp.as_ref())),
        (None, _) => "the Job is being created".to_owned(),
    };
    Say::no(BUILT, reason::JOB_NOT_COMPLETE, message)
}

fn failed(observed: &Observed<'_>, why: &str, message: &str, wait: Option<Duration>) -> (Say, Retry) {
    let (first, rest) = message.split_once('\n').map_or((message, String::new()), |(first, rest)| (first, format!("\n{rest}")));
    // In front of the log, which may be cut.
    let (first, log) = match first.split_once("; the last lines of the log:") {
        Some((first, _)) => (first, "; the last lines of the log:"),
        None => (first, ""),
    };
    let again = format!("kubectl annotate {} {} {REBUILD}=$(date +%s) --overwrite", observed.kind(), observed.name());
    let (next, retry) = match wait {
        Some(left) => {
            (format!("tried again with growing pauses, or at once with: {again}"), Retry::After(left + Duration::from_secs(1)))
        }
        None => (format!("built anew after an edit of spec.build, or with: {again}"), Retry::OnChange),
    };
    (Say::no(BUILT, why, format!("{first}; {next}{log}{rest}")), retry)
}
