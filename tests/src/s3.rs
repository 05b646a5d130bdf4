//! A real S3 server on the loopback device, and a proxy before it that misbehaves when it is told to. It must not know who asks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use object_store::aws::AmazonS3Builder;
use object_store::multipart::MultipartStore as _;
use object_store::path::Path as Key;
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::bench::child;
use crate::cluster::settings::Settings;
use crate::files;
use crate::proxy::{self, Proxy};
pub use crate::proxy::{Fault, Rule};
use crate::server::Server;

/// The only account.
pub const ACCESS_KEY: &str = "substratus";
/// Its secret, which must show nowhere.
pub const SECRET_KEY: &str = "it-is-a-secret-of-the-bucket";
/// A bucket that is there.
pub const BUCKET: &str = "artifacts";

/// A server with one bucket. Ends when dropped.
#[derive(Debug)]
pub struct S3 {
    /// Where it is asked, through the proxy.
    pub url: String,
    folder: TempDir,
    server: Server,
    upstream: SocketAddr,
    proxy: Proxy,
}

impl S3 {
    /// Starts it; its proxy runs in `runtime`.
    pub fn start(runtime: &Handle) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), runtime)
    }

    /// The same, where pods of a node reach it.
    pub fn start_at(address: IpAddr, runtime: &Handle) -> Result<Self> {
        let program = Settings::from_environment()?.require("versitygw")?;
        let folder = tempfile::tempdir().context("making a folder for buckets")?;
        std::fs::create_dir(folder.path().join(BUCKET))?;
        let (server, upstream) = Server::listening(&program, |command, at| {
            command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", &at.to_string(), "--quiet", "posix"]);
            command.arg(folder.path());
        })?;
        let proxy = Proxy::start(address, runtime, proxy::as_it_is(upstream)?)?;
        Ok(Self { url: proxy.url.clone(), folder, server, upstream, proxy })
    }

    /// The environment with which the bucket is reached.
    pub fn env(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("AWS_ENDPOINT_URL", self.url.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
        ])
    }

    /// Where the server itself is asked: nothing goes wrong there.
    pub fn direct_url(&self) -> String {
        format!("http://{}", self.upstream)
    }

    /// Processor time of the server so far, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        child::cpu_seconds(self.server.id())
    }

    /// Where the server keeps an object.
    pub fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(key)
    }

    /// Every object below `prefix`, by its key after it; uploads that are not complete are none.
    pub fn objects(&self, prefix: &str) -> Result<BTreeMap<String, PathBuf>> {
        files::below(&self.object(prefix))
    }

    /// Uploads in parts that were begun and neither completed nor given up.
    pub fn uploads(&self) -> Result<usize> {
        let mut count = 0;
        let Ok(objects) = std::fs::read_dir(self.object(".sgwtmp/multipart")) else { return Ok(0) };
        for object in objects {
            count += std::fs::read_dir(object?.path())?.count();
        }
        Ok(count)
    }

    /// Begins an upload in parts that nobody goes on with, past the proxy.
    pub async fn begin_upload(&self, key: &str) -> Result<()> {
        let store = AmazonS3Builder::new()
            .with_endpoint(self.direct_url())
            .with_allow_http(true)
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .build()?;
        store.create_multipart(&Key::parse(key)?).await?;
        Ok(())
    }

    /// From now on this goes wrong.
    pub fn fault(&self, rule: Rule) {
        self.proxy.fault(rule);
    }

    /// Nothing goes wrong any more.
    pub fn clear_faults(&self) {
        self.proxy.clear_faults();
    }

    /// Method, path and query of every request so far.
    pub fn requests(&self) -> Vec<String> {
        self.proxy.requests()
    }
}
