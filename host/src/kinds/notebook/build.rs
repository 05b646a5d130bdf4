//! A Notebook's children from its plan. Pure: the same plan, the same bytes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, Pod, PodTemplateSpec, Secret, SecretKeySelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use substratus_crds::PodOptions;

use super::idle;
use super::observe::Observed;
use super::plan::Plan;
use crate::bucket::url::ARTIFACTS;
use crate::kinds::shared::child::{Child, ChildKind, Policy};
use crate::kinds::shared::content::{Builder, Content, WORKSPACE};
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::mounts;
use crate::kinds::shared::pod::{self, Parts};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::kinds::shared::workload::Workload;
use crate::kinds::shared::{env, names, params, workload_identity};
use crate::reconcile::service_account;

/// Name of the container's port, and what the probe points to.
const PORT: &str = "notebook";
/// The variable that the command takes the token from.
pub const TOKEN_VARIABLE: &str = "NOTEBOOK_TOKEN";
/// Key of the token in its Secret.
pub const TOKEN_KEY: &str = "token";
/// What runs where the spec has no command.
const COMMAND: [&str; 6] =
    ["jupyter", "lab", "--allow-root", "--ip=0.0.0.0", "--NotebookApp.token=$(NOTEBOOK_TOKEN)", "--notebook-dir=/content"];
/// A Pod that ended is looked at for so long before a new one is made, so that one that always ends does no harm.
const REST: Duration = Duration::from_secs(30);

/// The children, and when to look again.
pub fn build(observed: &Observed, environment: &Environment, plan: &Plan) -> Result<(Vec<Child>, Retry), Verdict> {
    let mut children = vec![
        service_account::child(&observed.owner, names::NOTEBOOK, environment),
        params::child(&observed.owner, "notebook", observed.notebook.spec.params.as_ref()),
    ];
    if plan.is_suspended {
        // What is not among the children is removed: the Pod.
        return Ok((children, Retry::OnChange));
    }
    let wanted = match (&observed.pod, plan.answers.adopted) {
        (Some(_), true) => Child::adopted::<Pod>(ChildKind::Pod, &observed.owner, names::notebook(observed.name())),
        _ => notebook(observed, environment, plan)?,
    };
    match rest(observed) {
        // It ended a while ago: it goes, and its going brings us back.
        Some(Duration::ZERO) => Ok((children, Retry::OnChange)),
        rest => {
            // The token is made before the Pod that reads it, and not looked at again while there is one.
            children.extend(token(observed).filter(|_| observed.pod.is_none()));
            children.push(wanted);
            Ok((children, rest.map_or(Retry::OnChange, Retry::After)))
        }
    }
}

/// How long a Pod that ended is left alone; nothing where it has not ended.
fn rest(observed: &Observed) -> Option<Duration> {
    let pod = observed.pod.as_ref().filter(|_| observed.has_ended())?;
    let created = pod.metadata.creation_timestamp.as_ref().map_or(observed.now, |time| time.0);
    let age = Duration::try_from(observed.now.duration_since(created)).unwrap_or_default();
    Some(REST.saturating_sub(age))
}

/// The Secret of the token, unless the user names a token.
fn token(observed: &Observed) -> Option<Child> {
    let own = observed.notebook.spec.env.as_ref().is_some_and(|env| env.contains_key(TOKEN_VARIABLE));
    if own {
        return None;
    }
    let object = Secret {
        metadata: ObjectMeta { name: Some(names::notebook_token(observed.name())), ..ObjectMeta::default() },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    Some(Child::new(ChildKind::Secret, Policy::Token { key: TOKEN_KEY }, &observed.owner, object))
}

/// The folder whose files outlive the pod. An image of the user's may bring files in `/content`, which must not be hidden.
pub fn workspace(plan: &Plan) -> String {
    if plan.answers.is_default { mounts::CONTENT.to_owned() } else { format!("{}/workspace", mounts::CONTENT) }
}

fn notebook(observed: &Observed, environment: &Environment, plan: &Plan) -> Result<Child, Verdict> {
    let spec = &observed.notebook.spec;
    let workload = Workload::from(spec);
    let mut options = workload.pod.clone();
    if plan.answers.is_default {
        // Node paths belong to root, and so must the one who writes there.
        options.security_context.get_or_insert_default().run_as_user.get_or_insert(0);
    }
    let mut template = pod::template(Parts {
        object: ("notebook", observed.name().to_owned()),
        container: "notebook",
        service_account: names::NOTEBOOK,
        labels: workload_identity::pod_labels(environment),
        image: plan.answers.image.clone(),
        command: workload.command.map_or_else(|| COMMAND.map(str::to_owned).to_vec(), <[String]>::to_vec),
        args: workload.args.to_vec(),
        env: variables(observed, plan),
        resources: resources::requirements(workload.resources, &Defaults::contract(environment), plan.answers.placement.as_ref()),
        content: content(environment, plan, &options)?,
        mounts: vec![mounts::params(names::params(observed.name(), "notebook"))],
        placement: plan.answers.placement.clone(),
        options,
        ..Parts::default()
    });
    idle::watch(&mut template, observed, environment, &variables(observed, plan));
    let identity = plan.inputs.clone();
    Ok(Child::new(ChildKind::Pod, Policy::Run { identity }, &observed.owner, pod_of(template, observed.name())))
}

fn pod_of(mut template: PodTemplateSpec, name: &str) -> Pod {
    if let Some(container) = pod::container(&mut template) {
        container.ports = Some(vec![pod::port(PORT, 8888)]);
        container.readiness_probe = Some(pod::http_get("/api", PORT));
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
    let metadata = ObjectMeta { name: Some(names::notebook(name)), ..template.metadata.unwrap_or_default() };
    Pod { metadata, spec: template.spec, ..Pod::default() }
}

/// The user's variables, and the token behind them: `$(NOTEBOOK_TOKEN)` in a command is replaced by the kubelet.
fn variables(observed: &Observed, plan: &Plan) -> Vec<EnvVar> {
    let mut variables = env::to_container(&[], &plan.env);
    if !plan.env.contains_key(TOKEN_VARIABLE) {
        let name = names::notebook_token(observed.name());
        let key = SecretKeySelector { name, key: TOKEN_KEY.to_owned(), ..SecretKeySelector::default() };
        variables.push(EnvVar {
            name: TOKEN_VARIABLE.to_owned(),
            value_from: Some(EnvVarSource { secret_key_ref: Some(key), ..EnvVarSource::default() }),
            ..EnvVar::default()
        });
    }
    variables
}

fn content(environment: &Environment, plan: &Plan, options: &PodOptions) -> Result<Content, Verdict> {
    let (mut content, builder) = (Content::default(), Builder { environment, options });
    builder.keep(&mut content, &plan.place, WORKSPACE, &workspace(plan))?;
    builder.keep(&mut content, &plan.place, ARTIFACTS, &format!("{}/{ARTIFACTS}", mounts::CONTENT))?;
    builder.references(&mut content, plan.model.as_deref(), plan.dataset.as_deref())?;
    Ok(content)
}
