//! Puts plugins of an OCI layout into a registry, with everything that is attached to them, byte for byte. The name of a plugin
//! appears last, so that nobody sees it before its signatures are there. Knows nothing of keys.

use std::path::Path;

use serde_json::{Value, json};

use super::export::Image;
use super::layout::{self, Entry, LayoutError, Reader};
use super::registry::{self, INDEX, MANIFEST, Registry};
use super::{PlainHttp, PluginError, RegistryAuth, RegistryError, signature};

/// A plugin that is in the registry now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// What it was called where it came from.
    pub from: String,
    /// `registry/repository@sha256:…` where it is now; the digest is the old one.
    pub reference_with_digest: String,
    /// Manifests that are attached to it.
    pub attachments: usize,
}

/// A manifest with what it consists of.
struct Part {
    entry: Entry,
    bytes: Vec<u8>,
    image: Image,
}

/// Pushes every plugin of a layout to `<prefix>/<repository it had>`, such as `registry.internal/mirror`.
pub async fn import(source: &Path, prefix: &str, auth: &RegistryAuth, plain: &PlainHttp) -> Result<Vec<Imported>, LayoutError> {
    let reader = Reader::open(source)?;
    let parts = reader.entries.iter().map(|entry| part(&reader, entry)).collect::<Result<Vec<_>, _>>()?;
    let mut imported = Vec::new();
    for plugin in parts.iter().filter(|part| is_plugin(part)) {
        let (registry, from) = target(&reader, plugin, prefix, auth, plain)?;
        // The registry's own reader says whether it is a plugin.
        let digest = plugin.entry.digest.clone();
        super::registry::read_manifest(&registry.reference, plugin.bytes.clone(), digest.clone()).map_err(PluginError::from)?;
        let attachments = registry.within(async { Ok(one(&reader, &registry, plugin, &parts).await) }).await;
        let attachments = attachments.map_err(PluginError::from)??;
        let name = &registry.reference;
        let reference_with_digest = format!("{}/{}@{digest}", name.registry(), name.repository());
        imported.push(Imported { from, reference_with_digest, attachments });
    }
    if imported.is_empty() {
        return Err(reader.wrong("it has no plugin with a name; write it with `substratus plugin export`".to_owned()));
    }
    Ok(imported)
}

fn part(reader: &Reader, entry: &Entry) -> Result<Part, LayoutError> {
    let bytes = reader.manifest(entry)?;
    let image = serde_json::from_slice(&bytes)
        .map_err(|error| reader.wrong(format!("{} is not the manifest of a single image ({error})", entry.digest)))?;
    Ok(Part { entry: entry.clone(), bytes, image })
}

/// Neither an attachment nor a signature of the old form.
fn is_plugin(part: &Part) -> bool {
    part.image.subject.is_none() && part.entry.annotations.contains_key(layout::NAME)
}

/// Where a plugin goes, and what it was called.
fn target(
    reader: &Reader,
    plugin: &Part,
    prefix: &str,
    auth: &RegistryAuth,
    plain: &PlainHttp,
) -> Result<(Registry, String), LayoutError> {
    let digest = &plugin.entry.digest;
    let from = plugin.entry.annotations.get(layout::NAME).cloned().unwrap_or_default();
    let old = registry::parse(&from).map_err(|error| reader.wrong(error.to_string()))?;
    let name = match old.tag().filter(|_| old.digest().is_none()) {
        Some(tag) => format!("{}/{}:{tag}", prefix.trim_end_matches('/'), old.repository()),
        None => format!("{}/{}@{digest}", prefix.trim_end_matches('/'), old.repository()),
    };
    let name = registry::parse(&name).map_err(PluginError::from)?;
    Ok((Registry::new(name, auth.clone(), plain).map_err(PluginError::from)?, from))
}

/// Pushes a plugin: itself without a name, what is attached, and then its name.
async fn one(reader: &Reader, registry: &Registry, plugin: &Part, parts: &[Part]) -> Result<usize, LayoutError> {
    let digest = &plugin.entry.digest;
    put(reader, registry, plugin, digest).await?;
    let is_attached = |part: &&Part| part.image.subject.as_ref().is_some_and(|subject| &subject.digest == digest);
    let attached: Vec<&Part> = parts.iter().filter(is_attached).collect();
    for part in &attached {
        put(reader, registry, part, &part.entry.digest).await?;
    }
    list(registry, digest, &attached).await.map_err(PluginError::from)?;
    let tag = signature::tag(digest);
    let signature = parts.iter().find(|part| part.entry.annotations.get(layout::TAG) == Some(&tag));
    if let Some(signature) = signature {
        put(reader, registry, signature, &tag).await?;
    }
    let name = &registry.reference;
    if let Some(tag) = name.tag().filter(|_| name.digest().is_none()) {
        registry.put_manifest(tag, MANIFEST, &plugin.bytes).await.map_err(PluginError::from)?;
    }
    Ok(attached.len() + usize::from(signature.is_some()))
}

async fn put(reader: &Reader, registry: &Registry, part: &Part, name: &str) -> Result<(), LayoutError> {
    for blob in part.image.blobs() {
        registry.put_blob(&reader.blob(blob)?).await.map_err(PluginError::from)?;
    }
    registry.put_manifest(name, MANIFEST, &part.bytes).await.map_err(PluginError::from)?;
    Ok(())
}

/// Where a registry does not list attachments itself, whoever attaches something keeps the list.
async fn list(registry: &Registry, digest: &str, attached: &[&Part]) -> Result<(), RegistryError> {
    if attached.is_empty() || registry.referrers(digest, 1).await?.is_some() {
        return Ok(());
    }
    let old = registry.fallback(digest).await?.and_then(|(_, bytes)| serde_json::from_slice::<Value>(&bytes).ok());
    let old = old.as_ref().and_then(|index| index.get("manifests")).and_then(Value::as_array).cloned();
    let mut entries = old.unwrap_or_default();
    for part in attached {
        let digest = Value::from(part.entry.digest.clone());
        if entries.iter().all(|entry| entry.get("digest") != Some(&digest)) {
            let manifest: Value = serde_json::from_slice(&part.bytes).unwrap_or_default();
            let mut entry = json!({"mediaType": MANIFEST, "digest": digest, "size": part.bytes.len()});
            for member in ["artifactType", "annotations"] {
                if let (Some(value), Some(entry)) = (manifest.get(member), entry.as_object_mut()) {
                    entry.insert(member.to_owned(), value.clone());
                }
            }
            entries.push(entry);
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    registry.put_manifest(&digest.replacen(':', "-", 1), INDEX, index.as_bytes()).await
}
