//! From `spec.publish` to the Job that pushes what is complete, and to the condition `Published`. Pure. The artifact itself never
//! waits for it: what is complete is ready, wherever else it goes.
//!
//! Where a Model may go the administrator says: to the registries that are granted to the plugin that loads from `oci://`, so that
//! who may be read from and who may be written to is said in one place.

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use substratus_crds::conditions::{PUBLISHED, reason};
use substratus_crds::{ArtifactStatus, PublishStatus};

use super::Artifact;
use super::conditions;
use super::jobs::{self, WORKER_RETRIES};
use super::observe::Observed;
use super::plan::{Plan, Run};
use super::retry::{self, Attempt, Built};
use super::transfer;
use crate::kinds::shared::cause;
use crate::kinds::shared::child::Child;
use crate::kinds::shared::conditions::{Say, set};
use crate::kinds::shared::content::{self, Builder, Content};
use crate::kinds::shared::env;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::hash;
use crate::kinds::shared::mounts;
use crate::kinds::shared::names::RETRY;
use crate::kinds::shared::network;
use crate::kinds::shared::network_policy::{self, Worker};
use crate::kinds::shared::pod::{self, Parts};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::verdict::{Retry, Verdict};
use crate::reconcile::service_account;
use crate::reconcile::views::JobView;
use crate::worker::allow::{self, AllowList};
use crate::worker::oci::reference::{OciUrl, OciUrlError, SCHEME};
use crate::worker::report::Outcome;

/// Name of the container.
const CONTAINER: &str = "publish";
/// Where it finds the artifact.
const ARTIFACT_DIR: &str = "/artifact";
/// Volume of the artifact.
const VOLUME: &str = "artifacts";

/// Where an artifact goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// As `spec.publish` has it.
    pub to: String,
    /// Hash of what is pushed where.
    pub inputs: String,
    /// Hosts that it may lead to.
    hosts: Vec<String>,
    /// An administrator wrote them down.
    named: bool,
    /// The registry, where it speaks plain HTTP.
    plain: Option<String>,
    /// Secret with the account that may push.
    secret: Option<String>,
    /// A Job runs that pushes something else, or elsewhere.
    is_stray: bool,
}

impl Push {
    /// What a Job is made for. A Secret by another name is another try; its content is nobody's business here.
    fn basis(&self) -> String {
        hash::of(&(&self.inputs, &self.secret))
    }
}

/// Whether a Job that pushes has to end, where none is among the children.
pub fn is_unwanted(plan: &Plan) -> bool {
    plan.push.as_ref().and_then(|push| push.as_ref().ok()).is_none_or(|push| push.is_stray)
}

/// Where the artifact at `url` is pushed once it is complete, or why it cannot be; nothing where nobody asks for it.
pub fn plan<A: Artifact>(observed: &Observed<A>, environment: &Environment, url: &str) -> Option<Result<Push, Verdict>> {
    let wanted = observed.wanted();
    let to = wanted.publish?;
    let place = to.parse().map_err(|error: OciUrlError| Verdict::invalid("spec.publish", error));
    Some(place.and_then(|place: OciUrl| {
        if place.tag().is_none() {
            return Err(Verdict::invalid("spec.publish", "a digest is the result of a push; name a tag"));
        }
        let Registries { hosts, named, plain } = granted(observed, environment, &place)?;
        let secret = wanted.publish_secret.map(str::to_owned);
        let push = Push { to: to.to_owned(), inputs: hash::of(&(url, to)), hosts, named, plain, secret, is_stray: false };
        let runs = |job: &&JobView| job.holds("Complete").is_none() && job.holds("Failed").is_none();
        let other = observed.publisher.as_deref().filter(runs).is_some_and(|job| !jobs::is_of(job, &push.basis()));
        Ok(Push { is_stray: other, ..push })
    }))
}

