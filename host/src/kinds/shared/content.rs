//! What a pod sees of the bucket, whatever the bucket is kept in: a folder of the node or of a claim, a driver's mount, or copies
//! that containers of our own bring in before the pod's container starts and take out after it has ended. Pure.

use std::collections::BTreeMap;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{
    CSIVolumeSource, Container, EnvFromSource, HostPathVolumeSource, PersistentVolumeClaimVolumeSource, SecretEnvSource, Volume,
    VolumeMount,
};
use substratus_crds::PodOptions;
use substratus_crds::conditions::reason;

use super::environment::Environment;
use super::mounts::{CONTENT, Mount, scratch};
use super::network;
use super::pod::{Security, security_context};
use super::resources::{self, Default as Defaults};
use super::verdict::Verdict;
use crate::bucket::BucketUrl;
use crate::bucket::url::{ARTIFACTS, Scheme};

/// The group that a pod's volumes belong to where containers of several users write to them; as in existing clusters.
pub const GROUP: i64 = 3003;
/// How often what is kept is published while the pod runs: a node that is lost takes no more than that with it.
const KEEP_SECONDS: u32 = 60;
/// The sidecar that publishes an artifact: its last words say whether the artifact is whole.
pub const PUBLISHER: &str = "publish-artifacts";
/// How the names of containers that copy in begin.
pub const STAGE: &str = "stage-";
/// How the names of containers that copy out begin.
pub const PUBLISH: &str = "publish-";
/// Folder beside the artifacts that outlives a Notebook's pod.
pub const WORKSPACE: &str = "workspace";
/// Where a worker finds the claim that it writes to.
pub(super) const CLAIM_DIR: &str = "/claim";
/// Where the copying containers find the folders they copy.
const COPY_DIR: &str = "/copy";
/// Google's driver, what it is told, and what its sidecar may use; as in existing clusters.
pub const DRIVER: &str = "gcsfuse.csi.storage.gke.io";
const DRIVER_OPTIONS: &str = "implicit-dirs,uid=0,gid=3003";
const DRIVER_ANNOTATIONS: [(&str, &str); 4] = [
    ("gke-gcsfuse/volumes", "true"),
    ("gke-gcsfuse/cpu-limit", "2"),
    ("gke-gcsfuse/memory-limit", "800Mi"),
    ("gke-gcsfuse/ephemeral-storage-limit", "100Gi"),
];

/// What a pod gets of artifacts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Folders.
    pub mounts: Vec<Mount>,
    /// Init containers and sidecars that copy, in the order in which they start.
    pub copiers: Vec<Container>,
    /// Volumes of those containers alone.
    pub volumes: Vec<Volume>,
    /// Annotations of the pod.
    pub annotations: BTreeMap<String, String>,
    /// What the container leaves is taken out once it has ended, which may take so many seconds.
    pub grace: Option<i64>,
    /// Secret to pull the image of those containers with.
    pub pull_secret: Option<String>,
}

/// Where a worker writes, as it sees it.
#[derive(Clone, Debug)]
pub struct Target {
    /// What `request.target` says.
    pub url: String,
    /// The folder, where it is one.
    pub mount: Option<Mount>,
    /// Who the worker has to be.
    pub security: Security,
    /// Group of its volumes.
    pub fs_group: Option<i64>,
    /// How it reaches the bucket.
    pub env_from: Option<Vec<EnvFromSource>>,
}

/// Puts together what a pod gets.
#[derive(Clone, Copy, Debug)]
pub struct Builder<'a> {
    /// The place it is for.
    pub environment: &'a Environment,
    /// What the user says of the pod: who its container is.
    pub options: &'a PodOptions,
}

