//! A real registry as a process of its own, so that a test may spoil what it holds and stop it. Knows nothing of plugins.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::HeaderValue;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde_json::{Value, json};
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
        Self::run(cluster, folder, &written, "http").await
    }

    async fn run(cluster: &Cluster, folder: tempfile::TempDir, written: &Value, scheme: &str) -> Result<Self> {
        let settings = folder.path().join("registry.json");
        std::fs::write(&settings, written.to_string())?;
        let mut command = cluster.command("docker-registry");
        command.arg("serve").arg(settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: command.spawn().context("starting docker-registry")?, folder };
        // Whether it can be trusted is for others to find out.
        let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build()?;
        eventually("registry", Duration::from_secs(30), async || {
            let status = client.get(format!("{scheme}://{HOST}/v2/")).send().await?.status();
            Ok((status.is_success() || status == 401).then_some(()))
        })
        .await?;
        Ok(registry)
    }

    /// The same content behind TLS, with a certificate of an authority that nobody knows: it, too, in PEM format.
    pub(crate) async fn secured(mut self, cluster: &Cluster) -> Result<(Self, String)> {
        self.child.kill()?;
        self.child.wait()?;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key)?.pem();
        let issuer = rcgen::Issuer::new(params, key);
        let key = rcgen::KeyPair::generate()?;
        let served = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
        let (certificate_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&certificate_file, served.pem())?;
        std::fs::write(&key_file, key.serialize_pem())?;
        let written = json!({
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}},
            "http": {"addr": HOST, "tls": {"certificate": certificate_file, "key": key_file}},
        });
        Ok((Self::run(cluster, folder, &written, "https").await?, authority))
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
    pub(crate) fn spoil(&self, bytes: &[u8]) -> Result<()> {
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
    pub(crate) fn stop(mut self) -> Result<()> {
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
