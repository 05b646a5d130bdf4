//! What the status says. Pure: the time is handed in.

use std::time::Duration;

use substratus_crds::conditions::{COMPLETE, reason};
use substratus_crds::{ArtifactStatus, Artifacts, PlacementStatus, SourceStatus, TransferStatus};

use super::Artifact;
use super::jobs;
use super::observe::Observed;
use super::plan::{Plan, Run};
use super::push;
use super::retry::{Attempt, Built};
use super::transfer;
use crate::kinds::shared::cause;
use crate::kinds::shared::conditions::{Say, find, set};
use crate::kinds::shared::env::{SecretRef, Value};
use crate::kinds::shared::names::RETRY;
use crate::kinds::shared::route::Image;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::reconcile::views::JobView;
use crate::worker::report::Outcome;

/// All that is known of what a container made.
const SUCCEEDED: &str = "the container's Job succeeded";

/// The status before any child exists: the plan is on record before anything runs by it.
pub fn planned<A: Artifact>(observed: &Observed<A>, plan: &Plan) -> ArtifactStatus {
    let mut status = observed.status();
    if matches!(plan.run, Run::Done) {
        // Ready before we came: nobody knows what it was made from, but an edit from now on is noticed.
        status.plan.get_or_insert_with(|| plan.record()).complete = true;
        return status;
    }
    let again = status.plan.as_ref().is_some_and(|record| record.inputs != plan.inputs);
    if again {
        status.ready = false;
        status.transfer = None;
    }
    status.plan = Some(plan.record());
    status.plugin = match &plan.run {
        Run::Load { plugin, .. } | Run::Kept { plugin } => Some(plugin.clone()),
        Run::Done | Run::Container(_) => None,
    };
    status.placement = plan.placement.as_ref().map(|placement| PlacementStatus { reason: placement.reason.clone() });
    status.artifacts.get_or_insert_with(|| Artifacts { url: Some(plan.target.clone()) });
    status
}

/// The status of an object that cannot go on.
pub fn stopped<A: Artifact>(observed: &Observed<A>, verdict: &Verdict) -> (ArtifactStatus, Retry) {
    let mut status = observed.status();
    status.ready = false;
    say(observed, &mut status, Say::no(COMPLETE, verdict.reason, verdict.message.clone()));
    (status, verdict.retry)
}

/// The status of an object whose children are as planned.
pub fn conclude<A: Artifact>(observed: &Observed<A>, plan: &Plan, built: &Built) -> (ArtifactStatus, Retry) {
    let (mut status, retry) = made(observed, plan, built);
    let pushed = push::conclude(observed, plan, built.push.as_deref(), &mut status);
    (status, retry.sooner(pushed))
}

/// What became of the artifact itself.
fn made<A: Artifact>(observed: &Observed<A>, plan: &Plan, built: &Built) -> (ArtifactStatus, Retry) {
    let mut status = planned(observed, plan);
    if matches!(plan.run, Run::Done) {
        let said = whole(&status);
        status.ready = true;
        say(observed, &mut status, said);
        return (status, Retry::OnChange);
    }
    if let Some(record) = &mut status.plan {
        record.attempt = i32::try_from(built.attempt.number).unwrap_or(i32::MAX);
    }
    let is_load = matches!(plan.run, Run::Load { .. } | Run::Kept { .. });
    let speaks = is_load || plan.is_published;
    let decisive = jobs::failed(observed).or(observed.job.as_deref());
    let job = decisive.filter(|job| built.is_there && job.metadata.deletion_timestamp.is_none());
    let outcome = job.and_then(|job| said(observed, plan, job));
    let (said, retry) = match (job, &outcome) {
        (Some(job), Some(Outcome::Complete { source, reused, .. })) if job.holds("Complete").is_some() && speaks => {
            loaded(&mut status, plan, source, *reused);
            (Say::yes(COMPLETE, reason::JOB_COMPLETE, summary(source) + &taken_over(*reused)), Retry::OnChange)
        }
        (Some(job), _) if job.holds("Complete").is_some() && !speaks => {
            ready(&mut status, plan);
            (Say::yes(COMPLETE, reason::JOB_COMPLETE, SUCCEEDED), Retry::OnChange)
        }
        (Some(job), outcome @ Some(Outcome::Failed { .. })) if job.holds("Complete").is_some() && plan.is_published => {
            failed(observed, plan, job, outcome.as_ref(), &built.attempt, true)
        }
        (Some(job), outcome) if job.holds("Failed").is_some() => {
            failed(observed, plan, job, outcome.as_ref(), &built.attempt, is_load)
        }
        (job, _) => {
            let retry = progress(observed, plan, &mut status);
            (running(observed, plan, job, outcome.as_ref()), retry)
        }
    };
    say(observed, &mut status, said);
    (status, retry)
}

/// What was said of the artifact: by the worker, or by the publisher of what a container left once that has succeeded.
fn said<A: Artifact>(observed: &Observed<A>, plan: &Plan, job: &JobView) -> Option<Outcome> {
    let name = job.metadata.name.as_deref()?;
    if plan.is_published {
        observed.published(&plan.inputs, name).filter(|_| job.holds("Complete").is_some())
    } else {
        observed.outcome(&plan.inputs, name)
    }
}

/// What the condition goes on saying of an artifact that is whole.
fn whole(status: &ArtifactStatus) -> Say {
    match (find(&status.conditions, COMPLETE), &status.source) {
        (Some(said), _) if said.status == "True" => Say::yes(COMPLETE, &said.reason, said.message.clone()),
        (_, Some(source)) => Say::yes(COMPLETE, reason::JOB_COMPLETE, summary(source)),
        (_, None) => Say::yes(COMPLETE, reason::JOB_COMPLETE, SUCCEEDED),
    }
}