impl Builder<'_> {
    /// The artifacts at `url` as `/content/{dir}`, for reading.
    pub fn read(&self, content: &mut Content, volume: &str, dir: &str, url: &str) -> Result<(), Verdict> {
        let path = format!("{CONTENT}/{dir}");
        if self.mount(content, volume, (url, ARTIFACTS), &path, true)? {
            self.add(content, self.stager(volume, url, Security::Own, &[]));
        }
        Ok(())
    }

    /// The artifact at `url` with the records beside it as `path`, for reading.
    pub fn whole(&self, content: &mut Content, volume: &str, path: &str, url: &str) -> Result<(), Verdict> {
        if self.mount(content, volume, (url, ""), path, true)? {
            self.add(content, self.stager(volume, url, Security::Own, &[]));
        }
        Ok(())
    }

    /// A base model as `/content/model` and a dataset as `/content/data`, for reading, where there are such.
    pub fn references(&self, content: &mut Content, model: Option<&str>, dataset: Option<&str>) -> Result<(), Verdict> {
        model.map_or(Ok(()), |url| self.read(content, "model", "model", url))?;
        dataset.map_or(Ok(()), |url| self.read(content, "dataset", "data", url))
    }

    /// The folder `/content/artifacts`, whose files become the artifacts at `url`; `inputs` is what they are made from.
    pub fn write(&self, content: &mut Content, url: &str, inputs: &str) -> Result<(), Verdict> {
        if self.mount(content, ARTIFACTS, (url, ARTIFACTS), &format!("{CONTENT}/{ARTIFACTS}"), false)? {
            self.add(content, self.publisher(ARTIFACTS, url, inputs, &[]));
            content.grace = Some(self.environment.publish_seconds.into());
        }
        Ok(())
    }

    /// The folder `sub` at `url` as `path`: what is there already can be changed.
    pub fn keep(&self, content: &mut Content, url: &str, sub: &str, path: &str) -> Result<(), Verdict> {
        if self.mount(content, sub, (url, sub), path, false)? {
            let url = if sub == ARTIFACTS { url.to_owned() } else { format!("{}/{sub}", url.trim_end_matches('/')) };
            self.add(content, self.stager(sub, &url, self.copier(), &["--or-empty"]));
            self.add(content, self.publisher(sub, &url, "kept", &[&format!("--every={KEEP_SECONDS}")]));
            content.grace = Some(self.environment.publish_seconds.into());
        }
        Ok(())
    }

    fn add(&self, content: &mut Content, mut copier: Container) {
        network::add(&mut copier, self.environment);
        content.copiers.push(copier);
        content.volumes = network::certificates(self.environment).map(|mount| mount.volume).into_iter().collect();
        content.pull_secret.clone_from(&self.environment.worker_pull_secret);
    }

    /// Mounts a folder; true where it is an empty one that has to be filled.
    fn mount(
        &self,
        content: &mut Content,
        volume: &str,
        (url, sub): (&str, &str),
        path: &str,
        read_only: bool,
    ) -> Result<bool, Verdict> {
        let (mount, copied) = if let Some((volume, below)) = volume_for(self.environment, volume, url, read_only)? {
            // What lies beside the artifacts of a node path shares their volume.
            (Mount { mount: mounted(&volume.name, path, join(&below, sub)), volume }, false)
        } else {
            let Mount { volume, .. } = scratch(volume, path, None, false);
            // Where all is wanted, the records that are copied with it too.
            let part = if sub.is_empty() { "" } else { ARTIFACTS };
            (Mount { mount: mounted(&volume.name, path, part.to_owned()), volume }, true)
        };
        if mount.volume.csi.is_some() {
            content.annotations.extend(DRIVER_ANNOTATIONS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        let mount_of = VolumeMount { read_only: read_only.then_some(true), ..mount.mount };
        content.mounts.push(Mount { volume: mount.volume, mount: mount_of });
        Ok(copied)
    }

    fn stager(&self, volume: &str, url: &str, security: Security, more: &[&str]) -> Container {
        let to = format!("--to={COPY_DIR}/{volume}");
        let args = ["stage", url, &to].iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        Container { name: format!("{STAGE}{volume}"), ..self.container(volume, args, security) }
    }

    fn publisher(&self, volume: &str, url: &str, inputs: &str, more: &[&str]) -> Container {
        let (from, to) = (format!("{COPY_DIR}/{volume}/{ARTIFACTS}"), format!("--to={url}"));
        let inputs = format!("--inputs={inputs}");
        let args = ["publish", &from, &to, &inputs, "--after-signal"];
        let args = args.iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        Container {
            name: format!("{PUBLISH}{volume}"),
            // A sidecar: it is told to end once the pod's container has ended.
            restart_policy: Some("Always".to_owned()),
            ..self.container(volume, args, self.copier())
        }
    }

    fn container(&self, volume: &str, args: Vec<String>, security: Security) -> Container {
        Container {
            image: Some(self.environment.worker_image.clone()),
            args: Some(args),
            env_from: env_from(self.environment),
            resources: Some(resources::requirements(None, &Defaults::worker(self.environment), None)),
            security_context: security_context(security),
            volume_mounts: Some(vec![VolumeMount {
                name: volume.to_owned(),
                mount_path: format!("{COPY_DIR}/{volume}"),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        }
    }

    /// Who copies what the pod's container writes: its own user, where the spec says who that is.
    fn copier(&self) -> Security {
        let Some(asked) = &self.options.security_context else { return Security::Copier };
        match (asked.run_as_user, asked.run_as_non_root) {
            (Some(user), _) if user > 0 => Security::As(user),
            (_, Some(true)) => Security::Own,
            _ => Security::Copier,
        }
    }
}

/// Where the worker of a load writes. Workers never write through a driver.
pub fn target(environment: &Environment, url: &str) -> Result<Target, Verdict> {
    let parsed = parse(url)?;
    let folder = |volume: Volume, path: &str, below: String, security, fs_group| Target {
        url: format!("file:///{path}"),
        mount: Some(Mount { mount: mounted(&volume.name, path, below), volume }),
        security,
        fs_group,
        env_from: None,
    };
    Ok(match (parsed.scheme(), parsed.local_path()) {
        (_, Some(path)) => {
            let path = path.to_str().unwrap_or_default().to_owned();
            // Records and artifacts both: the folder itself, under its own name.
            let target = folder(host_path(ARTIFACTS, &path), &path, String::new(), Security::Worker, None);
            Target { url: url.to_owned(), ..target }
        }
        (Scheme::Pvc, _) => {
            folder(claim(ARTIFACTS, parsed.bucket()), CLAIM_DIR, parsed.path().to_owned(), Security::Own, Some(GROUP))
        }
        _ => {
            Target { url: url.to_owned(), mount: None, security: Security::Own, fs_group: None, env_from: env_from(environment) }
        }
    })
}

/// Who reads an artifact at `url` for us: on a node path files may be root's, or any user's.
pub fn reader(url: &str) -> Result<Security, Verdict> {
    Ok(if parse(url)?.local_path().is_some() { Security::Copier } else { Security::Own })
}

/// Whether what a container writes for `url` is published, and the publisher's word is what counts.
pub fn is_published(environment: &Environment, url: &str) -> bool {
    volume_for(environment, ARTIFACTS, url, false).is_ok_and(|volume| volume.is_none())
}

/// Whether workers see a folder there, in which several of them can meet.
pub fn is_folder(url: &str) -> bool {
    parse(url).is_ok_and(|url| !url.scheme().is_object())
}

/// The volume of a place in the bucket, and the place's path in it; none where it is copied.
fn volume_for(environment: &Environment, volume: &str, url: &str, read_only: bool) -> Result<Option<(Volume, String)>, Verdict> {
    let parsed = parse(url)?;
    let bucket = parsed.bucket();
    Ok(match (parsed.scheme(), parsed.local_path()) {
        (_, Some(path)) => Some((host_path(volume_of(volume), path.to_str().unwrap_or_default()), String::new())),
        (Scheme::Pvc, _) => Some((claim(volume_of(volume), bucket), parsed.path().to_owned())),
        (Scheme::Gs, _) if environment.has_driver() => {
            Some((driver(volume_of(volume), bucket, read_only), parsed.path().to_owned()))
        }
        _ => None,
    })
}

/// A workspace lies beside the artifacts, in the same volume.
fn volume_of(volume: &str) -> &str {
    if volume == WORKSPACE { ARTIFACTS } else { volume }
}

pub(super) fn parse(url: &str) -> Result<BucketUrl, Verdict> {
    BucketUrl::from_str(url).map_err(|error| Verdict::new(reason::INVALID, format!("status.artifacts.url: {error}")))
}

fn join(base: &str, sub: &str) -> String {
    let base = base.trim_matches('/');
    match (base, sub) {
        ("", _) => sub.to_owned(),
        (_, "") => base.to_owned(),
        _ => format!("{base}/{sub}"),
    }
}

pub(super) fn mounted(volume: &str, path: &str, sub_path: String) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        sub_path: (!sub_path.is_empty()).then_some(sub_path),
        ..VolumeMount::default()
    }
}

pub(super) fn host_path(volume: &str, path: &str) -> Volume {
    Volume {
        name: volume.to_owned(),
        host_path: Some(HostPathVolumeSource { path: path.to_owned(), type_: Some("DirectoryOrCreate".to_owned()) }),
        ..Volume::default()
    }
}

pub(super) fn claim(volume: &str, claim: &str) -> Volume {
    let source =
        PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), ..PersistentVolumeClaimVolumeSource::default() };
    Volume { name: volume.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
}

fn driver(volume: &str, bucket: &str, read_only: bool) -> Volume {
    let attributes = [("bucketName", bucket), ("mountOptions", DRIVER_OPTIONS)];
    let source = CSIVolumeSource {
        driver: DRIVER.to_owned(),
        read_only: read_only.then_some(true),
        volume_attributes: Some(attributes.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..CSIVolumeSource::default()
    };
    Volume { name: volume.to_owned(), csi: Some(source), ..Volume::default() }
}

/// The variables that reach the bucket, where they are not the cloud's own.
fn env_from(environment: &Environment) -> Option<Vec<EnvFromSource>> {
    let name = environment.bucket_secret.clone()?;
    Some(vec![EnvFromSource { secret_ref: Some(SecretEnvSource { name, optional: None }), ..EnvFromSource::default() }])
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
