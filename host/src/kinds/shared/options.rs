//! `PodOptions` of a spec put into a pod: what users may add, and nothing that reaches out of it. Pure.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodSpec, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use substratus_crds::{ExtraVolume, PodOptions, SecurityContext as Asked};

/// Before the names of users' volumes, so that they are never one of ours.
const PREFIX: &str = "user-";

/// Adds what the user asked for; the answer of a GPU policy is in the pod already.
pub fn apply(pod: &mut PodSpec, options: &PodOptions) {
    if !options.node_selector.is_empty() {
        pod.node_selector.get_or_insert_default().extend(options.node_selector.clone());
    }
    if !options.tolerations.is_empty() {
        pod.tolerations.get_or_insert_default().extend(options.tolerations.iter().cloned());
    }
    pod.priority_class_name.clone_from(&options.priority_class_name);
    for secret in &options.image_pull_secrets {
        pod.image_pull_secrets.get_or_insert_default().push(LocalObjectReference { name: secret.name.clone() });
    }
    pod.volumes.get_or_insert_default().extend(options.volumes.iter().map(volume));
    pod.volumes.take_if(|volumes| volumes.is_empty());
    if let Some(group) = options.security_context.as_ref().and_then(|asked| asked.fs_group) {
        pod.security_context.get_or_insert_default().fs_group = Some(group);
    }
    for container in &mut pod.containers {
        mounts(container, &options.volumes);
        if let Some(asked) = &options.security_context {
            confine(container.security_context.get_or_insert_default(), asked);
        }
    }
}

fn mounts(container: &mut Container, volumes: &[ExtraVolume]) {
    if volumes.is_empty() {
        return;
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    // A volume of the user's at a path of ours takes its place.
    mounts.retain(|mount| !volumes.iter().any(|volume| volume.mount_path.trim_end_matches('/') == mount.mount_path));
    mounts.extend(volumes.iter().map(|volume| VolumeMount {
        name: format!("{PREFIX}{}", volume.name),
        mount_path: volume.mount_path.clone(),
        sub_path: volume.sub_path.clone(),
        read_only: volume.read_only,
        ..VolumeMount::default()
    }));
}

fn volume(asked: &ExtraVolume) -> Volume {
    Volume {
        name: format!("{PREFIX}{}", asked.name),
        persistent_volume_claim: asked
            .persistent_volume_claim
            .as_ref()
            .map(|claim| PersistentVolumeClaimVolumeSource { claim_name: claim.claim_name.clone(), read_only: asked.read_only }),
        config_map: asked
            .config_map
            .as_ref()
            .map(|map| ConfigMapVolumeSource { name: map.name.clone(), ..ConfigMapVolumeSource::default() }),
        secret: asked
            .secret
            .as_ref()
            .map(|secret| SecretVolumeSource { secret_name: Some(secret.secret_name.clone()), ..SecretVolumeSource::default() }),
        empty_dir: asked.empty_dir.as_ref().map(|folder| EmptyDirVolumeSource {
            medium: folder.medium.clone().filter(|medium| !medium.is_empty()),
            size_limit: folder.size_limit.clone().map(Quantity),
        }),
        ..Volume::default()
    }
}

/// Takes what is asked to be taken, and gives nothing back.
fn confine(context: &mut SecurityContext, asked: &Asked) {
    context.run_as_user = asked.run_as_user.or(context.run_as_user);
    context.run_as_group = asked.run_as_group.or(context.run_as_group);
    context.run_as_non_root = asked.run_as_non_root.or(context.run_as_non_root);
    context.read_only_root_filesystem = asked.read_only_root_filesystem.or(context.read_only_root_filesystem);
    context.allow_privilege_escalation = asked.allow_privilege_escalation.or(context.allow_privilege_escalation);
    if let Some(capabilities) = &asked.capabilities {
        context.capabilities = Some(Capabilities { drop: Some(capabilities.drop.clone()), ..Capabilities::default() });
    }
    if let Some(profile) = &asked.seccomp_profile {
        context.seccomp_profile = Some(SeccompProfile { type_: profile.profile.clone(), ..SeccompProfile::default() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_users_add_stands_beside_what_is_there() {
        let mut pod: PodSpec = serde_json::from_value(json!({
            "nodeSelector": {"gpu": "l4"}, "imagePullSecrets": [{"name": "worker"}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "workspace", "mountPath": "/content/workspace"}]}],
            "volumes": [{"name": "workspace", "emptyDir": {}}]}))
        .unwrap();
        let options: PodOptions = serde_json::from_value(json!({
            "nodeSelector": {"zone": "a"}, "tolerations": [{"key": "spot", "operator": "Exists"}], "priorityClassName": "low",
            "imagePullSecrets": [{"name": "mine"}],
            "securityContext": {"runAsUser": 1000, "fsGroup": 100, "capabilities": {"drop": ["ALL"]}},
            "volumes": [{"name": "workspace", "mountPath": "/content/workspace", "persistentVolumeClaim": {"claimName": "home"}},
                {"name": "certs", "mountPath": "/certs", "readOnly": true, "secret": {"secretName": "tls"}}]}))
        .unwrap();
        apply(&mut pod, &options);
        let pod = serde_json::to_value(&pod).unwrap();
        assert_eq!(pod["nodeSelector"], json!({"gpu": "l4", "zone": "a"}));
        assert_eq!(pod["tolerations"], json!([{"key": "spot", "operator": "Exists"}]));
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "worker"}, {"name": "mine"}]));
        assert_eq!(pod["priorityClassName"], "low");
        assert_eq!(pod["securityContext"], json!({"fsGroup": 100}));
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"], json!({"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}));
        assert_eq!(
            container["volumeMounts"],
            json!([{"name": "user-workspace", "mountPath": "/content/workspace"},
                {"name": "user-certs", "mountPath": "/certs", "readOnly": true}])
        );
        assert_eq!(pod["volumes"][1], json!({"name": "user-workspace", "persistentVolumeClaim": {"claimName": "home"}}));
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        let before: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).unwrap();
        let mut pod = before.clone();
        apply(&mut pod, &PodOptions::default());
        assert_eq!(pod, before);
    }
}
