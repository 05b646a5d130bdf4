//! Writes children: only what differs from what the caches show. The only place that creates, changes or deletes one.

use std::sync::Arc;

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use serde_json::Value;
use substratus_crds::conditions::reason;

use super::Error;
use super::caches::{self, Caches};
use super::fields;
use crate::context::Context;
use crate::kinds::shared::child::{Child, ChildKind, Owner, Policy};
use crate::kinds::shared::names::{APPLIED_HASH, JOB_IDENTITY};
use crate::kinds::shared::verdict::Verdict;

/// What the caches know of a child.
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
    if !children.is_empty() {
        prune(context, owner, children, candidates).await?;
    }
    Ok(Ok(()))
}

async fn one(context: &Context, owner: &Owner, manager: &str, child: &Child) -> Result<Result<(), Verdict>, Error> {
    let known = known(&context.caches, child.kind, &owner.namespace, &child.name);
    if let Some(known) = &known
        && child.policy != Policy::Share
        && !is_ours(&known.metadata, owner)
    {
        let message =
            format!("{:?} `{}` exists and belongs to something else; rename this object or remove it", child.kind, child.name);
        return Ok(Err(Verdict::new(reason::REFUSED, message)));
    }
    let done = match &child.policy {
        Policy::Run { identity } => run(context, owner, child, identity, known).await,
        Policy::Own | Policy::Share if is_current(child, known.as_ref()) => Ok(()),
        Policy::Own | Policy::Share => {
            let params = PatchParams::apply(manager).force();
            let api = api(context, child.kind, &owner.namespace);
            api.patch(&child.name, &params, &Patch::Apply(&child.object)).await.map(drop)
        }
    };
    match done {
        Ok(()) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => {
            let message = format!("the API server refuses {:?} `{}`: {}", child.kind, child.name, status.message);
            Ok(Err(Verdict::passing(reason::REJECTED, message, std::time::Duration::from_mins(1))))
        }
        Err(source) => Err(Error::Apply { action: format!("apply {:?} `{}`", child.kind, child.name), source: Box::new(source) }),
    }
}

/// Nothing would change: the same hash, and every field of ours still recorded as ours.
fn is_current(child: &Child, known: Option<&Known>) -> bool {
    let Some(known) = known else { return false };
    let applied = known.metadata.annotations.as_ref().and_then(|all| all.get(APPLIED_HASH)).map(String::as_str);
    let untouched = known.fields.as_ref().is_some_and(|owned| fields::owns_object(&child.object, owned));
    applied == child.applied_hash() && untouched
}

/// A Job is created once for what it is for. One for something else is deleted with its pods first; the event of its end
/// brings us back.
async fn run(context: &Context, owner: &Owner, child: &Child, identity: &str, known: Option<Known>) -> kube::Result<()> {
    let api = api(context, child.kind, &owner.namespace);
    let Some(known) = known else {
        let object: DynamicObject = serde_json::from_value(child.object.clone()).map_err(kube::Error::SerdeError)?;
        return match api.create(&PostParams::default(), &object).await {
            // Our cache is behind: the event is on its way.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        };
    };
    let current = known.metadata.annotations.as_ref().and_then(|all| all.get(JOB_IDENTITY)).map(String::as_str);
    if current == Some(identity) || known.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    delete(&api, &child.name, &known.metadata).await
}

/// Deletes children of this owner that are no longer wanted. Safe, because only names that this kind gives are looked at, only
/// objects whose controller is this very owner (by UID) are deleted, and a precondition holds the API server to that UID.
async fn prune(context: &Context, owner: &Owner, children: &[Child], candidates: &[(ChildKind, String)]) -> Result<(), Error> {
    for (kind, name) in candidates {
        if children.iter().any(|child| child.kind == *kind && &child.name == name) {
            continue;
        }
        let Some(known) = known(&context.caches, *kind, &owner.namespace, name) else { continue };
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

fn known(caches: &Caches, kind: ChildKind, namespace: &str, name: &str) -> Option<Known> {
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
        ChildKind::Deployment => look!(&caches.deployments),
        ChildKind::Job => {
            caches::get(&caches.jobs, namespace, name).map(|view| Known { metadata: view.metadata.clone(), fields: None })
        }
    }
}

fn api(context: &Context, kind: ChildKind, namespace: &str) -> Api<DynamicObject> {
    use k8s_openapi::api::{apps::v1::Deployment, batch::v1::Job, core::v1};
    let resource = match kind {
        ChildKind::ServiceAccount => ApiResource::erase::<v1::ServiceAccount>(&()),
        ChildKind::ConfigMap => ApiResource::erase::<v1::ConfigMap>(&()),
        ChildKind::Service => ApiResource::erase::<v1::Service>(&()),
        ChildKind::Deployment => ApiResource::erase::<Deployment>(&()),
        ChildKind::Job => ApiResource::erase::<Job>(&()),
    };
    Api::namespaced_with(context.client.clone(), namespace, &resource)
}