/// Where a push may lead.
struct Registries {
    /// The hosts that are granted.
    hosts: Vec<String>,
    /// By an administrator, and not by the word of a bundled plugin.
    named: bool,
    /// The registry, where it is one of plain HTTP.
    plain: Option<String>,
}

fn granted<A: Artifact>(observed: &Observed<A>, environment: &Environment, place: &OciUrl) -> Result<Registries, Verdict> {
    let plugin = observed.catalog.by_scheme(A::FACTS.role, SCHEME, &observed.owner.namespace).ok_or_else(|| {
        let what = format!("no active plugin loads from {SCHEME}://, and its grants say which registries may be pushed to");
        Verdict::new(reason::PLUGIN_NOT_FOUND, what)
    })?;
    let mut hosts = plugin.grant.hosts.clone();
    hosts.extend(environment.plain_http.iter().map(|host| format!("http://{host}")));
    let allowed = |secure: bool| {
        let list = AllowList::parse(&hosts).unwrap_or_default();
        place.base(secure).is_some_and(|base| list.check(&base) != allow::Verdict::Denied)
    };
    match (allowed(true), allowed(false)) {
        (true, _) => Ok(Registries { hosts, named: plugin.named, plain: None }),
        (false, true) => Ok(Registries { hosts, named: plugin.named, plain: Some(place.host().to_owned()) }),
        (false, false) => {
            let what = format!(
                "spec.publish: registry {} is not among the hosts granted to plugin `{}`; an administrator adds https://{} to its \
                 spec.grants.hosts",
                place.host(),
                plugin.name,
                place.host()
            );
            Err(Verdict::new(reason::PLUGIN_DENIED, what))
        }
    }
}

/// The push that is to run: asked for, possible, and not done yet.
fn due<'a, A: Artifact>(observed: &Observed<A>, plan: &'a Plan) -> Option<&'a Push> {
    let push = plan.push.as_ref()?.as_ref().ok().filter(|_| matches!(plan.run, Run::Done))?;
    let known = observed.object.known().and_then(|status| status.published.as_ref());
    (known.and_then(|known| known.inputs.as_ref()) != Some(&push.inputs)).then_some(push)
}

/// The children of an artifact that is complete, and which try the Job is.
pub fn build<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
) -> Result<(Vec<Child>, Built), Verdict> {
    let (Some(push), Some(name)) = (due(observed, plan), A::FACTS.publish) else { return Ok((Vec::new(), Built::default())) };
    let (name, job) = (name(observed.name()), observed.publisher.as_deref());
    let basis = push.basis();
    let same = job.is_some_and(|job| jobs::is_of(job, &basis));
    let outcome = observed.outcome(&push.inputs, &name);
    let recorded = observed.object.known().and_then(|status| status.published.as_ref()).map_or(0, |known| known.attempt);
    let recorded = u32::try_from(recorded).unwrap_or_default();
    let attempt = retry::attempt(job, recorded, same, outcome.as_ref(), observed.annotation(RETRY), observed.now);
    let template = template(observed, environment, plan, push, &name)?;
    let mut policy = jobs::failure_policy(CONTAINER);
    policy.rules.extend(jobs::copying_policy(&template).into_iter().flat_map(|policy| policy.rules));
    let spec = JobSpec { backoff_limit: Some(WORKER_RETRIES), pod_failure_policy: Some(policy), template, ..JobSpec::default() };
    let worker = Worker {
        object: (A::FACTS.kind, observed.name()),
        job: name.clone(),
        hosts: &push.hosts,
        named: push.named,
        plain_http: &environment.plain_http,
        bucket: &plan.target,
    };
    let mut children = vec![service_account::child(&observed.owner, A::FACTS.account, environment)];
    children.extend(network_policy::child(&observed.owner, environment, &worker));
    children.push(jobs::child(observed, &basis, &attempt, name, spec));
    let built = jobs::built(job, &basis, attempt);
    Ok((children, Built { push: Some(Box::new(built)), ..Built::default() }))
}

