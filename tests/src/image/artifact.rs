//! A finished image as blobs and a manifest: pushed to a registry, or written as an OCI layout. It must not know what is in it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use http::HeaderValue;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Blobs by digest, and the manifest that names them.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    blobs: BTreeMap<String, Vec<u8>>,
    manifest: Vec<u8>,
    digest: String,
}

/// How a manifest names a blob.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    media_type: String,
    pub(super) digest: String,
    size: usize,
}

impl Artifact {
    /// The manifest's digest, `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Pushes to a plain-HTTP registry (`host:port`) and returns the digest. Must be called inside the registry's network.
    pub async fn push(&self, registry: &str, repository: &str, tag: &str) -> Result<String> {
        let name = format!("{registry}/{repository}:{tag}");
        self.push_as(&name, ClientProtocol::Http, &RegistryAuth::Anonymous).await
    }

    /// Pushes under a whole name, as somebody, and returns the digest.
    pub async fn push_as(&self, name: &str, protocol: ClientProtocol, auth: &RegistryAuth) -> Result<String> {
        let client = Client::new(ClientConfig { protocol, ..ClientConfig::default() });
        let name: Reference = name.parse().with_context(|| format!("reading the image name {name}"))?;
        client.auth(&name, auth, RegistryOperation::Push).await.with_context(|| format!("opening {name} for writing"))?;
        for (digest, blob) in &self.blobs {
            if !client.blob_exists(&name, digest).await.unwrap_or(false) {
                client.push_blob(&name, blob.clone(), digest).await.with_context(|| format!("pushing {digest} of {name}"))?;
            }
        }
        client
            .push_manifest_raw(&name, self.manifest.clone(), HeaderValue::from_static(MANIFEST))
            .await
            .with_context(|| format!("pushing the manifest of {name}"))?;
        Ok(self.digest.clone())
    }

    /// Writes an OCI image layout as one tar file, which container engines load under `name`.
    pub fn write_layout(&self, path: &Path, name: &str) -> Result<()> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        let mut archive = Builder::new(BufWriter::new(file));
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": self.digest,
                "size": self.manifest.len(),
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
            }],
        });
        append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", &serde_json::to_vec(&index)?)?;
        let blobs = self.blobs.iter();
        for (digest, blob) in blobs.chain([(&self.digest, &self.manifest)]) {
            append(&mut archive, &format!("blobs/{}", digest.replace(':', "/")), blob)?;
        }
        let mut file = archive.into_inner().context("finishing the layout")?;
        file.flush().with_context(|| format!("writing {}", path.display()))
    }

    pub(super) fn add(&mut self, media_type: &str, blob: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest: digest(&blob), size: blob.len() };
        self.blobs.insert(descriptor.digest.clone(), blob);
        descriptor
    }

    pub(super) fn finish(&mut self, config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest = serde_json::to_vec(&manifest)?;
        self.digest = digest(&self.manifest);
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn append(archive: &mut Builder<BufWriter<File>>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(bytes.len().try_into()?);
    archive.append_data(&mut header, path, bytes).with_context(|| format!("writing {path} of the layout"))
}
