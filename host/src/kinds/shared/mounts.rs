//! Volumes and mounts that hold no artifacts. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, KeyToPath, ProjectedVolumeSource, SecretProjection, SecretVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use substratus_crds::ObjectRef;

use crate::store;

/// Where a container of ours finds its token for the store.
pub const TOKEN_FILE: &str = "/var/run/secrets/substratus.ai/token";
/// The folder of that file, and its name.
const TOKEN: (&str, &str) = ("/var/run/secrets/substratus.ai", "token");

/// Folder of the contract that holds everything a container may read or write.
pub const CONTENT: &str = "/content";

/// A volume and where it appears.
#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    /// The volume.
    pub volume: Volume,
    /// Where the container sees it.
    pub mount: VolumeMount,
}

/// Where a worker finds what Secrets know of accounts at registries, one file each.
pub const PULL_SECRETS: &str = "/etc/substratus/pull-secrets";
/// Where a pusher finds the docker configuration with its account.
pub const PUSH_SECRET: &str = "/etc/substratus/push-secret";
/// The key of such a Secret.
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// Secrets to pull with, as files; one that is not there, or holds something else, is left out.
pub fn pull_secrets(secrets: &[ObjectRef]) -> Mount {
    let sources = secrets.iter().enumerate().map(|(index, secret)| VolumeProjection {
        secret: Some(SecretProjection {
            name: secret.name.clone(),
            // In the order in which they count.
            items: Some(vec![docker_config(&format!("{index:03}.json"))]),
            optional: Some(true),
        }),
        ..VolumeProjection::default()
    });
    let projected = ProjectedVolumeSource { sources: Some(sources.collect()), ..ProjectedVolumeSource::default() };
    let volume = Volume { name: "pull-secrets".to_owned(), projected: Some(projected), ..Volume::default() };
    read_only(volume, PULL_SECRETS)
}

/// The Secret to push with, as docker's own settings; nothing where it is not there.
pub fn push_secret(secret: &str) -> Mount {
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        items: Some(vec![docker_config("config.json")]),
        optional: Some(true),
        ..SecretVolumeSource::default()
    };
    read_only(Volume { name: "push-secret".to_owned(), secret: Some(source), ..Volume::default() }, PUSH_SECRET)
}

fn docker_config(path: &str) -> KeyToPath {
    KeyToPath { key: DOCKER_CONFIG.to_owned(), path: path.to_owned(), mode: None }
}

fn read_only(volume: Volume, path: &str) -> Mount {
    let (name, mount_path) = (volume.name.clone(), path.to_owned());
    Mount { volume, mount: VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() } }
}

/// The params ConfigMap as the single file `/content/params.json`.
pub fn params(config_map: String) -> Mount {
    Mount {
        volume: config_map_volume("params", config_map),
        mount: VolumeMount {
            name: "params".to_owned(),
            mount_path: format!("{CONTENT}/params.json"),
            sub_path: Some("params.json".to_owned()),
            ..VolumeMount::default()
        },
    }
}

/// A ConfigMap as a volume.
pub fn config_map_volume(volume: &str, config_map: String) -> Volume {
    Volume {
        name: volume.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: config_map, ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    }
}

/// A ConfigMap as a folder that nobody writes to.
pub fn config_map(volume: &str, config_map: String, path: &str) -> Mount {
    Mount {
        volume: config_map_volume(volume, config_map),
        mount: VolumeMount {
            name: volume.to_owned(),
            mount_path: path.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    }
}

/// The pod's token for the operator's store, and for nobody else.
pub fn store_token() -> Mount {
    let token = ServiceAccountTokenProjection {
        audience: Some(store::AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: TOKEN.1.to_owned(),
    };
    Mount {
        volume: Volume {
            name: "store-token".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }]),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
        mount: VolumeMount {
            name: "store-token".to_owned(),
            mount_path: TOKEN.0.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        },
    }
}

/// A folder that lives as long as the pod.
pub fn scratch(volume: &str, path: &str, bytes: Option<u64>, in_memory: bool) -> Mount {
    Mount {
        volume: Volume {
            name: volume.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource {
                medium: in_memory.then(|| "Memory".to_owned()),
                size_limit: bytes.map(|bytes| Quantity(format!("{}Mi", bytes.div_ceil(1 << 20)))),
            }),
            ..Volume::default()
        },
        mount: VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() },
    }
}
