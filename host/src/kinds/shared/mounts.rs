//! How a pod sees artifacts: volumes and mounts by bucket. Pure.

use std::str::FromStr;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, ProjectedVolumeSource, ServiceAccountTokenProjection,
    Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use substratus_crds::conditions::reason;

use super::verdict::Verdict;
use crate::bucket::BucketUrl;
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

/// The artifacts of an object at `/content/{dir}`. `url` is what `status.artifacts.url` says.
pub fn artifacts(volume: &str, dir: &str, url: &str, read_only: bool) -> Result<Mount, Verdict> {
    let path = local(url)?;
    Ok(Mount {
        volume: host_path(volume, &path),
        mount: VolumeMount {
            name: volume.to_owned(),
            mount_path: format!("{CONTENT}/{dir}"),
            sub_path: Some("artifacts".to_owned()),
            read_only: read_only.then_some(true),
            ..VolumeMount::default()
        },
    })
}

/// A base model at `/content/model` and a dataset at `/content/data`, for reading, where there are such.
pub fn references(model: Option<&str>, dataset: Option<&str>) -> Result<Vec<Mount>, Verdict> {
    let model = model.map(|url| artifacts("model", "model", url, true));
    let dataset = dataset.map(|url| artifacts("dataset", "data", url, true));
    model.into_iter().chain(dataset).collect()
}

/// A folder beside the artifacts of an object, anywhere in the container.
pub fn beside(volume: &str, url: &str, folder: &str, path: &str) -> Result<Mount, Verdict> {
    Ok(Mount {
        volume: host_path(volume, &local(url)?),
        mount: VolumeMount {
            name: volume.to_owned(),
            mount_path: path.to_owned(),
            sub_path: Some(folder.to_owned()),
            ..VolumeMount::default()
        },
    })
}

/// The whole place of a load, where its bucket URL says it is: files go to `artifacts`, records beside it.
pub fn target(url: &str) -> Result<Mount, Verdict> {
    let path = local(url)?;
    Ok(Mount {
        volume: host_path("artifacts", &path),
        mount: VolumeMount { name: "artifacts".to_owned(), mount_path: path, ..VolumeMount::default() },
    })
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

fn host_path(volume: &str, path: &str) -> Volume {
    Volume {
        name: volume.to_owned(),
        host_path: Some(HostPathVolumeSource { path: path.to_owned(), type_: Some("DirectoryOrCreate".to_owned()) }),
        ..Volume::default()
    }
}

fn local(url: &str) -> Result<String, Verdict> {
    let parsed =
        BucketUrl::from_str(url).map_err(|error| Verdict::new(reason::INVALID, format!("status.artifacts.url: {error}")))?;
    let path = parsed.local_path().and_then(|path| path.to_str().map(str::to_owned));
    path.ok_or_else(|| {
        Verdict::new(
            reason::UNSUPPORTED,
            format!("artifacts at {url} cannot be mounted; this version mounts node paths (tar://, file://)"),
        )
    })
}
