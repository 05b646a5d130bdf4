//! A Model's children from its plan. Pure: the same plan, the same bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    ConfigMap, PodTemplateSpec, ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::observe::Observed;
use super::plan::{Plan, Run};
use super::retry::{self, Attempt};
use crate::kinds::shared::child::{Child, ChildKind, Policy};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::mounts::{self, Mount};
use crate::kinds::shared::names::{self, ATTEMPT, RETRY};
use crate::kinds::shared::pod::{self, Parts, Security};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{env, hash, params};
use crate::plugin::Grant;
use crate::reconcile::service_account;
use crate::store;
use crate::worker::report::EXIT_FINAL;
use crate::worker::request::{LoadRequest, REQUEST_KEY};

/// Folder where the worker finds its request.
const REQUEST_DIR: &str = "/etc/substratus/request";
/// Folder that the worker may write to, besides its target.
const SCRATCH_DIR: &str = "/tmp";
/// Folder where the worker finds its token for the store.
const TOKEN_DIR: &str = "/var/run/secrets/substratus.ai";

/// The children, and which try the Job is.
pub fn build(observed: &Observed, environment: &Environment, plan: &Plan) -> Result<(Vec<Child>, Attempt), Verdict> {
    let template = match &plan.run {
        Run::Done => return Ok((Vec::new(), Attempt::default())),
        Run::Load { grant, .. } => worker(observed, environment, plan, grant)?,
        Run::Container { image, .. } => container(observed, environment, plan, image)?,
    };
    let mut children = vec![service_account::child(&observed.owner, names::MODELLER, environment), params_map(observed)];
    if let Some(request) = request(observed, plan) {
        let text = serde_json::to_string_pretty(&request).unwrap_or_default();
        let data = BTreeMap::from([(REQUEST_KEY.to_owned(), text)]);
        children.push(config_map(observed, names::model_job(observed.name()), data));
    }
    let (job, attempt) = job(observed, plan, template);
    children.push(job);
    Ok((children, attempt))
}

fn params_map(observed: &Observed) -> Child {
    let data = BTreeMap::from([("params.json".to_owned(), params::file(observed.model.spec.params.as_ref()))]);
    config_map(observed, names::params(observed.name(), "model"), data)
}

/// What the worker is asked to do, where one runs.
pub fn request(observed: &Observed, plan: &Plan) -> Option<LoadRequest> {
    let Run::Load { plugin, grant, config } = &plan.run else { return None };
    let spec = &observed.model.spec;
    Some(LoadRequest {
        inputs: plan.inputs.clone(),
        namespace: observed.owner.namespace.clone(),
        name: observed.name().to_owned(),
        plugin: plugin.clone(),
        grant: grant.clone(),
        config: config.clone(),
        source: spec.source.clone(),
        params: params::to_json(spec.params.as_ref()),
        files: spec.files.clone().unwrap_or_default(),
        target: plan.target.clone(),
    })
}

fn config_map(observed: &Observed, name: String, data: BTreeMap<String, String>) -> Child {
    let object = ConfigMap {
        metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    };
    Child::new(ChildKind::ConfigMap, Policy::Own, &observed.owner, object)
}

fn worker(observed: &Observed, environment: &Environment, plan: &Plan, grant: &Grant) -> Result<PodTemplateSpec, Verdict> {
    let secrets = grant.secrets.iter().flat_map(|secret| secret.env.iter().map(String::as_str));
    let mut template = pod::template(Parts {
        object: ("model", observed.name().to_owned()),
        container: "model",
        service_account: names::MODELLER,
        image: environment.worker_image.clone(),
        args: vec![
            "load".to_owned(),
            format!("--request={REQUEST_DIR}/{REQUEST_KEY}"),
            format!("--store={}", environment.store_url),
            format!("--progress-url={}/progress/{}/{}", environment.store_url, observed.owner.namespace, observed.name()),
            format!("--token-file={TOKEN_DIR}/token"),
            format!("--plugin-cache={SCRATCH_DIR}/plugins"),
        ],
        env: env::to_worker(secrets, &plan.env),
        resources: resources::requirements(
            observed.model.spec.resources.as_ref(),
            &Defaults::worker(environment),
            plan.placement.as_ref(),
        ),
        mounts: vec![
            mounts::target(&plan.target)?,
            request_mount(observed),
            token_mount(),
            mounts::scratch("scratch", SCRATCH_DIR, None, false),
        ],
        placement: plan.placement.clone(),
        security: Security::Worker,
        restart_policy: Some("Never"),
        ..Parts::default()
    });
    if let Some(spec) = template.spec.as_mut() {
        // Its only token is the projected one above, for the store alone.
        spec.automount_service_account_token = Some(false);
    }
    pod::pull_secret(&mut template, environment.worker_pull_secret.as_deref());
    Ok(template)
}

