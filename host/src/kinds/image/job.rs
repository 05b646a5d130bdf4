//! The Job that builds an image, with the fewest privileges under which `BuildKit` works in a pod. Pure: the same plan, the same bytes.
//!
//! | container | image | may |
//! |---|---|---|
//! | `tools` | the worker's | nothing: it copies our program to the others |
//! | `git-clone` | with git | nothing; sees the repository's Secret |
//! | `upload-fetch`, in its stead | the worker's | nothing; sees a token for the operator's store |
//! | `builder` | `BuildKit`'s | be told a user namespace's ids by `newuidmap`: `allowPrivilegeEscalation`, `SETUID`, `SETGID`; sees the registry's Secret |
//!
//! The builder is user 1000, and root only inside of its own user namespace. It is no privileged container, and gets no token for the API server, no
//! folder of the node and none of the node's namespaces. No pod but this one has as much: `reconcile::guard` sees to it.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, Container, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use substratus_crds::{GitSource, ObjectRef, UploadSource};

use super::observe::Observed;
use super::plan::{Plan, State, identity};
use super::source::{self, Source};
use crate::kinds::artifact::jobs;
use crate::kinds::artifact::retry::Attempt;
use crate::kinds::shared::child::{Child, ChildKind, Policy};
use crate::kinds::shared::content::GROUP;
use crate::kinds::shared::environment::{Environment, Profile};
use crate::kinds::shared::mounts::{self, Mount};
use crate::kinds::shared::names::{self, ATTEMPT, IMAGE, RETRY};
use crate::kinds::shared::pod::{self, Security};
use crate::kinds::shared::resources::{self, Default as Defaults};
use crate::kinds::shared::{env, network};
use crate::reconcile::service_account;

/// The container that fetches the sources.
pub const CLONE: &str = "git-clone";
/// The container that fetches what a user sent.
pub const FETCH: &str = "upload-fetch";
/// The container that builds.
pub const BUILDER: &str = "builder";
/// User of both: the one that images of `BuildKit` have, and `/etc/subuid` in them.
pub const USER: i64 = 1000;
/// What the builder may do beside an ordinary container.
pub const CAPABILITIES: [&str; 2] = ["SETGID", "SETUID"];
/// How often a pod that failed is started again; as the first operator had it.
const RETRIES: i32 = 1;

const TOOLS: &str = "/tools";
const PROGRAM: &str = "/tools/substratus";
const WORKSPACE: &str = "/workspace";
const STATE: &str = "/builder";
const PRIVATE: &str = "/private";
const GIT_SECRET: &str = "/etc/substratus/git";

/// The children of a build that is due; none where the image is there.
pub fn children(observed: &Observed<'_>, environment: &Environment, plan: &Plan, pull: &[ObjectRef]) -> Vec<Child> {
    let State::Due { attempt, .. } = &plan.state else { return Vec::new() };
    vec![
        service_account::child(observed.owner, names::CONTAINER_BUILDER, environment),
        job(observed, environment, plan, attempt, pull),
    ]
}

fn job(observed: &Observed<'_>, environment: &Environment, plan: &Plan, attempt: &Attempt, pull: &[ObjectRef]) -> Child {
    let annotations = [(IMAGE, plan.image.clone()), (ATTEMPT, attempt.number.to_string()), (RETRY, String::new())];
    let metadata = ObjectMeta {
        name: Some(names::build_job(observed.name(), &observed.kind())),
        annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
        ..ObjectMeta::default()
    };
    let spec = JobSpec {
        backoff_limit: Some(RETRIES),
        pod_failure_policy: Some(jobs::failure_policy_of(&[fetcher(plan), BUILDER])),
        pod_replacement_policy: Some("Failed".to_owned()),
        template: template(observed, environment, plan, pull),
        ..JobSpec::default()
    };
    let job = Job { metadata, spec: Some(spec), ..Job::default() };
    Child::new(ChildKind::Job, Policy::Run { identity: identity(&plan.inputs, attempt) }, observed.owner, job)
}

