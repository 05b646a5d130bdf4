//! The children of an object from its plan. Pure: the same plan, the same bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::Artifact;
use super::jobs;
use super::observe::Observed;
use super::plan::{Plan, Run};
use super::push;
use super::retry::Built;
use crate::kinds::shared::child::Child;
use crate::kinds::shared::content::{self, Builder, Content, GROUP};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::mounts;
use crate::kinds::shared::names;
use crate::kinds::shared::network_policy::{self, Worker};
use crate::kinds::shared::offers;
use crate::kinds::shared::pod::{self, Parts};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::route::Image;
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::{env, network, params, workload_identity};
use crate::plugin::{Grant, SecretScheme};
use crate::reconcile::service_account;
use crate::worker::request::{LoadRequest, REQUEST_KEY};

/// Folder where the worker finds its request.
const REQUEST_DIR: &str = "/etc/substratus/request";
/// Folder that the worker may write to, besides its target.
const SCRATCH_DIR: &str = "/tmp";

/// The children, and which try the Job is.
pub fn build<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
) -> Result<(Vec<Child>, Built), Verdict> {
    let (jobs, built) = match &plan.run {
        Run::Done => return push::build(observed, environment, plan),
        Run::Load { grant, .. } => jobs::of_worker(observed, environment, plan, grant)?,
        Run::Kept { .. } => jobs::kept(observed, plan),
        Run::Container(image) => jobs::of_container(observed, plan, container(observed, environment, plan, image)?),
    };
    let mut children = vec![
        service_account::child(&observed.owner, A::FACTS.account, environment),
        params::child(&observed.owner, A::FACTS.kind, observed.wanted().workload.params),
    ];
    if let Some(request) = request(observed, environment, plan)? {
        let text = serde_json::to_string_pretty(&request).unwrap_or_default();
        let data = BTreeMap::from([(REQUEST_KEY.to_owned(), text)]);
        children.push(Child::config_map(&observed.owner, (A::FACTS.job)(observed.name()), data));
        children.extend(policy(observed, environment, plan, &request));
    }
    children.extend(jobs);
    Ok((children, built))
}

/// What the worker is asked to do, where one runs.
pub fn request<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
) -> Result<Option<LoadRequest>, Verdict> {
    let Run::Load { plugin, grant, config } = &plan.run else { return Ok(None) };
    let wanted = observed.wanted();
    Ok(Some(LoadRequest {
        inputs: plan.inputs.clone(),
        namespace: observed.owner.namespace.clone(),
        name: observed.name().to_owned(),
        plugin: plugin.clone(),
        grant: grant.clone(),
        config: config.clone(),
        source: wanted.source.clone(),
        params: params::to_json(wanted.workload.params),
        files: wanted.files.clone().unwrap_or_default(),
        target: content::target(environment, &plan.target)?.url,
    }))
}

/// What the worker's pods may connect to; those of shards are under the same.
fn policy<A: Artifact>(observed: &Observed<A>, environment: &Environment, plan: &Plan, request: &LoadRequest) -> Option<Child> {
    let plugin = observed.catalog.by_name(A::FACTS.role, &request.plugin.name, &observed.owner.namespace);
    let worker = Worker {
        object: (A::FACTS.kind, observed.name()),
        job: (A::FACTS.job)(observed.name()),
        hosts: &request.grant.hosts,
        named: plugin.is_some_and(|plugin| plugin.named),
        plain_http: &[],
        bucket: &plan.target,
    };
    network_policy::child(&observed.owner, environment, &worker)
}

/// The worker's pod; `part` are the arguments that say what of the work is its own.
pub(super) fn worker<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
    grant: &Grant,
    part: &[String],
) -> Result<PodTemplateSpec, Verdict> {
    let secrets = grant.secrets.iter().flat_map(|secret| secret.env.iter().map(String::as_str));
    let workload = observed.wanted().workload;
    let job = (A::FACTS.job)(observed.name());
    let target = content::target(environment, &plan.target)?;
    let offers = offers::to(&plan.target, &observed.siblings)?;
    let reuse: Vec<String> = offers.urls.iter().map(|url| format!("--reuse={url}")).collect();
    // A loader of registries shows the accounts that images are pulled with.
    let of_registries =
        A::FACTS.subcommand == "load" && grant.secrets.iter().any(|secret| secret.scheme == SecretScheme::Registry);
    let accounts = (of_registries && !workload.pod.image_pull_secrets.is_empty())
        .then(|| format!("--pull-secrets={}", mounts::PULL_SECRETS));
    let mut template = pod::template(Parts {
        object: (A::FACTS.kind, observed.name().to_owned()),
        container: A::FACTS.container,
        service_account: A::FACTS.account,
        labels: workload_identity::pod_labels(environment).into_iter().chain(network_policy::label(&job)).collect(),
        image: environment.worker_image.clone(),
        args: [
            &[
                A::FACTS.subcommand.to_owned(),
                format!("--request={REQUEST_DIR}/{REQUEST_KEY}"),
                format!("--store={}", environment.store_url),
            ],
            part,
            &reuse,
            accounts.as_slice(),
            &[format!("--token-file={}", mounts::TOKEN_FILE), format!("--plugin-cache={SCRATCH_DIR}/plugins")],
        ]
        .concat(),
        env: env::to_worker(&network::variables(environment), secrets, &plan.env),
        resources: resources::requirements(workload.resources, &Defaults::worker(environment), plan.placement.as_ref()),
        mounts: target
            .mount
            .into_iter()
            .chain(offers.mounts)
            .chain(network::certificates(environment))
            .chain([
                mounts::config_map("request", job, REQUEST_DIR),
                mounts::store_token(),
                mounts::scratch("scratch", SCRATCH_DIR, None, false),
            ])
            .chain(accounts.is_some().then(|| mounts::pull_secrets(&workload.pod.image_pull_secrets)))
            .collect(),
        placement: plan.placement.clone(),
        security: target.security,
        fs_group: target.fs_group,
        restart_policy: Some("Never"),
        options: workload.worker_options(),
        ..Parts::default()
    });
    pod::without_token(&mut template);
    if let Some(container) = pod::container(&mut template) {
        container.env_from = target.env_from;
    }
    pod::pull_secret(&mut template, environment.worker_pull_secret.as_deref());
    Ok(template)
}

fn container<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
    image: &Image,
) -> Result<PodTemplateSpec, Verdict> {
    let workload = observed.wanted().workload;
    let (mut content, builder) = (Content::default(), Builder { environment, options: workload.pod });
    builder.references(&mut content, plan.base.as_deref(), plan.dataset.as_deref())?;
    // Its sidecar starts when all that it needs is there.
    builder.write(&mut content, &plan.target, &plan.inputs)?;
    let mut template = pod::template(Parts {
        object: (A::FACTS.kind, observed.name().to_owned()),
        container: A::FACTS.container,
        service_account: A::FACTS.account,
        labels: workload_identity::pod_labels(environment),
        image: image.name.clone(),
        command: workload.command(),
        args: workload.args.to_vec(),
        env: env::to_container(&[], &plan.env),
        resources: resources::requirements(workload.resources, &Defaults::contract(environment), plan.placement.as_ref()),
        content,
        mounts: vec![mounts::params(names::params(observed.name(), A::FACTS.kind))],
        placement: plan.placement.clone(),
        restart_policy: Some("Never"),
        fs_group: Some(GROUP),
        options: workload.pod.clone(),
        ..Parts::default()
    });
    if let Some(container) = pod::container(&mut template) {
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    Ok(template)
}
