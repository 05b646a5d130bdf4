//! Writes children: only what differs from what the caches show. The only place that creates, changes or deletes one.

use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions, TypeMeta};
use kube::core::ObjectMeta;
use serde_json::Value;
use substratus_crds::conditions::reason;

use super::Error;
use super::caches;
use super::fields;
use super::trigger::Trigger;
use crate::context::Context;
use crate::kinds::shared::child::{Child, ChildKind, Owner, Policy};
use crate::kinds::shared::names::{APPLIED_HASH, IDENTITY, MANAGED_BY};
use crate::kinds::shared::verdict::Verdict;

/// When a child that was refused is tried again.
const SOON: Duration = Duration::from_mins(1);
/// When something that no watch sees is looked at again.
const BRIEFLY: Duration = Duration::from_secs(2);

/// What is known of a child.
struct Known {
    metadata: ObjectMeta,
    fields: Option<Arc<Value>>,
}

/// Applies the children in order of kind, then prunes. A refusal by the API server is a condition, anything else is tried again.
pub async fn children(
    context: &Context,
    owner: &Owner,
    manager: &str,
    children: &[Child],
    candidates: &[(ChildKind, String)],
) -> Result<Result<(), Verdict>, Error> {
    let mut ordered: Vec<&Child> = children.iter().collect();
    ordered.sort_by_key(|child| child.kind);
    for child in ordered {
        if let Err(verdict) = one(context, owner, manager, child).await? {
            return Ok(Err(verdict));
        }
    }
    prune(context, owner, children, candidates).await?;
    Ok(Ok(()))
}

async fn one(context: &Context, owner: &Owner, manager: &str, child: &Child) -> Result<Result<(), Verdict>, Error> {
    let api = api(context, child.kind, &owner.namespace);
    let failed = |source| Error::Apply { action: format!("apply {:?} `{}`", child.kind, child.name), source: Box::new(source) };
    let known = match known(context, child.kind, owner, &child.name) {
        Some(known) => Some(known),
        // A token may not be looked at, and a service account belongs to all.
        None if matches!(child.policy, Policy::Token { .. } | Policy::Share) => None,
        // The watches see what carries our label; a child of the first operator, or of somebody else, does not.
        None => {
            api.get_metadata_opt(&child.name).await.map_err(failed)?.map(|found| Known { metadata: found.metadata, fields: None })
        }
    };
    if let Some(known) = &known
        && child.policy != Policy::Share
        && !is_ours(&known.metadata, owner)
    {
        let message =
            format!("{:?} `{}` exists and belongs to something else; rename this object or remove it", child.kind, child.name);
        return Ok(Err(Verdict::new(reason::REFUSED, message)));
    }
    let done = match &child.policy {
        Policy::Run { identity } => {
            if known.is_none()
                && child.kind == ChildKind::Job
                && let Err(source) = rehearse(context, owner, child).await
            {
                return refused(&format!("pods of {:?} `{}`", child.kind, child.name), source);
            }
            run(&api, child, identity, known).await
        }
        Policy::Token { key } => token(&api, child, key).await,
        Policy::Adopt => adopt(&api, manager, child, known).await,
        Policy::Own | Policy::Share if is_current(child, known.as_ref()) => Ok(Ok(())),
        Policy::Own | Policy::Share => {
            let params = PatchParams::apply(manager).force();
            api.patch(&child.name, &params, &Patch::Apply(&child.object)).await.map(|_| Ok(()))
        }
    };
    match done {
        Ok(outcome) => Ok(outcome),
        Err(source) => refused(&format!("{:?} `{}`", child.kind, child.name), source),
    }
}

/// What the API server does not want is a condition in its own words; anything else is tried again.
fn refused(what: &str, source: kube::Error) -> Result<Result<(), Verdict>, Error> {
    match source {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => {
            let message = format!("the API server refuses {what}: {}", status.message);
            Ok(Err(Verdict::passing(reason::REJECTED, message, SOON)))
        }
        source => Err(Error::Apply { action: format!("apply {what}"), source: Box::new(source) }),
    }
}

