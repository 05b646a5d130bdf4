//! A real registry as a process of its own, so that a test may spoil what it holds and stop it. Knows nothing of plugins.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::HeaderValue;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use substratus_tests::cluster::{Cluster, eventually};

pub(crate) const HOST: &str = "127.0.0.1:5055";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The registry's process.
pub(crate) struct Registry {
    child: Child,
    folder: tempfile::TempDir,
}

impl Registry {
    pub(crate) async fn start(cluster: &Cluster) -> Result<Self> {
        Self::start_with(cluster, None).await
    }

    /// The same for who knows the name and the password alone, as lines of `htpasswd` (bcrypt) have them.
    pub(crate) async fn start_with(cluster: &Cluster, htpasswd: Option<&str>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let settings = folder.path().join("registry.json");
        let mut written = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": HOST},
        });
        if let Some(lines) = htpasswd {
            let path = folder.path().join("htpasswd");
            std::fs::write(&path, lines)?;
            written["auth"] = json!({"htpasswd": {"realm": "test", "path": path}});
        }
        std::fs::write(&settings, written.to_string())?;
        let mut command = cluster.command("docker-registry");
        command.arg("serve").arg(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().context("starting docker-registry")?, folder };
        let client = reqwest::Client::builder().no_proxy().build()?;
        eventually("registry", Duration::from_secs(30), async || {
            let status = client.get(format!("http://{HOST}/v2/")).send().await?.status();
            Ok((status.is_success() || status == 401).then_some(()))
        })
        .await?;
        Ok(registry)
    }

    /// Pushes one layer of these bytes as a plugin of that name, with the size that is announced for it.
    pub(crate) async fn push(&self, name: &str, bytes: &[u8], announced: usize) -> Result<String> {
        self.push_as(&RegistryAuth::Anonymous, name, bytes, announced).await
    }

    /// The same with these credentials.
    pub(crate) async fn push_as(&self, auth: &RegistryAuth, name: &str, bytes: &[u8], announced: usize) -> Result<String> {
        let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        let image = format!("{HOST}/plugins/{name}:1");
        let reference: Reference = image.parse()?;
        client.auth(&reference, auth, RegistryOperation::Push).await?;
        let (layer, config) = (digest(bytes), b"{}".to_vec());
        client.push_blob(&reference, bytes.to_vec(), &layer).await?;
        client.push_blob(&reference, config.clone(), &digest(&config)).await?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.wasm.config.v0+json", "digest": digest(&config), "size": config.len()},
            "layers": [{"mediaType": "application/wasm", "digest": layer, "size": announced}],
        });
        client.push_manifest_raw(&reference, manifest.to_string().into_bytes(), HeaderValue::from_static(MANIFEST)).await?;
        Ok(image)
    }

    /// Changes the last byte of a blob on the registry's disk.
    pub(super) fn spoil(&self, bytes: &[u8]) -> Result<()> {
        let hex = digest(bytes).replace("sha256:", "");
        let start = hex.get(..2).context("a digest")?;
        let blob = PathBuf::from("data/docker/registry/v2/blobs/sha256").join(start).join(&hex).join("data");
        let path = self.folder.path().join(blob);
        let mut spoilt = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(spoilt == bytes, "another blob");
        let last = spoilt.last_mut().context("an empty blob")?;
        *last ^= 1;
        Ok(std::fs::write(path, spoilt)?)
    }

    /// Ends it; what it holds is gone.
    pub(super) fn stop(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}