fn template(observed: &Observed<'_>, environment: &Environment, plan: &Plan, pull: &[ObjectRef]) -> PodTemplateSpec {
    let (tools, workspace) = (mounts::scratch("tools", TOOLS, None, false), mounts::scratch("workspace", WORKSPACE, None, false));
    let state = mounts::scratch("state", STATE, None, false);
    let tmp = mounts::scratch("tmp", "/tmp", None, false);
    let (fetch, of_fetch) = match &plan.source {
        Source::Git(git) => clone(environment, plan, git, [&tools, &workspace, &tmp]),
        Source::Upload(upload) => fetch(observed, environment, plan, upload, &workspace),
    };
    let accounts = accounts(environment, pull);
    let certificates = network::certificates(environment);

    let install = Container {
        name: "tools".to_owned(),
        image: Some(environment.worker_image.clone()),
        args: Some(["builder", "install", PROGRAM].map(str::to_owned).to_vec()),
        resources: Some(resources::requirements(None, &Defaults::worker(environment), None)),
        security_context: pod::security_context(Security::Own),
        volume_mounts: Some(vec![tools.mount.clone()]),
        ..Container::default()
    };
    let of_builder = [&tools, &workspace, &state, &tmp].into_iter().chain(&accounts).chain(&certificates);
    let builder = Container {
        name: BUILDER.to_owned(),
        image: Some(environment.building.image.clone()),
        args: Some(build_args(observed, environment, plan, &accounts)),
        resources: Some(requests(environment)),
        security_context: Some(builder_security(environment)),
        ..ours(of_builder, environment)
    };
    let all = [&tools, &workspace, &state, &tmp].into_iter().chain(&of_fetch);
    let mut volumes: Vec<Volume> = all.chain(&accounts).chain(&certificates).map(|mount| mount.volume.clone()).collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let annotations = [("kubectl.kubernetes.io/default-container".to_owned(), BUILDER.to_owned())];
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(names::build_labels(&observed.kind(), observed.name())),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            init_containers: Some(vec![install, fetch]),
            containers: vec![builder],
            service_account_name: Some(names::CONTAINER_BUILDER.to_owned()),
            restart_policy: Some("Never".to_owned()),
            enable_service_links: Some(false),
            security_context: Some(PodSecurityContext { fs_group: Some(GROUP), ..PodSecurityContext::default() }),
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
    };
    pod::without_token(&mut template);
    pod::pull_secret(&mut template, environment.worker_pull_secret.as_deref());
    template
}

