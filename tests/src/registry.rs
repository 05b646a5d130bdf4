//! A real OCI registry on the loopback device, as it is packaged, and one that has the referrers API too. It must not know what is
//! pushed to it.

pub mod proxied;
pub mod referrers;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tempfile::TempDir;

use crate::cluster::settings::Settings;
use crate::server::Server;

/// A registry process with a folder of its own. Ends when dropped.
#[derive(Debug)]
pub struct Registry {
    /// `host:port`, spoken to without TLS.
    pub host: String,
    folder: TempDir,
    server: Server,
}

impl Registry {
    /// Starts one at a free port, which anybody may read and write.
    pub fn start() -> Result<Self> {
        Self::start_for(None)
    }

    /// The same for the accounts of an `htpasswd` file alone, where there are some.
    pub fn start_for(accounts: Option<&str>) -> Result<Self> {
        let program = Settings::from_environment()?.require("docker-registry")?;
        let folder = tempfile::tempdir().context("making a folder for a registry")?;
        let settings = folder.path().join("registry.json");
        let mut written = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": folder.path().join("data")}, "delete": {"enabled": true}},
            "http": {"addr": "127.0.0.1:0"},
        });
        if let (Some(accounts), Some(written)) = (accounts, written.as_object_mut()) {
            let path = folder.path().join("htpasswd");
            std::fs::write(&path, accounts)?;
            written.insert("auth".to_owned(), json!({"htpasswd": {"realm": "test", "path": path}}));
        }
        std::fs::write(&settings, written.to_string())?;
        let log = folder.path().join("log");
        let errors = File::create(&log)?;
        let server = Server::start(Path::new(&program), |command| {
            command.arg("serve").arg(&settings).env("OTEL_TRACES_EXPORTER", "none").stderr(errors);
        })?;
        let mut registry = Self { host: String::new(), folder, server };
        registry.host = registry.listening(&log)?;
        Ok(registry)
    }

    /// Where the registry keeps a blob's bytes.
    pub fn blob(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest.strip_prefix("sha256:").context("a digest")?;
        let start = hex.get(..2).context("a digest")?;
        Ok(self.folder.path().join("data/docker/registry/v2/blobs/sha256").join(start).join(hex).join("data"))
    }

    /// Ends it; nobody answers any more.
    pub fn stop(&mut self) -> Result<()> {
        self.server.stop()
    }

    /// Its log says which port it got.
    fn listening(&mut self, log: &Path) -> Result<String> {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(log)?;
            let found = text.split("listening on ").nth(1).and_then(|rest| rest.split(['"', ' ']).next());
            // A line that is not whole yet has no quote behind it.
            if let Some(host) = found.filter(|_| text.contains("listening on ") && text.ends_with('\n')) {
                return Ok(host.to_owned());
            }
            if let Some(status) = self.server.ended()? {
                bail!("the registry ended with {status}: {text}");
            }
            ensure!(began.elapsed() < Duration::from_secs(30), "the registry does not listen: {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
