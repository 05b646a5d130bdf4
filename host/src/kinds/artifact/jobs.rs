//! The Jobs of an object: one, or two where the shards of an import are spread over several pods; and which try they are. Pure.
//! Knows nothing of what is in a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Artifact;
use super::build::worker;
use super::observe::Observed;
use super::plan::Plan;
use super::retry::{self, Attempt, Built};
use crate::kinds::shared::child::{Child, ChildKind, Policy};
use crate::kinds::shared::content;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::hash;
use crate::kinds::shared::names::{self, ATTEMPT, RETRY};
use crate::kinds::shared::verdict::Verdict;
use crate::plugin::Grant;
use crate::reconcile::views::JobView;
use crate::worker::report::final_codes;

/// How often a worker's pod is started again where the user says nothing.
pub(super) const WORKER_RETRIES: i32 = 6;

/// The Job of a worker; with shards spread over several pods, one that plans and puts together and one that does the shards. They
/// meet in the records beside the artifact. One that failed takes the other with it: both belong to one try.
pub(super) fn of_worker<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
    grant: &Grant,
) -> Result<(Vec<Child>, Built), Verdict> {
    // In an object store nobody meets: one pod does it all.
    let shards = shards(observed).filter(|_| content::is_folder(&plan.target));
    let basis = basis(observed, plan, shards.as_ref().map(|(_, number)| *number));
    let decisive = failed(observed).or(observed.job.as_deref());
    let outcome = decisive.and_then(|job| observed.outcome(&plan.inputs, job.metadata.name.as_deref()?));
    let same = decisive.is_some_and(|job| is_of(job, &basis));
    let attempt =
        retry::attempt(decisive, recorded(observed, plan), same, outcome.as_ref(), observed.annotation(RETRY), observed.now);
    let retries = observed.wanted().retries.unwrap_or(WORKER_RETRIES);
    let name = (A::FACTS.job)(observed.name());
    let mut part = vec![format!("--progress-url={}/progress/{}/{name}", environment.store_url, observed.owner.namespace)];
    part.extend(shards.is_some().then(|| "--lead".to_owned()));
    let spec = JobSpec {
        backoff_limit: Some(retries),
        pod_failure_policy: Some(failure_policy(A::FACTS.container)),
        template: worker(observed, environment, plan, grant, &part)?,
        ..JobSpec::default()
    };
    let mut jobs = vec![child(observed, &basis, &attempt, name, spec)];
    if let Some((name, number)) = shards {
        // The Job controller tells every pod its index.
        let part = [format!("--share=$(JOB_COMPLETION_INDEX)/{number}")];
        let spec = JobSpec {
            completion_mode: Some("Indexed".to_owned()),
            completions: Some(number),
            parallelism: Some(number),
            backoff_limit_per_index: Some(retries),
            pod_failure_policy: Some(failure_policy(A::FACTS.container)),
            template: worker(observed, environment, plan, grant, &part)?,
            ..JobSpec::default()
        };
        jobs.push(child(observed, &basis, &attempt, name, spec));
    }
    if attempt.wait.is_some() {
        // The other one has nothing to wait for until the next try.
        let failed = decisive.and_then(|job| job.metadata.name.as_deref());
        jobs.retain(|job| failed == Some(&job.name));
    }
    let built = built(decisive, &basis, attempt);
    Ok((jobs, built))
}

/// The Job of a container. Where what it leaves has to be published, a Job that succeeded and of which the publisher did not say
/// so runs again.
pub(super) fn of_container<A: Artifact>(observed: &Observed<A>, plan: &Plan, template: PodTemplateSpec) -> (Vec<Child>, Built) {
    let basis = basis(observed, plan, None);
    let job = observed.job.as_deref();
    let (same, token) = (job.is_some_and(|job| is_of(job, &basis)), observed.annotation(RETRY));
    let attempt = match job.filter(|job| plan.is_published && same && job.holds("Complete").is_some()) {
        Some(job) => {
            let said = job.metadata.name.as_deref().and_then(|name| observed.published(&plan.inputs, name));
            retry::published(job, said.as_ref(), token, observed.now)
        }
        None => retry::once(job, recorded(observed, plan), same, token),
    };
    let spec = JobSpec {
        backoff_limit: Some(observed.wanted().retries.unwrap_or(A::FACTS.retries)),
        pod_failure_policy: copying_policy(&template),
        template,
        ..JobSpec::default()
    };
    let child = child(observed, &basis, &attempt, (A::FACTS.job)(observed.name()), spec);
    (vec![child], built(job, &basis, attempt))
}