/// What both containers of other images have: our program, its last words, and the way out.
fn ours<'a>(mounted: impl Iterator<Item = &'a Mount>, environment: &Environment) -> Container {
    let mut mounts: Vec<VolumeMount> = mounted.map(|mount| mount.mount.clone()).collect();
    mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
    let variables = env::to_container(&network::variables(environment), &BTreeMap::new());
    Container {
        command: Some(vec![PROGRAM.to_owned()]),
        env: (!variables.is_empty()).then_some(variables),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// Name of the container that fetches the sources.
fn fetcher(plan: &Plan) -> &'static str {
    match plan.source {
        Source::Git(_) => CLONE,
        Source::Upload(_) => FETCH,
    }
}

/// The container that clones, and what it has beside `shared`.
fn clone(environment: &Environment, plan: &Plan, git: &GitSource, shared: [&Mount; 3]) -> (Container, Vec<Mount>) {
    let private = mounts::scratch("private", PRIVATE, Some(1 << 20), true);
    let own: Vec<Mount> = git.secret.as_deref().map(git_secret).into_iter().chain([private]).collect();
    let certificates = network::certificates(environment);
    let container = Container {
        name: CLONE.to_owned(),
        image: Some(environment.building.git_image.clone()),
        args: Some(clone_args(plan, git)),
        resources: Some(resources::requirements(None, &Defaults::worker(environment), None)),
        security_context: pod::security_context(Security::As(USER)),
        ..ours(shared.into_iter().chain(&own).chain(&certificates), environment)
    };
    (container, own)
}

/// The container that takes from the operator what a user sent, and what it has beside the workspace.
fn fetch(
    observed: &Observed<'_>,
    environment: &Environment,
    plan: &Plan,
    upload: &UploadSource,
    workspace: &Mount,
) -> (Container, Vec<Mount>) {
    let token = mounts::store_token();
    let (kind, namespace, name) = (observed.kind(), &observed.owner.namespace, observed.name());
    let md5 = upload.md5_checksum.to_ascii_lowercase();
    let mut args = vec![
        "builder".to_owned(),
        "fetch".to_owned(),
        format!("--inputs={}", plan.inputs),
        format!("--url={}/uploads/{kind}/{namespace}/{name}/{md5}", environment.store_url),
        format!("--token-file={}", mounts::TOKEN_FILE),
        format!("--md5={md5}"),
        format!("--to={WORKSPACE}"),
    ];
    args.extend(upload.sha256_checksum.as_ref().map(|sum| format!("--sha256={}", sum.to_ascii_lowercase())));
    let container = Container {
        name: FETCH.to_owned(),
        image: Some(environment.worker_image.clone()),
        command: None,
        args: Some(args),
        resources: Some(resources::requirements(None, &Defaults::worker(environment), None)),
        security_context: pod::security_context(Security::As(USER)),
        ..ours([workspace, &token].into_iter(), environment)
    };
    (container, vec![token])
}

fn clone_args(plan: &Plan, git: &GitSource) -> Vec<String> {
    let mut args = vec![
        "builder".to_owned(),
        "clone".to_owned(),
        format!("--inputs={}", plan.inputs),
        format!("--url={}", git.url),
        format!("--to={WORKSPACE}"),
        format!("--private={PRIVATE}"),
    ];
    let named = [("branch", &git.branch), ("tag", &git.tag), ("commit", &git.commit)];
    args.extend(named.into_iter().filter_map(|(flag, value)| Some(format!("--{flag}={}", value.as_deref()?))));
    args.push(format!("--path={}", plan.source.path()));
    args.extend(git.depth.map(|depth| format!("--depth={depth}")));
    args.extend((git.submodules == Some(true)).then(|| "--submodules".to_owned()));
    args.extend(git.secret.as_ref().map(|_| format!("--secret={GIT_SECRET}")));
    args
}

fn build_args(observed: &Observed<'_>, environment: &Environment, plan: &Plan, accounts: &[Mount]) -> Vec<String> {
    let mut args = vec![
        "builder".to_owned(),
        "build".to_owned(),
        format!("--inputs={}", plan.inputs),
        format!("--from={WORKSPACE}"),
        format!("--path={}", plan.source.path()),
        format!("--image={}", plan.image),
        format!("--cache-tag={}", source::cache_tag(&observed.kind(), &observed.owner.namespace, observed.name())),
        format!("--state={STATE}"),
    ];
    args.extend(environment.plain_http.iter().map(|host| format!("--plain-http={host}")));
    args.extend(accounts.iter().map(|mount| format!("--accounts={}", mount.mount.mount_path)));
    args.extend(network::certificates(environment).map(|mount| format!("--ca-dir={}", mount.mount.mount_path)));
    args.extend(environment.building.daemon_args.iter().map(|arg| format!("--daemon-arg={arg}")));
    args.extend(environment.building.args.iter().map(|arg| format!("--arg={arg}")));
    args
}

/// Accounts for base images, and the one that pushes, which counts.
fn accounts(environment: &Environment, pull: &[ObjectRef]) -> Vec<Mount> {
    let pull = (!pull.is_empty()).then(|| mounts::pull_secrets(pull));
    pull.into_iter().chain(environment.building.push_secret.as_deref().map(mounts::push_secret)).collect()
}

/// What opens a repository, as files; one that is not there is what git complains of, not a pod that never starts.
fn git_secret(name: &str) -> Mount {
    let source = SecretVolumeSource { secret_name: Some(name.to_owned()), optional: Some(true), ..SecretVolumeSource::default() };
    let volume = Volume { name: "git-secret".to_owned(), secret: Some(source), ..Volume::default() };
    let (name, mount_path) = (volume.name.clone(), GIT_SECRET.to_owned());
    Mount { volume, mount: VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() } }
}

fn requests(environment: &Environment) -> ResourceRequirements {
    resources::requirements(None, &Defaults::builder(environment), None)
}

/// No more than a user namespace with more than one user in it takes.
fn builder_security(environment: &Environment) -> SecurityContext {
    let building = &environment.building;
    let own = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let profile = |profile: &Option<Profile>| {
        let (kind, name) = profile.as_ref()?.spelled()?;
        Some((kind.to_owned(), name.map(str::to_owned)))
    };
    SecurityContext {
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        run_as_non_root: Some(true),
        read_only_root_filesystem: Some(true),
        // `newuidmap` has a capability that the process which starts it has not.
        allow_privilege_escalation: Some(true),
        capabilities: Some(Capabilities { drop: own(&["ALL"]), add: own(&CAPABILITIES) }),
        seccomp_profile: profile(&building.seccomp).map(|(type_, localhost_profile)| SeccompProfile { type_, localhost_profile }),
        app_armor_profile: profile(&building.apparmor)
            .map(|(type_, localhost_profile)| AppArmorProfile { type_, localhost_profile }),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
