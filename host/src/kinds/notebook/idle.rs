//! The sidecar that watches whether a Notebook is used, and what the Notebook says of it. Pure: it knows the sidecar's flags,
//! not how it watches.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EnvVar, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::build::TOKEN_VARIABLE;
use super::observe::Observed;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::names::{IDLE, IDLE_TIMEOUT};
use crate::kinds::shared::pod::{self, Security};
use crate::kinds::shared::{duration, mounts};

/// Adds the sidecar where the spec has an `idleTimeout`; `variables` are those of the Notebook's own container.
pub fn watch(template: &mut PodTemplateSpec, observed: &Observed, environment: &Environment, variables: &[EnvVar]) {
    let Some(timeout) = &observed.notebook.spec.idle_timeout else { return };
    let token = mounts::store_token();
    let namespace = &observed.owner.namespace;
    let container = Container {
        name: "idle".to_owned(),
        image: Some(environment.worker_image.clone()),
        args: Some(vec![
            "idle".to_owned(),
            format!("--timeout={timeout}"),
            format!("--report-url={}/idle/{namespace}/{}", environment.store_url, observed.name()),
            format!("--token-file={}", mounts::TOKEN_FILE),
        ]),
        // Jupyter's own token, as the Notebook has it: from its Secret, or from the spec.
        env: Some(variables.iter().filter(|variable| variable.name == TOKEN_VARIABLE).cloned().collect()),
        resources: Some(resources()),
        // A sidecar: it starts before the Notebook, is started again where it ends, and ends after it.
        restart_policy: Some("Always".to_owned()),
        security_context: pod::security_context(Security::Own),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![token.mount]),
        ..Container::default()
    };
    let metadata = template.metadata.get_or_insert_default();
    metadata.annotations.get_or_insert_default().insert(IDLE_TIMEOUT.to_owned(), timeout.clone());
    if let Some(spec) = template.spec.as_mut() {
        spec.init_containers.get_or_insert_default().push(container);
        spec.volumes.get_or_insert_default().push(token.volume);
    }
    pod::pull_secret(template, environment.worker_pull_secret.as_deref());
}

fn resources() -> ResourceRequirements {
    let amounts = |list: &[(&str, &str)]| -> BTreeMap<String, Quantity> {
        list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    ResourceRequirements {
        requests: Some(amounts(&[("cpu", "10m"), ("memory", "32Mi")])),
        limits: Some(amounts(&[("memory", "128Mi")])),
        ..ResourceRequirements::default()
    }
}

/// What [`IDLE`] says of a Notebook that `generation` suspends.
pub fn mark(generation: i64, since: Timestamp) -> String {
    format!("{generation}@{since}")
}

/// Since when nobody used it, where this very generation was suspended for that.
pub fn since(observed: &Observed) -> Option<Time> {
    let metadata = &observed.notebook.metadata;
    let (generation, since) = metadata.annotations.as_ref()?.get(IDLE)?.split_once('@')?;
    let is_this = generation.parse().ok() == Some(metadata.generation?);
    let since = since.parse::<Timestamp>().ok().filter(|_| is_this)?;
    // Kubernetes keeps whole seconds.
    Timestamp::from_second(since.as_second()).ok().map(Time)
}

/// What the running Pod watches, where that is not what the spec says.
pub fn outdated(observed: &Observed) -> Option<String> {
    let wanted = observed.notebook.spec.idle_timeout.as_deref()?;
    let pod = observed.pod.as_ref()?;
    let watched = pod.metadata.annotations.as_ref().and_then(|all| all.get(IDLE_TIMEOUT)).map(String::as_str);
    let Some(watched) = watched else { return Some("spec.idleTimeout is watched from the next Pod on".to_owned()) };
    // One that was raised is looked at again when the Pod's own has passed.
    (duration::read(wanted) < duration::read(watched))
        .then(|| format!("the Pod watches an idleTimeout of {watched}; {wanted} takes effect with the next one"))
}
