//! Pushes a component in the CNCF Wasm layout, so that `wkg`, `oras` and `crane` can move it too. The same component gives the
//! same digest. Knows nothing about plugins beyond their manifest.

use oci_client::RegistryOperation;
use reqwest::header::HeaderValue;
use serde_json::json;

use super::cache::digest_of;
use super::component;
use super::registry::{CONFIG, LAYER, MANIFEST, Registry};
use super::{PlainHttp, PluginError, RegistryAuth, RegistryError, registry};

/// The annotation of the OCI manifest that repeats the plugin's manifest, so that permissions are known before the layer is pulled.
pub(super) const ANNOTATION: &str = "ai.substratus.plugin";

/// Pushes a component and gives its reference by digest.
pub async fn push(reference: &str, component: &[u8], auth: RegistryAuth, plain: &PlainHttp) -> Result<String, PluginError> {
    let (manifest, config) = layout(component)?;
    let registry = Registry::new(registry::parse(reference)?, auth, plain)?;
    if registry.reference.digest().is_some() {
        let reason = "a digest is the result of a push; name a tag".to_owned();
        return Err(RegistryError::Reference { reference: reference.to_owned(), reason }.into());
    }
    registry.within(send(&registry, component, &config, &manifest)).await?;
    let name = &registry.reference;
    Ok(format!("{}/{}@{}", name.registry(), name.repository(), digest_of(&manifest)))
}

/// The OCI manifest and config of a component.
pub(super) fn layout(component: &[u8]) -> Result<(Vec<u8>, Vec<u8>), PluginError> {
    let plugin = component::check(component)?;
    let outline = component::outline(component)?;
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [digest_of(component)],
        "component": {"exports": outline.exports, "imports": outline.imports},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest_of(&config), "size": config.len()},
        "layers": [{"mediaType": LAYER, "digest": digest_of(component), "size": component.len()}],
        "annotations": {
            ANNOTATION: plugin.to_json(),
            "org.opencontainers.image.title": plugin.name,
            "org.opencontainers.image.version": plugin.version,
            "org.opencontainers.image.description": plugin.description,
        },
    });
    Ok((manifest.to_string().into_bytes(), config))
}

async fn send(registry: &Registry, component: &[u8], config: &[u8], manifest: &[u8]) -> Result<(), RegistryError> {
    let (client, name) = (&registry.client, &registry.reference);
    let failed = |error| registry.translate(&error);
    client.auth(name, &registry.oci_auth(), RegistryOperation::Push).await.map_err(failed)?;
    for blob in [component, config] {
        let digest = digest_of(blob);
        if !client.blob_exists(name, &digest).await.unwrap_or(false) {
            client.push_blob(name, blob.to_vec(), &digest).await.map_err(failed)?;
        }
    }
    client.push_manifest_raw(name, manifest.to_vec(), HeaderValue::from_static(MANIFEST)).await.map_err(failed)?;
    Ok(())
}
