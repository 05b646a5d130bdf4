//! Artifacts in a bucket of a real object store, by the real program: loaded whole, resumed, refused, and through a server that
//! misbehaves. Must not look into the worker; what a user, the hub and the bucket see is all there is.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod clouds;
mod faults;
mod load;
mod reuse;
mod stage;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use substratus_tests::files;
use substratus_tests::guests::{self, root};
use substratus_tests::hub::{Content, Hub, Kind, Repo};
use substratus_tests::s3::{ACCESS_KEY, BUCKET, S3};
use tempfile::TempDir;

use crate::load::{Loaded, program};

const MIB: u64 = 1024 * 1024;

/// What lies below a place once the repository of [`hub`] is loaded into it.
const WHOLE: [&str; 5] = [
    ".substratus/manifest.json",
    "artifacts/config.json",
    "artifacts/empty.txt",
    "artifacts/model.safetensors",
    "artifacts/sub folder/100% ünlike.json",
];

/// Keeps servers going while a test waits for a process.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// One public repository `acme/tiny` with small files and one of `size` bytes.
fn hub(size: u64, runtime: &tokio::runtime::Runtime) -> Hub {
    let repo = Repo::model("acme/tiny")
        .file("config.json", r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama"}"#)
        .file("empty.txt", "")
        .file("sub folder/100% ünlike.json", "{}")
        .file("model.safetensors", Content::noise(7, size));
    Hub::builder().repo(repo).start(Ipv4Addr::LOCALHOST.into(), runtime.handle()).unwrap()
}

/// What a load from that hub needs.
fn from_hub(command: &mut Command, hub: &Hub) {
    command.arg("--plugin").arg(guests::component("plugins/loader-huggingface").unwrap());
    command.arg("--plugin-cache").arg(root().join("target/guests/cache"));
    command.args(["--config", &format!("endpoint={}", hub.url)]);
    command.args(["--grant", &hub.url, "--grant", &hub.cdn_url]);
}

/// Every file below a folder, and its hash.
fn sums(folder: &Path) -> BTreeMap<String, String> {
    files::sums(folder).unwrap()
}

/// A hub, a bucket, and a place for what a process needs.
struct Bench {
    hub: Hub,
    s3: S3,
    folder: TempDir,
    /// Keeps hub and proxy going while a test waits for a process.
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(size: u64) -> Self {
        let runtime = runtime();
        let hub = hub(size, &runtime);
        let s3 = S3::start(runtime.handle()).unwrap();
        Self { hub, s3, folder: tempfile::tempdir().unwrap(), runtime }
    }

    /// `substratus load hf://acme/tiny --to s3://artifacts/some/model`
    fn command(&self) -> Command {
        self.command_to(&format!("s3://{BUCKET}/some/model"))
    }

    fn command_to(&self, to: &str) -> Command {
        let mut command = Command::new(program());
        command.args(["load", "hf://acme/tiny", "-o", "json", "--attempts", "4", "--stall", "2"]);
        command.args(["--to", to]);
        from_hub(&mut command, &self.hub);
        command.arg("--termination-log").arg(self.folder.path().join("outcome"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(self.s3.env());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Begins an upload that nobody goes on with.
    fn begin_upload(&self, key: &str) {
        self.runtime.block_on(self.s3.begin_upload(key)).unwrap();
    }

    fn run(&self) -> Loaded {
        Loaded::of(self.command().output().unwrap())
    }

    fn sha256(&self, path: &str) -> String {
        self.hub.sha256(Kind::Model, "acme/tiny", "main", path).unwrap()
    }

    fn manifest(&self) -> Option<serde_json::Value> {
        let text = std::fs::read(self.s3.object("some/model/.substratus/manifest.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Every file of the repository and the manifest are below `prefix`, and nothing else; no upload is left behind.
    fn assert_all_below(&self, prefix: &str) -> BTreeMap<String, PathBuf> {
        let objects = self.s3.objects(prefix).unwrap();
        let names: Vec<&str> = objects.keys().map(String::as_str).collect();
        assert_eq!(names, WHOLE);
        assert_eq!(self.s3.uploads().unwrap(), 0, "uploads are left behind");
        objects
    }

    /// Every file of the repository with its bytes, the manifest with every file, and nothing else.
    fn assert_whole(&self) {
        let objects = self.assert_all_below("some/model");
        let manifest = self.manifest().unwrap();
        let listed = manifest["files"].as_array().unwrap();
        assert_eq!(listed.len(), objects.len() - 1);
        for file in listed {
            let path = file["path"].as_str().unwrap();
            let bytes = std::fs::read(&objects[&format!("artifacts/{path}")]).unwrap();
            let found = hex::encode(Sha256::digest(&bytes));
            assert_eq!(
                (file["sha256"].as_str(), file["size"].as_u64()),
                (Some(found.as_str()), Some(bytes.len() as u64)),
                "{path}"
            );
        }
        assert_eq!(
            listed.iter().find(|file| file["path"] == "model.safetensors").unwrap()["sha256"],
            self.sha256("model.safetensors")
        );
    }

    /// Starts a load and waits until `now` says that it is far enough, or until it ends.
    fn run_until(&self, mut now: impl FnMut() -> bool) -> Child {
        let mut child = self.command().spawn().unwrap();
        let started = Instant::now();
        while !now() && child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_mins(2), "the load neither moves nor ends");
            std::thread::sleep(Duration::from_millis(5));
        }
        child
    }
}
