//! What a Server's status says. Pure: the time is handed in.

use substratus_crds::conditions::{PLAN_OUTDATED, SERVING, reason};
use substratus_crds::{PlacementStatus, PluginRole, ServerStatus};

use super::observe::Observed;
use super::plan::Plan;
use crate::kinds::shared::cause;
use crate::kinds::shared::conditions::{Say, find, set};
use crate::kinds::shared::names;
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::reconcile::views::DeploymentView;

/// The status before any child exists: the plan is on record before anything runs by it.
pub fn planned(observed: &Observed, plan: &Plan) -> ServerStatus {
    let mut status = observed.server.status.clone().unwrap_or_default();
    let answers = &plan.answers;
    if status.plan.as_ref().is_some_and(|record| record.inputs != plan.inputs) {
        status.ready = false;
    }
    status.plan = Some(plan.record());
    status.engine.clone_from(&answers.engine);
    status.apis = answers.container.as_ref().map(|container| container.apis.clone()).unwrap_or_default();
    status.plugin.clone_from(&answers.adapter);
    status.candidates.clone_from(&answers.candidates);
    status.reason = answers.container.as_ref().map(|container| container.reason.clone()).or_else(|| answers.note.clone());
    status.placement = answers.placement.as_ref().map(|placement| PlacementStatus { reason: placement.reason.clone() });
    status
}

/// The status of a Server that cannot go on. What already serves keeps serving; after an edit that is not what is asked for now.
pub fn stopped(observed: &Observed, verdict: &Verdict) -> (ServerStatus, Retry) {
    let mut status = observed.server.status.clone().unwrap_or_default();
    let answers = answering(observed) > 0;
    // What is being taken over is in no cache yet, and this is all that tells of it.
    let is_taken_over = observed.deployment.is_none() && (observed.recorded().is_none() || observed.is_adopted());
    status.ready &= is_taken_over || (answers && status.observed_generation == observed.server.metadata.generation);
    let still = match (answers, status.ready) {
        (false, _) => "",
        (true, true) => "; its pods keep serving",
        (true, false) => "; the pods of the earlier spec keep serving",
    };
    say(observed, &mut status, Say::no(SERVING, verdict.reason, format!("{}{still}", verdict.message)));
    (status, verdict.retry)
}

/// The status of a Server whose children are as planned.
pub fn conclude(observed: &Observed, plan: &Plan) -> (ServerStatus, Retry) {
    let mut status = planned(observed, plan);
    status.ready = ready(observed, plan);
    status.replicas = observed.deployment.as_ref().map(|deployment| deployment.status.replicas);
    status.selector = Some(selector(observed));
    let said = if status.ready {
        let note = if observed.artifacts_url().is_none() {
            "the Model is not ready at the moment; what was loaded keeps serving".to_owned()
        } else {
            notes(observed, plan)
        };
        Say::yes(SERVING, reason::DEPLOYMENT_READY, note)
    } else {
        let cause = cause::of(observed.pods.iter().map(AsRef::as_ref));
        let waits = || match &observed.server.spec.replicas {
            Some(0) => "scaled to 0 replicas".to_owned(),
            _ => waits(observed),
        };
        let rolling = observed.deployment.as_deref().and_then(rolling).filter(|_| answering(observed) > 0);
        let said = std::iter::once(cause.unwrap_or_else(waits)).chain(rolling).collect::<Vec<_>>().join("; ");
        Say::no(SERVING, reason::DEPLOYMENT_NOT_READY, said)
    };
    say(observed, &mut status, said);
    outdated(observed, plan, &mut status);
    (status, Retry::OnChange)
}

/// Whether a pod of this very plan answers. Where the cache is behind what was applied last, what is on record holds.
fn ready(observed: &Observed, plan: &Plan) -> bool {
    // What was just taken over is in no cache yet.
    let Some(deployment) = observed.deployment.as_deref() else { return plan.answers.adopted && observed.says_ready() };
    if plan.answers.adopted {
        return answering(observed) > 0;
    }
    let identity = deployment.metadata.annotations.as_ref().and_then(|all| all.get(names::IDENTITY));
    if identity.is_some_and(|identity| *identity != plan.inputs) {
        return false;
    }
    let is_behind = deployment.metadata.generation.is_some_and(|newest| deployment.status.observed_generation < newest);
    if identity.is_none() || is_behind {
        return observed.says_ready() && observed.recorded().is_some_and(|record| record.inputs == plan.inputs);
    }
    answering(observed) > earlier(deployment)
}

