//! What happens when an object changes: one pipeline for every kind.
//!
//! 0. `image` looks after an object that names source code: a build has steps of its own, and its end writes `spec.image`.
//! 1. `observe` takes a snapshot from the watch caches.
//! 2. `plan` validates, and asks plugins where the inputs changed; recorded answers otherwise.
//! 3. A new plan goes into the status before anything runs by it.
//! 4. `build` makes children; pure.
//! 5. `guard` checks them; pure.
//! 6. `apply` writes what differs, and prunes what is no longer wanted.
//! 7. `status` says what became of it, where that differs from what it says already.
//!
//! The pipeline never asks why it runs: it looks at everything again, and a pass that finds nothing to change writes nothing.

pub mod apply;
pub mod ask;
pub mod caches;
pub mod fields;
pub mod follow;
pub mod guard;
mod image;
pub mod nodes;
pub mod pods;
pub mod references;
pub mod service_account;
pub mod siblings;
pub mod status;
pub mod suspend;
pub mod trigger;
pub mod views;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource;
use kube::runtime::controller::Action;
use serde::Serialize;
use serde::de::DeserializeOwned;
use substratus_crds::{Build, BuildStatus, BuildUpload, ObjectRef};

use crate::catalog::Catalog;
use crate::context::Context;
use crate::kinds::image::conclude::Fields;
use crate::kinds::shared::child::{Child, ChildKind, Owner};
use crate::kinds::shared::verdict::{Retry, Verdict};

/// Field managers of applied objects: the first operator's names, so that its objects can be taken over.
pub const MANAGERS: &[&str] = &["dataset-controller", "model-controller", "notebook-controller", "server-controller"];

/// A kind of object that has children.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Its status.
    type Status: Clone + PartialEq + Serialize + Send + Sync;
    /// What a reconcile looks at.
    type Observed: Send + Sync;
    /// A complete plan.
    type Plan: Send + Sync;
    /// What `build` finds out besides the children.
    type Built: Send + Sync;
    /// Field manager.
    const MANAGER: &'static str;
    /// Label in metrics.
    const METRIC: crate::metrics::Kind;

    /// Step 1.
    fn observe(self: Arc<Self>, context: &Context) -> Self::Observed;
    /// Step 2.
    fn plan(observed: &Self::Observed, context: &Context) -> impl Future<Output = Result<Self::Plan, Verdict>> + Send;
    /// Step 3: the status with the plan on record.
    fn planned(observed: &Self::Observed, plan: &Self::Plan) -> Self::Status;
    /// Is the plan on record already?
    fn is_recorded(observed: &Self::Observed, plan: &Self::Plan) -> bool;
    /// Step 4.
    fn build(observed: &Self::Observed, context: &Context, plan: &Self::Plan) -> Result<(Vec<Child>, Self::Built), Verdict>;
    /// Step 5: node paths of artifacts that the children may see.
    fn buckets(observed: &Self::Observed, context: &Context, plan: &Self::Plan) -> Vec<String>;
    /// Step 6: every child name that this kind may ever have made, and that the plan does not leave alone; what is ours and not
    /// wanted is pruned.
    fn candidates(name: &str, plan: &Self::Plan) -> Vec<(ChildKind, String)>;
    /// Step 7, where the pipeline went through.
    fn conclude(observed: &Self::Observed, plan: &Self::Plan, built: &Self::Built) -> (Self::Status, Retry);
    /// Step 7, where it stopped.
    fn stopped(observed: &Self::Observed, verdict: &Verdict) -> (Self::Status, Retry);
    /// The status that is on record.
    fn status(&self) -> Option<&Self::Status>;
    /// What is told besides the conditions when the status on record becomes another.
    fn news(_before: Option<&Self::Status>, _now: &Self::Status) -> Vec<News> {
        Vec::new()
    }
    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// `spec.build`, where the object cannot do without: no plugin stands in for what it builds.
    fn wants_build(&self, catalog: &Catalog) -> Option<&Build>;
    /// `spec.image`.
    fn image(&self) -> Option<&str>;
    /// Secrets of the spec that images are pulled with.
    fn pull_secrets(&self) -> &[ObjectRef];
    /// What of the spec says where the image comes from.
    fn fields(&mut self) -> Fields<'_>;
    /// Whether anything runs that needs an image.
    fn runs(&self) -> bool {
        true
    }
    /// What a status keeps of a build.
    fn build_status(status: &Self::Status) -> Option<&BuildStatus>;
    /// What it keeps of an upload.
    fn handshake(status: &Self::Status) -> Option<&BuildUpload>;
    /// The same, to be written.
    fn kept(status: &mut Self::Status) -> Kept<'_>;
}

