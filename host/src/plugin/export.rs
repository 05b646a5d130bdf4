//! Takes plugins out of registries, with everything that is attached to them: for a cluster without a way out. Manifests stay byte for
//! byte what they are, so that signatures hold. Components that were just built are taken, too, for an image that brings them along.
//! Knows nothing of keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cache::digest_of;
use super::layout::{self, LayoutError, Writer};
use super::registry::{self, Descriptor, INDEX, MANIFEST, Registry};
use super::{PlainHttp, PluginError, RegistryAuth, RegistryError, component, push, signature};
use crate::limits;

/// Where a plugin is taken from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A reference by tag or digest, and how to ask for it.
    Registry(String, RegistryAuth),
    /// A component that was built; in the layout it is `substratus/<name>:<version>`.
    File(PathBuf),
}

/// A plugin that is in a layout now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// `registry/repository@sha256:…`; without a registry where it was a file.
    pub reference_with_digest: String,
    /// Manifests that are attached to it: signatures, attestations, lists of parts.
    pub attachments: usize,
    /// Attachments of a form that is not known, left out.
    pub left_out: usize,
}

/// An image's manifest, as far as copying it needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Image {
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    pub(super) subject: Option<Descriptor>,
}

impl Image {
    /// Everything it consists of.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

/// Writes plugins and what is attached to them into an OCI layout: a tar file if the name says so, else a folder.
pub async fn export(origins: &[Origin], plain: &PlainHttp, target: &Path) -> Result<Vec<Exported>, LayoutError> {
    let mut writer = Writer::create(target)?;
    let mut exported = Vec::new();
    for origin in origins {
        let (reference, auth) = match origin {
            Origin::Registry(reference, auth) => (reference, auth),
            Origin::File(path) => {
                exported.push(file(path, &mut writer)?);
                continue;
            }
        };
        let registry = Registry::new(parse(reference)?, auth.clone(), plain).map_err(PluginError::from)?;
        // Within the time of a whole pull; what is written is written.
        let all = async { Ok(one(&registry, &mut writer).await) };
        exported.push(registry.within(all).await.map_err(PluginError::from)??);
    }
    writer.finish()?;
    Ok(exported)
}

fn parse(reference: &str) -> Result<oci_client::Reference, PluginError> {
    Ok(registry::parse(reference)?)
}

/// What a push of the component would make, without a registry.
fn file(path: &Path, writer: &mut Writer) -> Result<Exported, LayoutError> {
    let component =
        std::fs::read(path).map_err(|source| LayoutError::Io { action: format!("read {}", path.display()), source })?;
    let manifest = component::check(&component).map_err(PluginError::from)?;
    let (image, config) = push::layout(&component)?;
    writer.blob(&component)?;
    writer.blob(&config)?;
    let repository = format!("substratus/{}", manifest.name);
    let annotations = BTreeMap::from([
        (layout::TAG.to_owned(), manifest.version.clone()),
        (layout::NAME.to_owned(), format!("{repository}:{}", manifest.version)),
    ]);
    writer.manifest(MANIFEST, &image, annotations)?;
    Ok(Exported { reference_with_digest: format!("{repository}@{}", digest_of(&image)), attachments: 0, left_out: 0 })
}

async fn one(registry: &Registry, writer: &mut Writer) -> Result<Exported, LayoutError> {
    let artifact = registry.manifest().await.map_err(PluginError::from)?;
    let digest = artifact.digest.clone();
    let name = &registry.reference;
    let reference_with_digest = format!("{}/{}@{digest}", name.registry(), name.repository());
    copy(registry, writer, &artifact.bytes).await?;
    let mut annotations = BTreeMap::new();
    match name.tag().filter(|_| name.digest().is_none()) {
        Some(tag) => {
            annotations.insert(layout::TAG.to_owned(), tag.to_owned());
            annotations.insert(layout::NAME.to_owned(), format!("{}/{}:{tag}", name.registry(), name.repository()));
        }
        None => _ = annotations.insert(layout::NAME.to_owned(), reference_with_digest.clone()),
    }
    writer.manifest(MANIFEST, &artifact.bytes, annotations)?;
    let (attachments, left_out) = attached(registry, writer, &digest).await?;
    Ok(Exported { reference_with_digest, attachments, left_out })
}

/// Copies what is attached in the new form and in the old one; how many, and how many were left out.
async fn attached(registry: &Registry, writer: &mut Writer, digest: &str) -> Result<(usize, usize), LayoutError> {
    let max = limits::SIGNATURE_ATTACHMENTS;
    let found = match registry.referrers(digest, max + 1).await.map_err(PluginError::from)? {
        Some(found) => found,
        None => registry.fallback(digest).await.map_err(PluginError::from)?.map_or_else(Vec::new, |(found, _)| found),
    };
    if found.len() > max {
        // Leaving some out would be told by nobody where they are missed.
        let reason = format!("it has more than {max} attachments");
        let what = RegistryError::Malformed { reference: registry.reference.whole(), what: "the list of attachments", reason };
        return Err(PluginError::from(what).into());
    }
    let (mut attachments, mut left_out) = (0, 0);
    for entry in found {
        let bytes = registry.manifest_of("the manifest of an attachment", &entry).await.map_err(PluginError::from)?;
        let is_ours = |image: &Image| image.subject.as_ref().is_some_and(|subject| subject.digest == digest);
        if entry.media_type == INDEX || !serde_json::from_slice(&bytes).is_ok_and(|image| is_ours(&image)) {
            left_out += 1;
            continue;
        }
        copy(registry, writer, &bytes).await?;
        writer.manifest(MANIFEST, &bytes, BTreeMap::new())?;
        attachments += 1;
    }
    let tag = signature::tag(digest);
    if let Some(bytes) = registry.tagged("the signature tag", &tag, MANIFEST).await.map_err(PluginError::from)? {
        copy(registry, writer, &bytes).await?;
        writer.manifest(MANIFEST, &bytes, BTreeMap::from([(layout::TAG.to_owned(), tag)]))?;
        attachments += 1;
    }
    Ok((attachments, left_out))
}

/// Copies what a manifest consists of.
async fn copy(registry: &Registry, writer: &Writer, manifest: &[u8]) -> Result<(), LayoutError> {
    let image: Image = serde_json::from_slice(manifest).map_err(|error| {
        let reason = format!("it is not one of a single image ({error})");
        PluginError::from(RegistryError::Malformed { reference: registry.reference.whole(), what: "a manifest", reason })
    })?;
    for blob in image.blobs() {
        let bytes = registry.blob_of("a part", blob, limits::COMPONENT_BYTES).await.map_err(PluginError::from)?;
        writer.blob(&bytes)?;
    }
    Ok(())
}