/// The artifact is whole, and readers are led to it.
fn ready(status: &mut ArtifactStatus, plan: &Plan) {
    status.ready = true;
    status.artifacts = Some(Artifacts { url: Some(plan.target.clone()) });
    if let Some(record) = &mut status.plan {
        record.complete = true;
    }
}

fn loaded(status: &mut ArtifactStatus, plan: &Plan, source: &SourceStatus, reused: u64) {
    ready(status, plan);
    status.source = Some(source.clone());
    status.transfer = Some(TransferStatus {
        progress: "100%".to_owned(),
        bytes_done: source.bytes,
        bytes_total: source.bytes,
        files_done: source.files,
        files_total: source.files,
        reused_bytes: i64::try_from(reused).unwrap_or(i64::MAX),
        ..TransferStatus::default()
    });
}

fn summary(source: &SourceStatus) -> String {
    let format = source.format.as_deref().map(|format| format!(" of {format}")).unwrap_or_default();
    let revision = source.revision.as_deref().map(|revision| format!(" at revision {revision}")).unwrap_or_default();
    let rows = source.rows.map(|rows| format!(", {rows} rows")).unwrap_or_default();
    let partial = source.partial.as_deref().map(|why| format!("; only a part: {why}")).unwrap_or_default();
    let summary = format!("{} files, {} bytes{rows}{format}{revision}{partial}", source.files, source.bytes);
    std::iter::once(&summary).chain(&source.warnings).map(String::as_str).collect::<Vec<_>>().join("; ")
}

fn failed<A: Artifact>(
    observed: &Observed<A>,
    plan: &Plan,
    job: &JobView,
    outcome: Option<&Outcome>,
    attempt: &Attempt,
    is_load: bool,
) -> (Say, Retry) {
    let (why, mut message) = if let Some(Outcome::Failed { reason, message, .. }) = outcome {
        (reason.clone(), message.clone())
    } else {
        let said = cause::of(observed.makers());
        let own = job.holds("Failed").and_then(|condition| condition.message.clone());
        (reason::JOB_FAILED.to_owned(), said.or(own).unwrap_or_else(|| "the pod failed and left no message".to_owned()))
    };
    message.extend(credentials(&why, plan));
    let retry = when_again(observed, attempt, &mut message);
    if attempt.wait.is_none() && !is_load {
        message.push_str("; start it again with: ");
        message.push_str(&again(observed));
    }
    (Say::no(COMPLETE, &why, message), retry)
}

/// When a Job that failed is tried again; the message says so, and how not to wait.
pub(super) fn when_again<A: Artifact>(observed: &Observed<A>, attempt: &Attempt, message: &mut String) -> Retry {
    let Some(left) = attempt.wait else { return Retry::OnChange };
    message.push_str("; tried again with growing pauses, or at once with: ");
    message.push_str(&again(observed));
    Retry::After(left + Duration::from_secs(1))
}

fn again<A: Artifact>(observed: &Observed<A>) -> String {
    format!("kubectl annotate {} {} {RETRY}=$(date +%s) --overwrite", A::FACTS.kind, observed.name())
}

/// Which Secret and key the credential came from that would not do. Whether they exist the operator does not know: it reads none.
fn credentials(why: &str, plan: &Plan) -> Option<String> {
    let Run::Load { grant, .. } = &plan.run else { return None };
    if !matches!(why, reason::NEEDS_AUTH | reason::GATED | reason::FORBIDDEN) {
        return None;
    }
    let names = grant.secrets.iter().flat_map(|secret| &secret.env);
    names.into_iter().find_map(|name| match plan.env.get(name)? {
        Value::Secret(SecretRef { name: secret, key }) => {
            Some(format!("; now spec.env.{name} names key `{key}` of Secret `{secret}`, which counts where both exist"))
        }
        Value::Literal(_) => None,
    })
}

fn taken_over(reused: u64) -> String {
    if reused == 0 { String::new() } else { format!("; {reused} bytes were in the namespace already") }
}

/// Answers when to look again.
fn progress<A: Artifact>(observed: &Observed<A>, plan: &Plan, status: &mut ArtifactStatus) -> Retry {
    let Some(report) = observed.progress.as_ref().filter(|report| report.progress.inputs == plan.inputs) else {
        return Retry::OnChange;
    };
    let (transfer, retry) = transfer::follow(status.transfer.as_ref(), report, observed.now);
    status.transfer = transfer;
    retry
}

fn running<A: Artifact>(observed: &Observed<A>, plan: &Plan, job: Option<&JobView>, outcome: Option<&Outcome>) -> Say {
    if let Some(outcome @ Outcome::Failed { reason, message, .. }) = outcome
        && observed.makers().all(cause::has_ended)
    {
        let next = if outcome.is_final() { "" } else { "; the Job starts another pod" };
        return Say::no(COMPLETE, reason, format!("{message}{next}"));
    }
    let note = match &plan.run {
        Run::Container(Image { note: Some(note), .. }) => format!("; {note}: it runs as a container"),
        _ => String::new(),
    };
    let message = match (job, cause::of(observed.makers())) {
        (Some(_), Some(cause)) => cause,
        (Some(job), None) => format!("the Job runs{}", cause::since(job.metadata.creation_timestamp.as_ref())),
        (None, _) => "the Job is being created".to_owned(),
    };
    Say::no(COMPLETE, reason::JOB_NOT_COMPLETE, format!("{message}{note}"))
}

fn say<A: Artifact>(observed: &Observed<A>, status: &mut ArtifactStatus, said: Say) {
    status.observed_generation = observed.generation();
    set(&mut status.conditions, said, observed.generation(), observed.now);
}
