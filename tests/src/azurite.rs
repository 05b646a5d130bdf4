//! A real server that speaks like Azure Blob Storage, on the loopback device, and a proxy before it that misbehaves when it is told to.
//! It must not know who asks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use http::Method;
use http::header::CONTENT_LENGTH;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::HttpRequestBody;
use object_store::path::Path as Key;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::engine::{self, made_by};
use crate::proxy::{self, Proxy};
use crate::s3::BUCKET;
use crate::server::Server;

/// The only account.
const ACCOUNT: &str = "substratus";
/// Its test key, which must show nowhere.
pub const ACCOUNT_KEY: &str = "aXQtaXMtYS1zZWNyZXQtb2YtdGhlLWFjY291bnQ=";

/// A server with one container. Ends when dropped.
#[derive(Debug)]
pub struct Azurite {
    /// Misbehaves, and knows what was asked.
    pub proxy: Proxy,
    upstream: SocketAddr,
    _server: Server,
    runtime: Handle,
    _folder: TempDir,
}

impl Azurite {
    /// Starts it; its proxy runs in `runtime`.
    pub fn start(runtime: &Handle) -> Result<Self> {
        let program = made_by("azurite/build.sh", &engine::cache()?)?;
        let folder = tempfile::tempdir().context("making a folder for blobs")?;
        let (server, upstream) = Server::listening(&program, |command, at| {
            command.args(["--blobHost", "127.0.0.1", "--blobPort", &at.port().to_string()]);
            command.args(["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location"]).arg(folder.path());
            command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{ACCOUNT_KEY}"));
        })?;
        let proxy = Proxy::start(Ipv4Addr::LOCALHOST.into(), runtime, proxy::as_it_is(upstream)?)?;
        let azurite = Self { proxy, upstream, _server: server, runtime: runtime.clone(), _folder: folder };
        runtime.block_on(azurite.make_container())?;
        Ok(azurite)
    }

    /// The environment with which the container is reached.
    pub fn env(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("AZURE_STORAGE_ENDPOINT", format!("{}/{ACCOUNT}", self.proxy.url)),
            ("AZURE_ALLOW_HTTP", "true".to_owned()),
            ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY.to_owned()),
        ])
    }

    /// Every object below `prefix`, by its key after it, and its bytes.
    pub fn objects(&self, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let store = self.store()?;
        self.runtime.block_on(async {
            let mut found = BTreeMap::new();
            for object in store.list(Some(&Key::parse(prefix)?)).try_collect::<Vec<_>>().await? {
                let name = object.location.as_ref().strip_prefix(&format!("{prefix}/")).context("a key outside")?.to_owned();
                found.insert(name, store.get(&object.location).await?.bytes().await?.to_vec());
            }
            Ok(found)
        })
    }

    /// The container as a client of its own sees it, past the proxy.
    fn store(&self) -> Result<MicrosoftAzure> {
        let builder = MicrosoftAzureBuilder::new()
            .with_account(ACCOUNT)
            .with_access_key(ACCOUNT_KEY)
            .with_endpoint(format!("http://{}/{ACCOUNT}", self.upstream))
            .with_container_name(BUCKET)
            .with_allow_http(true);
        Ok(builder.build()?)
    }

    async fn make_container(&self) -> Result<()> {
        let url = format!("http://{}/{ACCOUNT}/{BUCKET}?restype=container", self.upstream);
        let mut request = http::Request::new(HttpRequestBody::empty());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = url.parse()?;
        request.headers_mut().insert(CONTENT_LENGTH, 0.into());
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(ACCOUNT_KEY)?);
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request)?;
        let asked = proxy::client()?.put(url).headers(request.headers().clone()).body(Vec::new());
        let answer = asked.send().await?;
        let (status, said) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the container was not made: {status} {said}");
        Ok(())
    }
}