/// What a status says of the image of its object.
#[derive(Debug)]
pub struct Kept<'a> {
    /// All conditions.
    pub conditions: &'a mut Vec<Condition>,
    /// What was built.
    pub build: &'a mut Option<BuildStatus>,
    /// How an upload stands.
    pub upload: &'a mut Option<BuildUpload>,
}

/// Something that is told once, when a status becomes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// It is no normal part of an object's life.
    pub warning: bool,
    /// CamelCase cause.
    pub reason: String,
    /// What was done. What differs in nothing else is counted, and keeps its first note.
    pub action: String,
    /// For people.
    pub note: String,
}

/// A pass that did not get through and is tried again with growing pauses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A child could not be written.
    #[error("{action}")]
    Apply {
        /// What we were doing.
        action: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The status could not be written.
    #[error("write the status of {object}")]
    Status {
        /// Kind, namespace and name.
        object: String,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// For metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Status { .. } => "status",
        }
    }
}

/// Looks at one object and makes it what it should be.
pub async fn reconcile<K: Kind>(object: Arc<K>, context: Arc<Context>) -> Result<Action, Error> {
    if object.meta().deletion_timestamp.is_some() {
        // Children go with their owner; nothing of ours has to be undone.
        return Ok(Action::await_change());
    }
    let started = Instant::now();
    let outcome = pass(&object, &context).await;
    let category = match &outcome {
        Ok((category, _)) => category,
        Err(error) => error.category(),
    };
    context.metrics.reconciled(K::METRIC, category, started.elapsed());
    outcome.map(|(_, retry)| match retry {
        Retry::OnChange => Action::await_change(),
        Retry::After(pause) => Action::requeue(pause.max(Duration::from_secs(1))),
    })
}

async fn pass<K: Kind>(object: &Arc<K>, context: &Context) -> Result<(&'static str, Retry), Error> {
    let image = image::look(object, context).await?; // caches; API where something is to be built
    let object = &image.seen(object, context);
    let observed = Arc::clone(object).observe(context); // caches only
    let advanced = match image.stops().filter(|_| object.runs()) {
        Some(verdict) => Err(verdict),
        None => advance::<K>(object, &observed, context).await?,
    };
    let (mut status, retry, category) = match advanced {
        Ok((plan, built)) => {
            let (status, retry) = K::conclude(&observed, &plan, &built); // pure
            (status, retry, "ok")
        }
        Err(verdict) => {
            let (status, retry) = K::stopped(&observed, &verdict); // pure
            (status, retry, verdict.reason)
        }
    };
    let retry = retry.sooner(image.retry());
    image.note(K::kept(&mut status), object.meta().generation, (context.now)());
    status::write(object.as_ref(), &status, context).await?; // API
    Ok((category, retry))
}

type Advanced<K> = Result<(<K as Kind>::Plan, <K as Kind>::Built), Verdict>;

/// Steps 2 to 6; the inner error is a condition, the outer one a failed call of the API server.
async fn advance<K: Kind>(object: &Arc<K>, observed: &K::Observed, context: &Context) -> Result<Advanced<K>, Error> {
    let plan = match K::plan(observed, context).await {
        Ok(plan) => plan,
        Err(verdict) => return Ok(Err(verdict)),
    };
    let owner = Owner::of(object.as_ref());
    let built = K::build(observed, context, &plan).and_then(|(children, built)| {
        guard::children(&children, &owner, &K::buckets(observed, context, &plan))
            .map_err(|why| Verdict::new(substratus_crds::conditions::reason::REFUSED, why))?;
        Ok((children, built))
    });
    let (children, built) = match built {
        Ok(built) => built,
        Err(verdict) => return Ok(Err(verdict)),
    };
    if !K::is_recorded(observed, &plan) {
        status::write(object.as_ref(), &K::planned(observed, &plan), context).await?;
    }
    let name = object.meta().name.as_deref().unwrap_or_default();
    match apply::children(context, &owner, K::MANAGER, &children, &K::candidates(name, &plan)).await? {
        Ok(()) => Ok(Ok((plan, built))),
        Err(verdict) => Ok(Err(verdict)),
    }
}
