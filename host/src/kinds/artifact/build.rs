//! The children of an object from its plan. Pure: the same plan, the same bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{PodTemplateSpec, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Artifact;
use super::observe::Observed;
use super::plan::{Plan, Run};
use super::retry::{self, Built};
use crate::kinds::shared::child::{Child, ChildKind, Policy};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::mounts::{self, Mount};
use crate::kinds::shared::names::{self, ATTEMPT, RETRY};
use crate::kinds::shared::pod::{self, Parts, Security};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::route::Image;
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{env, hash, params};
use crate::plugin::Grant;
use crate::reconcile::service_account;
use crate::worker::report::EXIT_FINAL;
use crate::worker::request::{LoadRequest, REQUEST_KEY};

/// Folder where the worker finds its request.
const REQUEST_DIR: &str = "/etc/substratus/request";
/// Folder that the worker may write to, besides its target.
const SCRATCH_DIR: &str = "/tmp";
/// How often a worker's pod is started again where the user says nothing.
const WORKER_RETRIES: i32 = 6;

/// The children, and which try the Job is.
pub fn build<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
) -> Result<(Vec<Child>, Built), Verdict> {
    let template = match &plan.run {
        Run::Done => return Ok((Vec::new(), Built::default())),
        Run::Load { grant, .. } => worker(observed, environment, plan, grant)?,
        Run::Container(image) => container(observed, environment, plan, image)?,
    };
    let mut children = vec![
        service_account::child(&observed.owner, A::FACTS.account, environment),
        params::child(&observed.owner, A::FACTS.kind, observed.wanted().workload.params),
    ];
    if let Some(request) = request(observed, plan) {
        let text = serde_json::to_string_pretty(&request).unwrap_or_default();
        let data = BTreeMap::from([(REQUEST_KEY.to_owned(), text)]);
        children.push(Child::config_map(&observed.owner, (A::FACTS.job)(observed.name()), data));
    }
    let (job, built) = job(observed, plan, template);
    children.push(job);
    Ok((children, built))
}

/// What the worker is asked to do, where one runs.
pub fn request<A: Artifact>(observed: &Observed<A>, plan: &Plan) -> Option<LoadRequest> {
    let Run::Load { plugin, grant, config } = &plan.run else { return None };
    let wanted = observed.wanted();
    Some(LoadRequest {
        inputs: plan.inputs.clone(),
        namespace: observed.owner.namespace.clone(),
        name: observed.name().to_owned(),
        plugin: plugin.clone(),
        grant: grant.clone(),
        config: config.clone(),
        source: wanted.source.clone(),
        params: params::to_json(wanted.workload.params),
        files: wanted.files.clone().unwrap_or_default(),
        target: plan.target.clone(),
    })
}

fn worker<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
    grant: &Grant,
) -> Result<PodTemplateSpec, Verdict> {
    let secrets = grant.secrets.iter().flat_map(|secret| secret.env.iter().map(String::as_str));
    let workload = observed.wanted().workload;
    let job = (A::FACTS.job)(observed.name());
    let mut template = pod::template(Parts {
        object: (A::FACTS.kind, observed.name().to_owned()),
        container: A::FACTS.container,
        service_account: A::FACTS.account,
        image: environment.worker_image.clone(),
        args: vec![
            A::FACTS.subcommand.to_owned(),
            format!("--request={REQUEST_DIR}/{REQUEST_KEY}"),
            format!("--store={}", environment.store_url),
            format!("--progress-url={}/progress/{}/{job}", environment.store_url, observed.owner.namespace),
            format!("--token-file={}", mounts::TOKEN_FILE),
            format!("--plugin-cache={SCRATCH_DIR}/plugins"),
        ],
        env: env::to_worker(secrets, &plan.env),
        resources: resources::requirements(workload.resources, &Defaults::worker(environment), plan.placement.as_ref()),
        mounts: vec![
            mounts::target(&plan.target)?,
            request_mount(job),
            mounts::store_token(),
            mounts::scratch("scratch", SCRATCH_DIR, None, false),
        ],
        placement: plan.placement.clone(),
        security: Security::Worker,
        restart_policy: Some("Never"),
        options: workload.worker_options(),
        ..Parts::default()
    });
    if let Some(spec) = template.spec.as_mut() {
        // Its only token is the projected one above, for the store alone.
        spec.automount_service_account_token = Some(false);
    }
    pod::pull_secret(&mut template, environment.worker_pull_secret.as_deref());
    Ok(template)
}

