//! What a Notebook's status says. Pure: the time is handed in.

use substratus_crds::conditions::{SERVING, reason};
use substratus_crds::{NotebookStatus, PlacementStatus};

use super::build::{TOKEN_VARIABLE, workspace};
use super::idle;
use super::observe::Observed;
use super::plan::Plan;
use crate::kinds::shared::conditions::{Say, set};
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::kinds::shared::{cause, names};

/// The status before any child exists: the plan is on record before anything runs by it.
pub fn planned(observed: &Observed, plan: &Plan) -> NotebookStatus {
    let mut status = observed.notebook.status.clone().unwrap_or_default();
    if plan.is_suspended {
        // An edit of what is suspended does not change why it is.
        status.idle_since = idle::since(observed).or(status.idle_since);
        return status;
    }
    status.idle_since = None;
    status.plan = Some(plan.record());
    status.placement = plan.answers.placement.as_ref().map(|placement| PlacementStatus { reason: placement.reason.clone() });
    if !plan.answers.adopted {
        status.artifacts.get_or_insert_default().url.get_or_insert_with(|| plan.place.clone());
        status.workspace = Some(workspace(plan));
        status.token_secret = (!plan.env.contains_key(TOKEN_VARIABLE)).then(|| names::notebook_token(observed.name()));
    }
    status
}

/// The status of a Notebook that cannot go on. What already runs keeps running; after an edit that is not what is asked for now.
pub fn stopped(observed: &Observed, verdict: &Verdict) -> (NotebookStatus, Retry) {
    let mut status = observed.notebook.status.clone().unwrap_or_default();
    // What is being taken over is known by it.
    let is_newest = status.observed_generation == observed.notebook.metadata.generation;
    status.ready &= observed.is_taken_over() || (is_newest && observed.is_ready());
    // What is suspended does not come here.
    status.idle_since = None;
    say(observed, &mut status, Say::no(SERVING, verdict.reason, verdict.message.clone()));
    (status, verdict.retry)
}

/// The status of a Notebook whose children are as planned.
pub fn conclude(observed: &Observed, plan: &Plan) -> NotebookStatus {
    let mut status = planned(observed, plan);
    status.ready = !plan.is_suspended && observed.is_ready() && is_of(observed, plan);
    let said = if plan.is_suspended {
        Say::no(SERVING, reason::SUSPENDED, suspended(observed, &status))
    } else if status.ready {
        Say::yes(SERVING, reason::POD_READY, notes(observed, plan))
    } else {
        let cause = observed.pod.as_deref().and_then(cause::one);
        let waits = || match observed.pod.as_deref() {
            Some(pod) => format!("the Pod starts{}", cause::since(pod.metadata.creation_timestamp.as_ref())),
            None => "the Pod is being created".to_owned(),
        };
        Say::no(SERVING, reason::POD_NOT_READY, cause.unwrap_or_else(waits))
    };
    say(observed, &mut status, said);
    status
}

/// The Pod is this plan's, and not one that is about to be replaced.
fn is_of(observed: &Observed, plan: &Plan) -> bool {
    let annotations = observed.pod.as_ref().and_then(|pod| pod.metadata.annotations.as_ref());
    plan.answers.adopted || annotations.and_then(|all| all.get(names::IDENTITY)) == Some(&plan.inputs)
}

/// Why it is suspended, and the way out.
fn suspended(observed: &Observed, status: &NotebookStatus) -> String {
    let rest = "the workspace is kept; spec.suspend: false resumes it";
    let Some(since) = &status.idle_since else { return rest.to_owned() };
    let timeout = observed.notebook.spec.idle_timeout.as_deref();
    let timeout = timeout.map(|text| format!(", longer than spec.idleTimeout ({text})")).unwrap_or_default();
    format!("nobody used it since {}{timeout}; {rest}", since.0)
}

/// What there is to say of a Notebook that answers.
fn notes(observed: &Observed, plan: &Plan) -> String {
    let spec = &observed.notebook.spec;
    let named = |reference: &Option<substratus_crds::ObjectRef>| reference.as_ref().is_some_and(|found| !found.name.is_empty());
    let lost = |wanted: bool, found: &Option<String>, kind: &str| {
        (wanted && found.is_none()).then(|| format!("the {kind} is not ready at the moment; the Pod keeps what it has"))
    };
    let adopted = plan.answers.adopted.then(|| "taken over as it was; the next change of spec plans it anew".to_owned());
    let idle = idle::outdated(observed);
    let model = lost(named(&spec.model), &plan.model, "Model");
    let dataset = lost(named(&spec.dataset), &plan.dataset, "Dataset");
    adopted.into_iter().chain(model).chain(dataset).chain(idle).collect::<Vec<_>>().join("; ")
}

fn say(observed: &Observed, status: &mut NotebookStatus, said: Say) {
    status.observed_generation = observed.notebook.metadata.generation;
    set(&mut status.conditions, said, observed.notebook.metadata.generation, observed.now);
}