/// What is there already of a worker's work, left as it is.
pub(super) fn kept<A: Artifact>(observed: &Observed<A>, plan: &Plan) -> (Vec<Child>, Built) {
    let (owner, job) = (&observed.owner, (A::FACTS.job)(observed.name()));
    let mut children = vec![
        Child::adopted::<ConfigMap>(ChildKind::ConfigMap, owner, job.clone()),
        Child::adopted::<Job>(ChildKind::Job, owner, job),
    ];
    let shards = observed.shards.as_ref().and_then(|job| job.metadata.name.clone());
    children.extend(shards.map(|name| Child::adopted::<Job>(ChildKind::Job, owner, name)));
    let attempt = Attempt { number: recorded(observed, plan), ..Attempt::default() };
    (children, Built { attempt, is_there: true, push: None })
}

/// Whether a worker's Job for this very plan runs, or ended well.
pub(super) fn is_under_way<A: Artifact>(observed: &Observed<A>, plan: &Plan) -> bool {
    let shards = shards(observed).filter(|_| content::is_folder(&plan.target));
    let basis = basis(observed, plan, shards.map(|(_, number)| number));
    let stays = |job: &JobView| job.metadata.deletion_timestamp.is_none() && is_of(job, &basis);
    failed(observed).is_none() && observed.job.as_deref().is_some_and(stays)
}

/// Policies whose pods have all ended, by the Jobs that made them; every one of them where an administrator wants none.
pub(super) fn idle_policies<A: Artifact>(observed: &Observed<A>, environment: &Environment) -> Vec<String> {
    let runs = |job: &Option<Arc<JobView>>| {
        job.as_ref().is_some_and(|job| job.holds("Complete").is_none() && job.holds("Failed").is_none())
    };
    let makers = (A::FACTS.job)(observed.name());
    let makers = (!runs(&observed.job) && !runs(&observed.shards) || !environment.confines_workers).then_some(makers);
    let publish = A::FACTS.publish.map(|publish| publish(observed.name()));
    let publish = publish.filter(|_| !runs(&observed.publisher) || !environment.confines_workers);
    makers.into_iter().chain(publish).collect()
}

/// The try on record for this plan.
fn recorded<A: Artifact>(observed: &Observed<A>, plan: &Plan) -> u32 {
    let record = observed.recorded().filter(|record| record.inputs == plan.inputs);
    record.and_then(|record| u32::try_from(record.attempt).ok()).unwrap_or_default()
}

/// Name and size of the Job for shards, where more than one pod is asked for.
fn shards<A: Artifact>(observed: &Observed<A>) -> Option<(String, i32)> {
    let number = observed.wanted().parallelism.filter(|number| *number > 1)?;
    Some((A::FACTS.shards?(observed.name()), number))
}

/// The Job that ended badly. The artifact is whole once the first one ended well, whatever became of the other.
pub(super) fn failed<A: Artifact>(observed: &Observed<A>) -> Option<&JobView> {
    if observed.job.as_ref().is_some_and(|job| job.holds("Complete").is_some()) {
        return None;
    }
    [&observed.job, &observed.shards].into_iter().flatten().map(AsRef::as_ref).find(|job| job.holds("Failed").is_some())
}

/// Besides the inputs, what a user changes to get a failed run going; not the image, so an upgrade repeats nothing.
fn basis<A: Artifact>(observed: &Observed<A>, plan: &Plan, shards: Option<i32>) -> String {
    let workload = observed.wanted().workload;
    match shards {
        None => hash::of(&(&plan.inputs, workload.env, workload.resources)),
        Some(shards) => hash::of(&(&plan.inputs, workload.env, workload.resources, shards)),
    }
}