/// Pods that answer, of whatever spec.
fn answering(observed: &Observed) -> i32 {
    observed.deployment.as_ref().map_or(0, |deployment| deployment.status.ready_replicas)
}

/// Pods of an earlier template.
fn earlier(deployment: &DeploymentView) -> i32 {
    deployment.status.replicas.saturating_sub(deployment.status.updated_replicas)
}

/// Labels of the pods, as an autoscaler asks for them.
fn selector(observed: &Observed) -> String {
    let labels = names::pod_labels("server", observed.name());
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Who answers where, and what else there is to say of a Server that answers.
fn notes(observed: &Observed, plan: &Plan) -> String {
    let who = plan.answers.engine.as_deref().or(plan.answers.image.as_deref()).unwrap_or("the container");
    let answers = format!("{who} answers at http://{}.{}:8080", names::server(observed.name()), observed.owner.namespace);
    let adopted = plan.answers.adopted.then(|| "taken over as it was; the next change of spec plans it anew".to_owned());
    let rollout = observed.deployment.as_deref().and_then(rolling);
    let warnings = plan.answers.container.iter().flat_map(|container| container.warnings.iter().cloned());
    std::iter::once(answers).chain(adopted).chain(rollout).chain(warnings).collect::<Vec<_>>().join("; ")
}

/// How many pods of an earlier spec there still are.
fn rolling(deployment: &DeploymentView) -> Option<String> {
    let (old, all) = (earlier(deployment), deployment.status.replicas);
    (old > 0).then(|| format!("{old} of {all} pods are of an earlier spec and still serve"))
}

fn waits(observed: &Observed) -> String {
    observed.deployment.as_deref().map_or_else(|| "the Deployment is being created".to_owned(), rollout)
}

fn rollout(deployment: &DeploymentView) -> String {
    let failing = deployment.status.conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True");
    match failing.and_then(|condition| condition.message.clone()) {
        Some(message) => message,
        None if earlier(deployment) > 0 => "waiting for the first new pod".to_owned(),
        None => format!("waiting for the first pod{}", cause::since(deployment.metadata.creation_timestamp.as_ref())),
    }
}

/// A newer revision of the adapter is active than the one this plan came from: said, and nothing moved.
fn outdated(observed: &Observed, plan: &Plan, status: &mut ServerStatus) {
    let Some(used) = &plan.answers.adapter else {
        status.conditions.retain(|condition| condition.type_ != PLAN_OUTDATED);
        return;
    };
    let active = observed.catalog.by_name(PluginRole::ServerAdapter, &used.name, &observed.owner.namespace);
    if active.is_none() && observed.catalog.waiting(&used.name).is_none() {
        let message = format!(
            "planned by `{}` {}, which does not answer here any more; its pods keep serving, and the next change of spec is planned by another",
            used.name, used.version
        );
        return say(observed, status, Say::yes(PLAN_OUTDATED, reason::PLUGIN_GONE, message));
    }
    let newer = active.filter(|active| active.digest != used.digest).map(|active| active.manifest.version.clone());
    match newer {
        Some(version) => {
            let message = format!(
                "planned by `{}` {}, and {version} is active; it takes effect with the next change of spec",
                used.name, used.version
            );
            say(observed, status, Say::yes(PLAN_OUTDATED, reason::NEWER_PLUGIN, message));
        }
        None if find(&status.conditions, PLAN_OUTDATED).is_some() => {
            say(observed, status, Say::no(PLAN_OUTDATED, reason::UP_TO_DATE, ""));
        }
        None => {}
    }
}

fn say(observed: &Observed, status: &mut ServerStatus, said: Say) {
    status.observed_generation = observed.server.metadata.generation;
    set(&mut status.conditions, said, observed.server.metadata.generation, observed.now);
}