/// Would the pods of a Job be let in? A Job whose pods meet a quota or a Pod Security level is accepted, and says so in an Event
/// of its controller alone; to try one of its pods without keeping it says it at once.
async fn rehearse(context: &Context, owner: &Owner, child: &Child) -> kube::Result<()> {
    let Some(template) = child.object.pointer("/spec/template") else { return Ok(()) };
    let mut pod: DynamicObject = serde_json::from_value(template.clone()).map_err(kube::Error::SerdeError)?;
    pod.types = Some(TypeMeta { api_version: "v1".to_owned(), kind: "Pod".to_owned() });
    pod.metadata.generate_name = Some(format!("{}-", child.name));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    api(context, ChildKind::Pod, &owner.namespace).create(&dry, &pod).await.map(drop)
}

/// Nothing would change: the same hash, and every field of ours still recorded as ours.
fn is_current(child: &Child, known: Option<&Known>) -> bool {
    let Some(known) = known else { return false };
    let applied = known.metadata.annotations.as_ref().and_then(|all| all.get(APPLIED_HASH)).map(String::as_str);
    let untouched = known.fields.as_ref().is_some_and(|owned| fields::owns_object(&child.object, owned));
    applied == child.applied_hash() && untouched
}

/// A Job or Pod is created once for what it is for. One for something else is deleted first, a Job with its pods; the event
/// of its end brings us back.
async fn run(api: &Api<DynamicObject>, child: &Child, identity: &str, known: Option<Known>) -> kube::Result<Result<(), Verdict>> {
    let Some(known) = known else {
        let object: DynamicObject = serde_json::from_value(child.object.clone()).map_err(kube::Error::SerdeError)?;
        return match api.create(&PostParams::default(), &object).await {
            // Our cache is behind: the event is on its way.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Ok(())),
            other => other.map(|_| Ok(())),
        };
    };
    let current = known.metadata.annotations.as_ref().and_then(|all| all.get(IDENTITY)).map(String::as_str);
    if current == Some(identity) || known.metadata.deletion_timestamp.is_some() {
        return Ok(Ok(()));
    }
    delete(api, &child.name, &known.metadata).await?;
    if is_labelled(&known.metadata) || child.kind == ChildKind::Pod {
        return Ok(Ok(()));
    }
    // No watch sees it go.
    let message = format!("the {:?} `{}` of an earlier operator makes room for a new one", child.kind, child.name);
    Ok(Err(Verdict::passing(reason::JOB_NOT_COMPLETE, message, BRIEFLY)))
}

/// A token is random, and written once: who has the Secret keeps it.
async fn token(api: &Api<DynamicObject>, child: &Child, key: &str) -> kube::Result<Result<(), Verdict>> {
    let mut bytes = [0; 24];
    if rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).is_err() {
        let message = "no random bytes could be had for the token";
        return Ok(Err(Verdict::passing(reason::UNAVAILABLE, message, SOON)));
    }
    let mut object: DynamicObject = serde_json::from_value(child.object.clone()).map_err(kube::Error::SerdeError)?;
    if let Some(fields) = object.data.as_object_mut() {
        fields.insert("stringData".to_owned(), serde_json::json!({ key: hex::encode(bytes) }));
    }
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Ok(())),
        other => other.map(|_| Ok(())),
    }
}

/// What the first operator made gets our label, so that the watches see it, and nothing else.
async fn adopt(
    api: &Api<DynamicObject>,
    manager: &str,
    child: &Child,
    known: Option<Known>,
) -> kube::Result<Result<(), Verdict>> {
    let Some(known) = known else {
        let message = format!("the {:?} `{}` of an earlier operator is gone", child.kind, child.name);
        return Ok(Err(Verdict::passing(reason::DEPLOYMENT_NOT_READY, message, BRIEFLY)));
    };
    // Pods are watched by their role.
    if is_labelled(&known.metadata) || child.kind == ChildKind::Pod {
        return Ok(Ok(()));
    }
    let patch = serde_json::json!({"metadata": {"labels": {MANAGED_BY.0: MANAGED_BY.1}}});
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    api.patch_metadata(&child.name, &params, &Patch::Merge(&patch)).await.map(|_| Ok(()))
}