pub(super) fn is_of(job: &JobView, basis: &str) -> bool {
    job.annotation(names::IDENTITY).is_some_and(|identity| identity.starts_with(basis))
}

fn identity(basis: &str, attempt: &Attempt) -> String {
    format!("{basis}-{}-{}", attempt.number, hash::of(&attempt.token))
}

pub(super) fn built(job: Option<&JobView>, basis: &str, attempt: Attempt) -> Built {
    let identity = identity(basis, &attempt);
    Built { attempt, is_there: job.is_some_and(|job| job.annotation(names::IDENTITY) == Some(&identity)), push: None }
}

pub(super) fn child<A: Artifact>(observed: &Observed<A>, basis: &str, attempt: &Attempt, name: String, spec: JobSpec) -> Child {
    let annotations =
        BTreeMap::from([(ATTEMPT.to_owned(), attempt.number.to_string()), (RETRY.to_owned(), attempt.token.clone())]);
    let metadata = ObjectMeta { name: Some(name), annotations: Some(annotations), ..ObjectMeta::default() };
    // Never two pods at a time in one folder: one that is being stopped is replaced when it has ended.
    let spec = JobSpec { pod_replacement_policy: Some("Failed".to_owned()), ..spec };
    let job = Job { metadata, spec: Some(spec), ..Job::default() };
    Child::new(ChildKind::Job, Policy::Run { identity: identity(basis, attempt) }, &observed.owner, job)
}

/// A typed user error of a worker ends the Job at once; a disruption (drain, preemption) does not count as a failure.
pub(super) fn failure_policy(container: &str) -> PodFailurePolicy {
    failure_policy_of(&[container])
}

/// The same of several containers of a pod.
pub fn failure_policy_of(containers: &[&str]) -> PodFailurePolicy {
    let on_disruption = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            status: "True".to_owned(),
            type_: "DisruptionTarget".to_owned(),
        }]),
        ..PodFailurePolicyRule::default()
    };
    let rules = containers.iter().map(|container| final_error(container)).chain([on_disruption]);
    PodFailurePolicy { rules: rules.collect() }
}

/// The same of containers that copy into a user's pod. What else befalls them is no failure of the user's, and tried again.
pub(super) fn copying_policy(template: &PodTemplateSpec) -> Option<PodFailurePolicy> {
    let containers = template.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let copiers = containers.map(|container| container.name.as_str()).filter(|name| name.starts_with(content::STAGE));
    let rules: Vec<_> = copiers.flat_map(|name| [final_error(name), on_exit("Ignore", name, ("NotIn", vec![0]))]).collect();
    (!rules.is_empty()).then_some(PodFailurePolicy { rules })
}

fn final_error(container: &str) -> PodFailurePolicyRule {
    on_exit("FailJob", container, ("In", final_codes().map(i32::from).collect()))
}

fn on_exit(action: &str, container: &str, (operator, values): (&str, Vec<i32>)) -> PodFailurePolicyRule {
    PodFailurePolicyRule {
        action: action.to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(container.to_owned()),
            operator: operator.to_owned(),
            values,
        }),
        ..PodFailurePolicyRule::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn copies_that_fail_are_tried_again_and_trainings_are_not() {
        let template = |names: &[&str]| -> PodTemplateSpec {
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            serde_json::from_value(json!({"spec": {"containers": [{"name": "model"}], "initContainers": containers}})).unwrap()
        };
        assert_eq!(copying_policy(&template(&["publish-artifacts"])), None);
        let policy = serde_json::to_value(copying_policy(&template(&["stage-model", "publish-artifacts"]))).unwrap();
        let rules: Vec<_> = policy["rules"].as_array().unwrap().iter().collect();
        assert_eq!(rules.len(), 2, "the container itself has none: {policy}");
        assert_eq!((&rules[0]["action"], &rules[0]["onExitCodes"]["values"][0]), (&json!("FailJob"), &json!(64)));
        let others = json!({"containerName": "stage-model", "operator": "NotIn", "values": [0]});
        assert_eq!((&rules[1]["action"], &rules[1]["onExitCodes"]), (&json!("Ignore"), &others));
    }
}
