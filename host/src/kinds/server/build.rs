//! A Server's children from its plan. Pure: the same plan, the same bytes.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Container as PodContainer, Lifecycle, LifecycleHandler, PodTemplateSpec, Service, ServicePort, ServiceSpec, SleepAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use substratus_crds::PodOptions;

use super::observe::Observed;
use super::plan::Plan;
use crate::kinds::shared::child::{Child, ChildKind, Policy};
use crate::kinds::shared::content::{Builder, Content};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::mounts::{self, Mount};
use crate::kinds::shared::names;
use crate::kinds::shared::pod::{self, Parts, Security};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::verdict::Verdict;
use crate::kinds::shared::workload::Workload;
use crate::kinds::shared::{env, hash, params, workload_identity};
use crate::plugin::types::Container;
use crate::reconcile::service_account;

/// Name of the container's port, and what the Service and probes point to.
const PORT: &str = "http-serve";

/// Seconds that a container without an adapter keeps answering after its pod was taken out of the Service.
const DRAIN_SECONDS: i64 = 5;

/// The children.
pub fn build(observed: &Observed, environment: &Environment, plan: &Plan) -> Result<Vec<Child>, Verdict> {
    Ok(vec![
        service_account::child(&observed.owner, names::MODEL_SERVER, environment),
        params::child(&observed.owner, "server", observed.server.spec.params.as_ref()),
        service(observed),
        if plan.answers.adopted {
            Child::adopted::<Deployment>(ChildKind::Deployment, &observed.owner, names::server(observed.name()))
        } else {
            deployment(observed, environment, plan)?
        },
    ])
}

fn service(observed: &Observed) -> Child {
    let object = Service {
        metadata: ObjectMeta { name: Some(names::server(observed.name())), ..ObjectMeta::default() },
        spec: Some(ServiceSpec {
            selector: Some(names::pod_labels("server", observed.name())),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: 8080,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(PORT.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    Child::new(ChildKind::Service, Policy::Own, &observed.owner, object)
}

fn deployment(observed: &Observed, environment: &Environment, plan: &Plan) -> Result<Child, Verdict> {
    let mut template = match &plan.answers.container {
        Some(answer) => engine(observed, environment, plan, answer)?,
        None => contract(observed, environment, plan)?,
    };
    if let Some(container) = pod::container(&mut template) {
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    if let (Some(metadata), Some(params)) = (template.metadata.as_mut(), &observed.server.spec.params) {
        // A pod does not see its parameters change.
        metadata.annotations.get_or_insert_default().insert(names::PARAMS.to_owned(), hash::of(params));
    }
    let selector = BTreeMap::from([("server".to_owned(), observed.name().to_owned())]);
    let gpus = resources::gpu_count(observed.server.spec.resources.as_ref()) > 0;
    let object = Deployment {
        metadata: ObjectMeta {
            name: Some(names::server(observed.name())),
            annotations: Some(BTreeMap::from([(names::IDENTITY.to_owned(), plan.inputs.clone())])),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            // One is what Kubernetes assumes. Left out, the field is nobody's: whoever scales the Deployment itself may have it.
            replicas: observed.server.spec.replicas.filter(|replicas| *replicas != 1),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            // A full node must not deadlock: the old pod gives its GPUs back before the new one asks for them.
            strategy: gpus.then(|| DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    };
    Ok(Child::new(ChildKind::Deployment, Policy::Own, &observed.owner, object))
}

fn contract(observed: &Observed, environment: &Environment, plan: &Plan) -> Result<PodTemplateSpec, Verdict> {
    let workload = Workload::from(&observed.server.spec);
    let mut template = pod::template(Parts {
        object: ("server", observed.name().to_owned()),
        container: "serve",
        service_account: names::MODEL_SERVER,
        labels: workload_identity::pod_labels(environment),
        image: plan.answers.image.clone().unwrap_or_default(),
        command: workload.command(),
        args: workload.args.to_vec(),
        env: env::to_container(&[], &plan.env),
        resources: resources::requirements(workload.resources, &Defaults::contract(environment), plan.answers.placement.as_ref()),
        content: content(environment, plan, workload.pod)?,
        mounts: vec![parameters(observed)],
        placement: plan.answers.placement.clone(),
        options: workload.pod.clone(),
        ..Parts::default()
    });
    if let Some(container) = pod::container(&mut template) {
        container.image_pull_policy = Some("Always".to_owned());
        container.ports = Some(vec![pod::port(PORT, 8080)]);
        container.readiness_probe = Some(pod::http_get("/", PORT));
        container.lifecycle = Some(sleep_before_stop(DRAIN_SECONDS));
    }
    Ok(template)
}

fn content(environment: &Environment, plan: &Plan, options: &PodOptions) -> Result<Content, Verdict> {
    let mut content = Content::default();
    Builder { environment, options }.read(&mut content, "model", "model", &plan.answers.artifacts)?;
    Ok(content)
}

fn parameters(observed: &Observed) -> Mount {
    mounts::params(names::params(observed.name(), "server"))
}

fn engine(observed: &Observed, environment: &Environment, plan: &Plan, answer: &Container) -> Result<PodTemplateSpec, Verdict> {
    let workload = Workload::from(&observed.server.spec);
    let mut mounts = vec![parameters(observed)];
    mounts.extend(
        answer.caches.iter().map(|cache| mounts::scratch(&format!("cache-{}", cache.name), &cache.mount_path, cache.size, false)),
    );
    mounts.extend(answer.shm.map(|bytes| mounts::scratch("shm", "/dev/shm", Some(bytes), true)));
    let mut template = pod::template(Parts {
        object: ("server", observed.name().to_owned()),
        container: "serve",
        service_account: names::MODEL_SERVER,
        labels: workload_identity::pod_labels(environment),
        image: answer.image.clone(),
        command: answer.command.clone(),
        args: answer.args.iter().chain(workload.args).cloned().collect(),
        env: env::to_container(&answer.env, &plan.env),
        resources: resources::requirements(
            workload.resources,
            &Defaults::engine(environment, answer.cpu, answer.memory),
            plan.answers.placement.as_ref(),
        ),
        content: content(environment, plan, workload.pod)?,
        mounts,
        placement: plan.answers.placement.clone(),
        security: Security::Engine,
        options: workload.pod.clone(),
        ..Parts::default()
    });
    if let Some(spec) = template.spec.as_mut() {
        let grace = answer.drain_seconds.saturating_add(answer.grace_seconds).clamp(1, 3600);
        spec.termination_grace_period_seconds = Some(i64::from(grace));
    }
    if let Some(container) = pod::container(&mut template) {
        probes(container, answer);
    }
    Ok(template)
}

fn probes(container: &mut PodContainer, answer: &Container) {
    container.ports = Some(vec![pod::port(PORT, answer.port)]);
    container.startup_probe = answer.startup.as_ref().map(|asked| pod::probe(asked, PORT));
    container.readiness_probe = Some(pod::probe(&answer.readiness, PORT));
    container.liveness_probe = answer.liveness.as_ref().map(|asked| pod::probe(asked, PORT));
    container.lifecycle = (answer.drain_seconds > 0).then(|| sleep_before_stop(i64::from(answer.drain_seconds.min(3600))));
}

/// A pod that is to end leaves the Service first and stops listening later: no request meets a closed port.
fn sleep_before_stop(seconds: i64) -> Lifecycle {
    Lifecycle {
        pre_stop: Some(LifecycleHandler { sleep: Some(SleepAction { seconds }), ..LifecycleHandler::default() }),
        ..Lifecycle::default()
    }
}
