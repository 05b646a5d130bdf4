//! Writes a status where it differs from the one on record, and an Event for every condition that changed.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use substratus_crds::conditions::reason;

use super::{Error, Kind, News};
use crate::context::Context;
use crate::kinds::shared::conditions::find;

/// Reasons that are a normal part of an object's life.
const EXPECTED: &[&str] = &[
    reason::JOB_NOT_COMPLETE,
    reason::DEPLOYMENT_NOT_READY,
    reason::POD_NOT_READY,
    reason::SUSPENDED,
    reason::MODEL_NOT_READY,
    reason::BASE_MODEL_NOT_READY,
    reason::DATASET_NOT_READY,
    reason::UP_TO_DATE,
    reason::IMAGE_NOT_BUILT,
];

/// Longest note of an Event, in bytes.
const MAX_NOTE: usize = 1000;

/// Server-side applies the status, unless it is what is there.
pub async fn write<K: Kind>(object: &K, status: &K::Status, context: &Context) -> Result<(), Error> {
    if object.status() == Some(status) {
        return Ok(());
    }
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let news = K::news(object.status(), status);
    if apply(&api, object, K::MANAGER, status, !news.is_empty()).await? {
        for news in news {
            context.metrics.told(&news.reason);
            tell(&object.object_ref(&()), news, context).await;
        }
        announce(object, object.status().map_or(&[], K::conditions), K::conditions(status), context).await;
    }
    Ok(())
}

/// Server-side applies a status; `false` where there is nothing to tell: the object is gone, or, where that matters, is another
/// than the one that was looked at, whose event is on its way.
pub async fn apply<K>(api: &Api<K>, object: &K, manager: &str, status: &impl Serialize, of_this: bool) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = object.name_any();
    let metadata = match object.resource_version().filter(|_| of_this) {
        Some(version) => json!({"name": name, "resourceVersion": version}),
        None => json!({"name": name}),
    };
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": status,
    });
    match api.patch_status(&name, &PatchParams::apply(manager).force(), &Patch::Apply(&patch)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 || (of_this && status.code == 409) => Ok(false),
        Err(source) => {
            let object = format!("{} {}{name}", K::kind(&()), object.namespace().map(|n| n + "/").unwrap_or_default());
            Err(Error::Status { object, source: Box::new(source) })
        }
    }
}

/// An Event for every condition that changed, and a line in the log.
pub async fn announce<K>(object: &K, before: &[Condition], now: &[Condition], context: &Context)
where
    K: Resource<DynamicType = ()>,
{
    for condition in now {
        let known = find(before, &condition.type_);
        if known.is_none_or(|known| known.reason != condition.reason || known.status != condition.status) {
            tracing::info!(kind = %K::kind(&()), object = %kube::runtime::reflector::ObjectRef::from_obj(object), reason = condition.reason, message = condition.message, "{}", condition.type_);
            let warning = condition.status != "True" && !EXPECTED.contains(&condition.reason.as_str());
            let (reason, action) = (condition.reason.clone(), "Reconcile".to_owned());
            tell(&object.object_ref(&()), News { warning, reason, action, note: condition.message.clone() }, context).await;
        }
    }
}

/// An Event about an object, which may be gone.
pub async fn tell(object: &ObjectReference, news: News, context: &Context) {
    let News { warning, reason, action, mut note } = news;
    if note.len() > MAX_NOTE {
        note = note.chars().take(MAX_NOTE / 4).collect();
    }
    let event = Event {
        type_: if warning { EventType::Warning } else { EventType::Normal },
        reason,
        note: (!note.is_empty()).then_some(note),
        action,
        secondary: None,
    };
    if let Err(error) = context.events.publish(&event, object).await {
        // The condition says it all; an Event is a courtesy.
        tracing::warn!(%error, "an Event could not be written");
    }
}
