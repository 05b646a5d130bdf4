//! Looks after the image of an object that names source code: has it built, and writes its name into the spec, which is what the user
//! asked for with `build`. It must not know kinds, nor how an image is built.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use substratus_crds::conditions::{BUILT, UPLOADED, reason};
use substratus_crds::{BuildUpload, UploadSource};

use super::trigger::{self, Trigger};
use super::{Error, Kept, Kind, apply, caches, guard};
use crate::context::Context;
use crate::kinds::image::conclude::{Concluded, Runs, conclude, stopped};
use crate::kinds::image::handshake::{self, Sent};
use crate::kinds::image::observe::Observed;
use crate::kinds::image::{job, plan, source};
use crate::kinds::shared::child::{ChildKind, Owner};
use crate::kinds::shared::conditions::set;
use crate::kinds::shared::names::{self, REBUILD};
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::uploads::ticket::Subject;

/// Field manager of `spec.image`: not the one of the operator's own objects, for the rest of the spec stays the user's.
const MANAGER: &str = "substratus-build";

/// What came of looking after the image of one object.
#[derive(Debug)]
pub(super) struct Looked {
    concluded: Option<Concluded>,
}

/// Steps of the pipeline for the image alone: plan, children, guard, apply; then the spec, where the image is there.
pub(super) async fn look<K: Kind>(object: &Arc<K>, context: &Context) -> Result<Looked, Error> {
    let owner = Owner::of(object.as_ref());
    let kind = owner.reference.kind.to_lowercase();
    let job_name = names::build_job(&owner.reference.name, &kind);
    let candidate = (ChildKind::Job, job_name.clone());
    let Some(build) = object.wants_build(&context.catalog()) else {
        // What was built before nobody asked for it any more stays in the registry.
        apply::prune(context, &owner, &[], &[candidate]).await?;
        return Ok(Looked { concluded: None });
    };
    let trigger: Option<Trigger> = trigger::of(&kind, &owner.namespace, &owner.reference.name);
    let handshake = object.status().and_then(K::handshake);
    let observed = Observed {
        owner: &owner,
        build,
        image: object.image().filter(|image| !image.is_empty()),
        record: object.status().and_then(K::build_status),
        handshake,
        sent: build.upload.as_ref().map(|upload| sent(&owner, upload, handshake, context)).unwrap_or_default(),
        rebuild: object.meta().annotations.as_ref().and_then(|all| all.get(REBUILD)).map(String::as_str),
        job: caches::get(&context.caches.jobs, &owner.namespace, &job_name),
        pods: trigger.map(|trigger| context.caches.pods.building(&trigger)).unwrap_or_default(),
        now: (context.now)(),
    };
    let concluded = match advance::<K>(object, &observed, context, candidate).await? {
        Ok(concluded) => concluded,
        Err(verdict) => stopped(&observed, &verdict),
    };
    if let Some(image) = &concluded.write {
        write(object.as_ref(), image, context).await?;
    }
    Ok(Looked { concluded: Some(concluded) })
}

/// What came of an upload, and the URLs that it may come to.
fn sent(owner: &Owner, upload: &UploadSource, known: Option<&BuildUpload>, context: &Context) -> Sent {
    let (kind, namespace, name) = (owner.reference.kind.to_lowercase(), owner.namespace.clone(), owner.reference.name.clone());
    let (subject, uploads) = (Subject { kind, namespace, name }, &context.uploads);
    let given = known.and_then(|known| known.expiration.as_ref());
    Sent {
        // A sum that is none is refused when the plan is made.
        is_here: source::is_sum(&upload.md5_checksum, 32) && uploads.has(&subject, &upload.md5_checksum),
        refusal: uploads.refusal(&subject, &upload.request_id),
        fresh: uploads.url(&subject, upload, handshake::end((context.now)())),
        given: given.map(|end| uploads.url(&subject, upload, end.0)),
    }
}

async fn advance<K: Kind>(
    object: &Arc<K>,
    observed: &Observed<'_>,
    context: &Context,
    candidate: (ChildKind, String),
) -> Result<Result<Concluded, Verdict>, Error> {
    let planned = match plan::plan(observed, &context.environment) {
        Ok(planned) => planned,
        Err(verdict) => {
            apply::prune(context, observed.owner, &[], &[candidate]).await?;
            return Ok(Err(verdict));
        }
    };
    let children = job::children(observed, &context.environment, &planned, object.pull_secrets());
    if let Err(why) = guard::children(&children, observed.owner, &[]) {
        return Ok(Err(Verdict::new(reason::REFUSED, why)));
    }
    // A Job that ended well stays to be looked at; one for something else has nobody who waits for it.
    let stray = plan::is_stray(observed, &planned).then_some(candidate);
    let applied = apply::children(context, observed.owner, K::MANAGER, &children, stray.as_slice()).await?;
    Ok(applied.map(|()| conclude(observed, &planned)))
}

/// Writes `spec.image`, unless somebody else has written to the object: the event of that is on its way.
async fn write<K: Kind>(object: &K, image: &str, context: &Context) -> Result<(), Error> {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "resourceVersion": object.resource_version()},
        "spec": {"image": image},
    });
    match api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => {
            let action = format!("write spec.image of {} {namespace}/{name}", K::kind(&()));
            Err(Error::Apply { action, source: Box::new(source) })
        }
    }
}

impl Looked {
    /// The object as the rest of the pipeline sees it.
    pub(super) fn seen<K: Kind>(&self, object: &Arc<K>, context: &Context) -> Arc<K> {
        match self.concluded.as_ref().map(|concluded| &concluded.runs) {
            None | Some(Runs::Spec | Runs::Nothing(_)) => Arc::clone(object),
            Some(runs) => {
                let mut seen = K::clone(object);
                runs.put(seen.fields(), context.environment.building.pull_secret.as_deref());
                Arc::new(seen)
            }
        }
    }

    /// Why the rest of the pipeline cannot go on.
    pub(super) fn stops(&self) -> Option<Verdict> {
        match self.concluded.as_ref().map(|concluded| &concluded.runs) {
            Some(Runs::Nothing(verdict)) => Some(verdict.clone()),
            _ => None,
        }
    }

    /// When to look again.
    pub(super) fn retry(&self) -> Retry {
        self.concluded.as_ref().map_or(Retry::OnChange, |concluded| concluded.retry)
    }

    /// Puts what is said of the image into a status.
    pub(super) fn note(self, Kept { conditions, build, upload }: Kept<'_>, generation: Option<i64>, now: jiff::Timestamp) {
        let Some(concluded) = self.concluded else {
            conditions.retain(|condition| ![BUILT, UPLOADED].contains(&condition.type_.as_str()));
            (*build, *upload) = (None, None);
            return;
        };
        let (known, said) = concluded.upload.unzip();
        if known.is_none() {
            conditions.retain(|condition| condition.type_ != UPLOADED);
        }
        *upload = known;
        if let Some(said) = said.flatten() {
            set(conditions, said, generation, now);
        }
        set(conditions, concluded.said, generation, now);
        *build = concluded.record;
    }
}
