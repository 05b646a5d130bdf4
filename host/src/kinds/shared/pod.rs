//! A pod template from its parts: the same parts, the same bytes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, LocalObjectReference, PodResourceClaim, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, ResourceClaim, ResourceRequirements, SeccompProfile, SecurityContext, Toleration, Volume,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use substratus_crds::PodOptions;

use super::content::{Content, GROUP};
use super::mounts::Mount;
use super::{names, options};
use crate::plugin::types::{Placement, Probe as AskedProbe};

/// User and group of our own image.
const OWN_USER: i64 = 65_532;

/// What container runtimes give to root, but for the one capability that reads and writes files of others.
const ALL_BUT_DAC_OVERRIDE: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Everything that a pod of ours may be made of.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Kind in lower case and name of the object.
    pub object: (&'static str, String),
    /// Name of the container.
    pub container: &'static str,
    /// Service account of the role.
    pub service_account: &'static str,
    /// Labels beside those that name the object: how the cloud is told who the pod is.
    pub labels: BTreeMap<String, String>,
    /// Image.
    pub image: String,
    /// Entry point; empty keeps the image's own.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<EnvVar>,
    /// Requests and limits.
    pub resources: ResourceRequirements,
    /// Artifacts, and the containers that bring and take them.
    pub content: Content,
    /// Parameters, and what else there is.
    pub mounts: Vec<Mount>,
    /// Answer of the GPU policy.
    pub placement: Option<Placement>,
    /// Who the container may be.
    pub security: Security,
    /// Set for Jobs.
    pub restart_policy: Option<&'static str>,
    /// `fsGroup` of the pod, so that volumes are writable for images that are not root.
    pub fs_group: Option<i64>,
    /// What the user adds.
    pub options: PodOptions,
}

/// What a container may do on its node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// A user's image: whatever it says, within Pod Security `baseline`.
    #[default]
    Image,
    /// An engine's image: as above, without ever getting more privileges than it starts with.
    Engine,
    /// Our own worker on a node path: uid 0 for the folder's sake, and no capability at all.
    Worker,
    /// A container of our own: as confined as a container can be.
    Own,
    /// The same as somebody else's user, whose files it handles.
    As(i64),
    /// A container of our own that handles files of whatever user an image has: root, who may read them all and no more.
    Copier,
}

/// The template.
pub fn template(parts: Parts) -> PodTemplateSpec {
    let (kind, name) = &parts.object;
    let (mut volumes, mut mounts): (Vec<Volume>, Vec<VolumeMount>) =
        parts.content.mounts.into_iter().chain(parts.mounts).map(|mount| (mount.volume, mount.mount)).unzip();
    volumes.extend(parts.content.volumes);
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    volumes.dedup_by(|a, b| a.name == b.name);
    mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
    let mut resources = parts.resources;
    let claims = parts.placement.as_ref().map_or(&[] as &[_], |placement| placement.claims.as_slice());
    if !claims.is_empty() {
        resources.claims =
            Some(claims.iter().map(|claim| ResourceClaim { name: claim.name.clone(), ..ResourceClaim::default() }).collect());
    }
    let mut annotations = parts.content.annotations;
    annotations.insert("kubectl.kubernetes.io/default-container".to_owned(), parts.container.to_owned());
    let fs_group = parts.fs_group.or_else(|| (!parts.content.copiers.is_empty()).then_some(GROUP));
    let container = Container {
        name: parts.container.to_owned(),
        image: Some(parts.image),
        command: non_empty(parts.command),
        args: non_empty(parts.args),
        env: non_empty(parts.env),
        resources: Some(resources),
        volume_mounts: non_empty(mounts),
        security_context: security_context(parts.security),
        ..Container::default()
    };
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(parts.labels.into_iter().chain(names::pod_labels(kind, name)).collect()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![container],
            service_account_name: Some(parts.service_account.to_owned()),
            restart_policy: parts.restart_policy.map(str::to_owned),
            node_selector: parts.placement.as_ref().and_then(node_selector),
            tolerations: parts.placement.as_ref().and_then(tolerations),
            runtime_class_name: parts.placement.as_ref().and_then(|placement| placement.runtime_class.clone()),
            resource_claims: non_empty(
                claims
                    .iter()
                    .map(|claim| PodResourceClaim {
                        name: claim.name.clone(),
                        resource_claim_template_name: Some(claim.name.clone()),
                        ..PodResourceClaim::default()
                    })
                    .collect(),
            ),
            security_context: fs_group.map(|group| PodSecurityContext { fs_group: Some(group), ..PodSecurityContext::default() }),
            init_containers: non_empty(parts.content.copiers),
            termination_grace_period_seconds: parts.content.grace,
            volumes: non_empty(volumes),
            ..PodSpec::default()
        }),
    };
    if let Some(pod) = template.spec.as_mut() {
        options::apply(pod, &parts.options);
    }
    pull_secret(&mut template, parts.content.pull_secret.as_deref());
    template
}