fn request_mount(observed: &Observed) -> Mount {
    Mount {
        volume: mounts::config_map_volume("request", names::model_job(observed.name())),
        mount: VolumeMount {
            name: "request".to_owned(),
            mount_path: REQUEST_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    }
}

fn token_mount() -> Mount {
    let token = ServiceAccountTokenProjection {
        audience: Some(store::AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: "token".to_owned(),
    };
    Mount {
        volume: Volume {
            name: "store-token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        mount: VolumeMount {
            name: "store-token".to_owned(),
            mount_path: TOKEN_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    }
}

fn container(observed: &Observed, environment: &Environment, plan: &Plan, image: &str) -> Result<PodTemplateSpec, Verdict> {
    let spec = &observed.model.spec;
    let mut mounts = vec![
        mounts::artifacts("artifacts", "artifacts", &plan.target, false)?,
        mounts::params(names::params(observed.name(), "model")),
    ];
    if let Some(base) = &plan.base {
        mounts.push(mounts::artifacts("model", "model", base, true)?);
    }
    let mut template = pod::template(Parts {
        object: ("model", observed.name().to_owned()),
        container: "model",
        service_account: names::MODELLER,
        image: image.to_owned(),
        command: spec.command.clone().unwrap_or_default(),
        env: env::to_container(&[], &plan.env),
        resources: resources::requirements(spec.resources.as_ref(), &Defaults::contract(environment), plan.placement.as_ref()),
        mounts,
        placement: plan.placement.clone(),
        restart_policy: Some("Never"),
        fs_group: Some(3003),
        ..Parts::default()
    });
    if let Some(container) = pod::container(&mut template) {
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    Ok(template)
}

fn job(observed: &Observed, plan: &Plan, template: PodTemplateSpec) -> (Child, Attempt) {
    let load = matches!(plan.run, Run::Load { .. });
    // Besides the inputs, what a user changes to get a failed run going; not the image, so an upgrade repeats nothing.
    let spec = &observed.model.spec;
    let basis = hash::of(&(&plan.inputs, &spec.env, &spec.resources));
    let job = observed.job.as_deref();
    let same = job.and_then(|job| job.annotation(names::JOB_IDENTITY)).is_some_and(|identity| identity.starts_with(&basis));
    let attempt = if load {
        let token = observed.model.metadata.annotations.as_ref().and_then(|all| all.get(RETRY)).map(String::as_str);
        retry::attempt(job, same, observed.outcome(&plan.inputs).as_ref(), token, observed.now)
    } else {
        // The contract of the first operator: a container's Job runs once.
        Attempt::default()
    };
    let identity = format!("{basis}-{}-{}", attempt.number, hash::of(&attempt.token));
    let annotations =
        BTreeMap::from([(ATTEMPT.to_owned(), attempt.number.to_string()), (RETRY.to_owned(), attempt.token.clone())]);
    let object = Job {
        metadata: ObjectMeta {
            name: Some(names::model_job(observed.name())),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(if load { 6 } else { 0 }),
            pod_failure_policy: load.then(failure_policy),
            template,
            ..JobSpec::default()
        }),
        ..Job::default()
    };
    (Child::new(ChildKind::Job, Policy::Run { identity }, &observed.owner, object), attempt)
}

/// A typed user error ends the Job at once; a disruption (drain, preemption) does not count as a failure.
fn failure_policy() -> PodFailurePolicy {
    let on_exit = PodFailurePolicyRule {
        action: "FailJob".to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            container_name: Some("model".to_owned()),
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