/// The pusher's pod: it reads the artifact, and the Secret where one is named.
fn template<A: Artifact>(
    observed: &Observed<A>,
    environment: &Environment,
    plan: &Plan,
    push: &Push,
    job: &str,
) -> Result<PodTemplateSpec, Verdict> {
    let workload = observed.wanted().workload;
    let mut content = Content::default();
    Builder { environment, options: &workload.worker_options() }.whole(&mut content, VOLUME, ARTIFACT_DIR, &plan.target)?;
    let mut args = vec![
        "push".to_owned(),
        ARTIFACT_DIR.to_owned(),
        format!("--to={}", push.to),
        format!("--inputs={}", push.inputs),
        format!("--grant={}", push.hosts.join(",")),
        format!("--progress-url={}/progress/{}/{job}", environment.store_url, observed.owner.namespace),
        format!("--token-file={}", mounts::TOKEN_FILE),
    ];
    args.extend(push.plain.as_ref().map(|host| format!("--plain-http={host}")));
    args.extend(push.secret.as_ref().map(|_| format!("--docker-config={}", mounts::PUSH_SECRET)));
    let mut template = pod::template(Parts {
        object: (A::FACTS.kind, observed.name().to_owned()),
        container: CONTAINER,
        service_account: A::FACTS.account,
        labels: network_policy::label(job),
        image: environment.worker_image.clone(),
        args,
        env: env::to_worker(&network::variables(environment), std::iter::empty(), &plan.env),
        resources: resources::requirements(None, &Defaults::worker(environment), None),
        content,
        mounts: std::iter::once(mounts::store_token())
            .chain(push.secret.as_deref().map(mounts::push_secret))
            .chain(network::certificates(environment))
            .collect(),
        security: content::reader(&plan.target)?,
        fs_group: Some(content::GROUP),
        restart_policy: Some("Never"),
        options: workload.worker_options(),
        ..Parts::default()
    });
    pod::without_token(&mut template);
    pod::pull_secret(&mut template, environment.worker_pull_secret.as_deref());
    Ok(template)
}

/// What the status says of it, and when to look again.
pub fn conclude<A: Artifact>(observed: &Observed<A>, plan: &Plan, built: Option<&Built>, status: &mut ArtifactStatus) -> Retry {
    let say = |status: &mut ArtifactStatus, said: Say| set(&mut status.conditions, said, observed.generation(), observed.now);
    let Some(push) = &plan.push else {
        // What was pushed stays where it is, and on record.
        status.conditions.retain(|condition| condition.type_ != PUBLISHED);
        rest(status);
        return Retry::OnChange;
    };
    let push = match push {
        Ok(push) => push,
        Err(verdict) => {
            say(status, Say::no(PUBLISHED, verdict.reason, verdict.message.clone()));
            rest(status);
            return verdict.retry;
        }
    };
    if !matches!(plan.run, Run::Done) {
        say(status, Say::no(PUBLISHED, reason::JOB_NOT_COMPLETE, "it is pushed once the artifact is complete"));
        rest(status);
        return Retry::OnChange;
    }
    if due(observed, plan).is_none() {
        let said = whole(push, status.published.as_ref());
        say(status, said);
        rest(status);
        return Retry::OnChange;
    }
    let (said, retry) = runs(observed, push, built, status);
    say(status, said);
    forget_nothing(status);
    retry
}

/// Nothing moves.
fn rest(status: &mut ArtifactStatus) {
    if let Some(published) = &mut status.published {
        (published.transfer, published.attempt) = (None, 0);
    }
    forget_nothing(status);
}

/// An object without members would come back as none, and be written for ever.
fn forget_nothing(status: &mut ArtifactStatus) {
    status.published.take_if(|published| *published == PublishStatus::default());
}