/// The pod's only container, to finish what only one kind has.
pub fn container(template: &mut PodTemplateSpec) -> Option<&mut Container> {
    template.spec.as_mut()?.containers.first_mut()
}

/// Of a pod of our own: it gets no token but the projected one, which is for the store alone.
pub fn without_token(template: &mut PodTemplateSpec) {
    if let Some(spec) = template.spec.as_mut() {
        spec.automount_service_account_token = Some(false);
    }
}

/// Adds a Secret to pull images with.
pub fn pull_secret(template: &mut PodTemplateSpec, secret: Option<&str>) {
    if let (Some(spec), Some(secret)) = (template.spec.as_mut(), secret) {
        let (secrets, secret) =
            (spec.image_pull_secrets.get_or_insert_default(), LocalObjectReference { name: secret.to_owned() });
        if !secrets.contains(&secret) {
            secrets.insert(0, secret);
        }
    }
}

/// A named port.
pub fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// HTTP GET on a named port with the API server's own timings.
pub fn http_get(path: &str, port: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// An adapter's probe.
pub fn probe(asked: &AskedProbe, port: &str) -> Probe {
    let seconds = |value: u32| Some(i32::try_from(value.clamp(1, 86_400)).unwrap_or(1));
    Probe {
        period_seconds: seconds(asked.period_seconds),
        timeout_seconds: seconds(asked.timeout_seconds),
        failure_threshold: seconds(asked.failure_threshold),
        ..http_get(&asked.path, port)
    }
}

fn node_selector(placement: &Placement) -> Option<BTreeMap<String, String>> {
    let selector: BTreeMap<String, String> = placement.node_selector.iter().cloned().collect();
    (!selector.is_empty()).then_some(selector)
}

fn tolerations(placement: &Placement) -> Option<Vec<Toleration>> {
    non_empty(
        placement
            .tolerations
            .iter()
            .map(|asked| Toleration {
                key: Some(asked.key.clone()),
                operator: Some(asked.operator.clone()),
                value: asked.value.clone(),
                effect: asked.effect.clone(),
                ..Toleration::default()
            })
            .collect(),
    )
}

/// What a container may do.
pub fn security_context(security: Security) -> Option<SecurityContext> {
    let drop =
        |names: &[&str]| Some(Capabilities { drop: Some(names.iter().map(|name| (*name).to_owned()).collect()), add: None });
    let confined = SecurityContext {
        allow_privilege_escalation: Some(false),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..SecurityContext::default()
    };
    let ours = |user: i64, capabilities| SecurityContext {
        capabilities,
        read_only_root_filesystem: Some(true),
        run_as_user: Some(user),
        ..confined.clone()
    };
    // Said here, because the pod of a user's image may be root's.
    let nobody =
        |user: i64| SecurityContext { run_as_group: Some(user), run_as_non_root: Some(true), ..ours(user, drop(&["ALL"])) };
    match security {
        Security::Image => None,
        Security::Engine => Some(confined),
        Security::Worker => Some(ours(0, drop(&["ALL"]))),
        Security::Own => Some(nobody(OWN_USER)),
        Security::As(user) => Some(nobody(user)),
        Security::Copier => Some(ours(0, drop(ALL_BUT_DAC_OVERRIDE))),
    }
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_for_the_cloud_stand_beside_those_that_name_the_object() {
        let labels = [("azure.workload.identity/use", "true"), ("model", "another")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let made = template(Parts { object: ("model", "m".to_owned()), labels, ..Parts::default() });
        let found = made.metadata.unwrap().labels.unwrap();
        assert_eq!((found["azure.workload.identity/use"].as_str(), found["model"].as_str()), ("true", "m"));
    }
}