fn request_mount(config_map: String) -> Mount {
    Mount {
        volume: mounts::config_map_volume("request", config_map),
        mount: VolumeMount {
            name: "request".to_owned(),
            mount_path: REQUEST_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    }
}

fn container<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
    image: &Image,
) -> Result<PodTemplateSpec, Verdict> {
    let workload = observed.wanted().workload;
    let mut mounts = vec![
        mounts::artifacts("artifacts", "artifacts", &plan.target, false)?,
        mounts::params(names::params(observed.name(), A::FACTS.kind)),
    ];
    mounts.extend(mounts::references(plan.base.as_deref(), plan.dataset.as_deref())?);
    let mut template = pod::template(Parts {
        object: (A::FACTS.kind, observed.name().to_owned()),
        container: A::FACTS.container,
        service_account: A::FACTS.account,
        image: image.name.clone(),
        command: workload.command(),
        args: workload.args.to_vec(),
        env: env::to_container(&[], &plan.env),
        resources: resources::requirements(workload.resources, &Defaults::contract(environment), plan.placement.as_ref()),
        mounts,
        placement: plan.placement.clone(),
        restart_policy: Some("Never"),
        fs_group: Some(3003),
        options: workload.pod.clone(),
        ..Parts::default()
    });
    if let Some(container) = pod::container(&mut template) {
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    Ok(template)
}

fn job<A: Artifact>(observed: &Observed<A>, plan: &Plan, template: PodTemplateSpec) -> (Child, Built) {
    let load = matches!(plan.run, Run::Load { .. });
    // Besides the inputs, what a user changes to get a failed run going; not the image, so an upgrade repeats nothing.
    let wanted = observed.wanted();
    let basis = hash::of(&(&plan.inputs, wanted.workload.env, wanted.workload.resources));
    let job = observed.job.as_deref();
    let same = job.and_then(|job| job.annotation(names::JOB_IDENTITY)).is_some_and(|identity| identity.starts_with(&basis));
    let token = observed.annotation(RETRY);
    let attempt = if load {
        retry::attempt(job, same, observed.outcome(&plan.inputs).as_ref(), token, observed.now)
    } else {
        retry::once(job, same, token)
    };
    let identity = format!("{basis}-{}-{}", attempt.number, hash::of(&attempt.token));
    let annotations =
        BTreeMap::from([(ATTEMPT.to_owned(), attempt.number.to_string()), (RETRY.to_owned(), attempt.token.clone())]);
    let object = Job {
        metadata: ObjectMeta {
            name: Some((A::FACTS.job)(observed.name())),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(wanted.retries.unwrap_or(if load { WORKER_RETRIES } else { A::FACTS.retries })),
            // Never two pods at a time in one folder: one that is being stopped is replaced when it has ended.
            pod_replacement_policy: Some("Failed".to_owned()),
            pod_failure_policy: load.then(|| failure_policy(A::FACTS.container)),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    };
    let is_there = job.is_some_and(|job| job.annotation(names::JOB_IDENTITY) == Some(&identity));
    (Child::new(ChildKind::Job, Policy::Run { identity }, &observed.owner, object), Built { attempt, is_there })
}

/// A typed user error ends the Job at once; a disruption (drain, preemption) does not count as a failure.
fn failure_policy(container: &str) -> PodFailurePolicy {
    let on_exit = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some(container.to_owned()),
            operator: "In".to_owned(),
            values: vec![i32::from(EXIT_FINAL)],
        }),
        ..PodFailurePolicyRule::default()
    };
    let on_disruption = PodFailurePolicyRule {
        action: "Ignore".to_owned(),
        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
            status: "True".to_owned(),
            type_: "DisruptionTarget".to_owned(),
        }]),
        ..PodFailurePolicyRule::default()
    };
    PodFailurePolicy { rules: vec![on_exit, on_disruption] }
}