fn is_labelled(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|value| value == MANAGED_BY.1)
}

/// Deletes children of this owner that are no longer wanted. Safe, because only names that this kind gives are looked at, only
/// objects whose controller is this very owner (by UID) are deleted, and a precondition holds the API server to that UID.
pub(super) async fn prune(
    context: &Context,
    owner: &Owner,
    children: &[Child],
    candidates: &[(ChildKind, String)],
) -> Result<(), Error> {
    for (kind, name) in candidates {
        if children.iter().any(|child| child.kind == *kind && &child.name == name) {
            continue;
        }
        let Some(known) = known(context, *kind, owner, name) else { continue };
        if !is_ours(&known.metadata, owner) || known.metadata.deletion_timestamp.is_some() {
            continue;
        }
        delete(&api(context, *kind, &owner.namespace), name, &known.metadata)
            .await
            .map_err(|source| Error::Apply { action: format!("delete {kind:?} `{name}`"), source: Box::new(source) })?;
    }
    Ok(())
}

async fn delete(api: &Api<DynamicObject>, name: &str, metadata: &ObjectMeta) -> kube::Result<()> {
    // Foreground: the object stays until its pods are gone, so two runs never write to one place.
    let params =
        DeleteParams::foreground().preconditions(Preconditions { uid: metadata.uid.clone(), ..Preconditions::default() });
    match api.delete(name, &params).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop),
    }
}

fn is_ours(metadata: &ObjectMeta, owner: &Owner) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    owners.filter(|reference| reference.controller == Some(true)).all(|reference| reference.uid == owner.reference.uid)
}

fn known(context: &Context, kind: ChildKind, owner: &Owner, name: &str) -> Option<Known> {
    let (caches, namespace) = (&context.caches, &owner.namespace);
    macro_rules! look {
        ($store:expr) => {
            caches::get($store, namespace, name)
                .map(|view| Known { metadata: view.metadata.clone(), fields: view.fields.clone() })
        };
    }
    match kind {
        ChildKind::ServiceAccount => look!(&caches.service_accounts),
        ChildKind::ConfigMap => look!(&caches.config_maps),
        ChildKind::Service => look!(&caches.services),
        ChildKind::NetworkPolicy => look!(&caches.network_policies),
        ChildKind::Deployment => look!(&caches.deployments),
        ChildKind::Job => {
            caches::get(&caches.jobs, namespace, name).map(|view| Known { metadata: view.metadata.clone(), fields: None })
        }
        ChildKind::Pod => {
            let object = Trigger::Notebook(namespace.clone(), owner.reference.name.clone());
            caches.pods.get(&object, name).map(|view| Known { metadata: view.metadata.clone(), fields: None })
        }
        ChildKind::Secret => None,
    }
}

fn api(context: &Context, kind: ChildKind, namespace: &str) -> Api<DynamicObject> {
    use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1, networking::v1::NetworkPolicy};
    let resource = match kind {
        ChildKind::ServiceAccount => ApiResource::erase::<v1::ServiceAccount>(&()),
        ChildKind::ConfigMap => ApiResource::erase::<v1::ConfigMap>(&()),
        ChildKind::Service => ApiResource::erase::<v1::Service>(&()),
        ChildKind::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
        ChildKind::Deployment => ApiResource::erase::<Deployment>(&()),
        ChildKind::Job => ApiResource::erase::<Job>(&()),
        ChildKind::Pod => ApiResource::erase::<v1::Pod>(&()),
        ChildKind::Secret => ApiResource::erase::<v1::Secret>(&()),
    };
    Api::namespaced_with(context.client.clone(), namespace, &resource)
}