fn whole(push: &Push, known: Option<&PublishStatus>) -> Say {
    let digest = known.and_then(|known| known.digest.as_deref()).unwrap_or_default();
    Say::yes(PUBLISHED, reason::JOB_COMPLETE, format!("{} is {digest}", push.to))
}

/// A push that is under way, or has come to its end.
fn runs<A: Artifact>(observed: &Observed<A>, push: &Push, built: Option<&Built>, status: &mut ArtifactStatus) -> (Say, Retry) {
    let default = Built::default();
    let built = built.unwrap_or(&default);
    let job = observed.publisher.as_deref().filter(|job| built.is_there && job.metadata.deletion_timestamp.is_none());
    let outcome = job.and_then(|job| observed.outcome(&push.inputs, job.metadata.name.as_deref()?));
    let published = status.published.get_or_insert_default();
    published.attempt = i32::try_from(built.attempt.number).unwrap_or(i32::MAX);
    match (job, outcome) {
        (Some(job), Some(Outcome::Complete { source, .. })) if job.holds("Complete").is_some() => {
            *published = PublishStatus {
                reference: Some(push.to.clone()),
                digest: source.revision,
                inputs: Some(push.inputs.clone()),
                ..PublishStatus::default()
            };
            (whole(push, Some(published)), Retry::OnChange)
        }
        (Some(job), outcome) if job.holds("Failed").is_some() => {
            published.transfer = None;
            failed(observed, push, job, outcome, &built.attempt)
        }
        (job, outcome) => {
            let report = observed.pushing.as_ref().filter(|report| report.progress.inputs == push.inputs);
            let retry = report.map_or(Retry::OnChange, |report| {
                let (transfer, retry) = transfer::follow(published.transfer.as_ref(), report, observed.now);
                published.transfer = transfer;
                retry
            });
            (running(observed, push, job, outcome), retry)
        }
    }
}

fn running<A: Artifact>(observed: &Observed<A>, push: &Push, job: Option<&JobView>, outcome: Option<Outcome>) -> Say {
    if let Some(Outcome::Failed { reason, message, .. }) = outcome
        && observed.pushers().all(cause::has_ended)
    {
        return Say::no(PUBLISHED, &reason, format!("{message}{}", account(&reason, push)));
    }
    let message = match (job, cause::of(observed.pushers())) {
        (Some(_), Some(cause)) => cause,
        (Some(job), None) => format!("the Job pushes to {}{}", push.to, cause::since(job.metadata.creation_timestamp.as_ref())),
        (None, _) => "the Job is being created".to_owned(),
    };
    Say::no(PUBLISHED, reason::JOB_NOT_COMPLETE, message)
}

fn failed<A: Artifact>(
    observed: &Observed<A>,
    push: &Push,
    job: &JobView,
    outcome: Option<Outcome>,
    attempt: &Attempt,
) -> (Say, Retry) {
    let (why, mut message) = if let Some(Outcome::Failed { reason, message, .. }) = outcome {
        (reason, message)
    } else {
        let own = job.holds("Failed").and_then(|condition| condition.message.clone());
        let said = cause::of(observed.pushers()).or(own);
        (reason::JOB_FAILED.to_owned(), said.unwrap_or_else(|| "the pod failed and left no message".to_owned()))
    };
    message.push_str(&account(&why, push));
    let retry = conditions::when_again(observed, attempt, &mut message);
    (Say::no(PUBLISHED, &why, message), retry)
}

/// Which account would not do. Whether its Secret exists the operator does not know: it reads none.
fn account(why: &str, push: &Push) -> String {
    match (&push.secret, why) {
        (Some(secret), reason::NEEDS_AUTH | reason::FORBIDDEN) => {
            format!(
                "; now spec.publishSecret names Secret `{secret}`, which counts where it exists and is of the type kubernetes.io/dockerconfigjson"
            )
        }
        (None, reason::NEEDS_AUTH | reason::FORBIDDEN) => "; now spec.publishSecret names none".to_owned(),
        _ => String::new(),
    }
}
