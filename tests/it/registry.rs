//! Models in a real OCI registry, by the real program: pushed, loaded back, resumed, refused, and through a registry that misbehaves
//! or lies. Must not look into the worker; what a user, the registry and the operator see is all there is.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod hostile;
mod pull;
mod push;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest, Sha256};
use substratus::worker::report::Outcome;
use substratus_tests::files;
use substratus_tests::guests::{self, root};
use substratus_tests::registry::proxied::{PASSWORD, Registry, docker_config};
use tempfile::TempDir;

use crate::load::{Loaded, program};

const MIB: usize = 1024 * 1024;
/// Two pieces and a bit.
const SIZE: usize = 40 * MIB;
const REPOSITORY: &str = "team/model";

/// A registry, and folders.
struct Bench {
    registry: Registry,
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        Self::with(|runtime| Registry::start(runtime).unwrap())
    }

    fn private() -> Self {
        Self::with(|runtime| Registry::start_private(runtime).unwrap())
    }

    fn with(start: impl FnOnce(&tokio::runtime::Handle) -> Registry) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let registry = start(runtime.handle());
        Self { registry, folder: tempfile::tempdir().unwrap(), runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `oci://…/team/model` with this suffix.
    fn place(&self, suffix: &str) -> String {
        format!("oci://{}/{REPOSITORY}{suffix}", self.registry.host)
    }

    /// A folder of files without a record: one large file, some small ones, one twice, one empty.
    fn written(&self, size: usize) -> PathBuf {
        let folder = self.path("written");
        std::fs::create_dir_all(folder.join("sub folder")).unwrap();
        std::fs::write(folder.join("model.safetensors"), noise(size)).unwrap();
        std::fs::write(folder.join("config.json"), "{}").unwrap();
        std::fs::write(folder.join("empty.txt"), "").unwrap();
        std::fs::write(folder.join("README.md"), "# a model").unwrap();
        std::fs::write(folder.join("sub folder/100% ünlike.json"), "{}").unwrap();
        folder
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(words).args(["-o", "json", "--attempts", "3", "--stall", "3", "--log-filter", "info"]);
        command.args(["--plain-http", &self.registry.host]);
        command.arg("--termination-log").arg(self.path("outcome")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn push(&self, from: &Path, suffix: &str) -> Command {
        self.command(&["push", from.to_str().unwrap(), "--to", &self.place(suffix)])
    }

    fn load(&self, suffix: &str, to: &str) -> Command {
        let mut command = self.command(&["load", &self.place(suffix), "--to", self.path(to).to_str().unwrap()]);
        command.arg("--plugin").arg(guests::component("plugins/loader-oci").unwrap());
        command.arg("--plugin-cache").arg(root().join("target/guests/cache"));
        command
    }

    /// Docker's folder of settings with an account.
    fn login(&self, password: &str) -> PathBuf {
        let folder = self.path(&format!("docker-{}", password.len()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.json"), docker_config(&self.registry.host, password).to_string()).unwrap();
        folder
    }

    fn manifest(&self, reference: &str) -> Option<(String, Value)> {
        self.runtime.block_on(self.registry.manifest(REPOSITORY, reference)).unwrap()
    }

    /// What was pushed under the tag is what was written, as the registry has it.
    fn assert_pushed(&self, tag: &str, folder: &Path) {
        let (_, manifest) = self.manifest(tag).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let found: BTreeMap<String, String> = layers
            .iter()
            .map(|layer| {
                let digest = layer["digest"].as_str().unwrap();
                let bytes = std::fs::read(self.registry.blob(digest).unwrap()).unwrap();
                assert_eq!(layer["size"].as_u64(), Some(bytes.len() as u64));
                (layer["annotations"]["org.cncf.model.filepath"].as_str().unwrap().to_owned(), hash(&bytes))
            })
            .collect();
        assert_eq!(found, sums(folder));
    }

    fn assert_loaded(&self, to: &str, folder: &Path) {
        assert_eq!(sums(&self.path(to).join("artifacts")), sums(folder));
    }
}

fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at * 31 + at / 65_537) % 256).unwrap()).collect()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Every file below a folder, and its hash.
fn sums(folder: &Path) -> BTreeMap<String, String> {
    files::sums(folder).unwrap()
}

fn ended(mut command: Command) -> Loaded {
    let loaded = Loaded::of(command.output().unwrap());
    assert!(!loaded.everything.contains(PASSWORD), "a password shows: {}", loaded.everything);
    loaded
}

/// The digest that a push or a load ended with, and the bytes that were there.
fn revision(loaded: &Loaded) -> (String, u64) {
    match &loaded.outcome {
        Outcome::Complete { source, reused, .. } => (source.revision.clone().unwrap(), *reused),
        Outcome::Failed { .. } => unreachable!("{}", loaded.everything),
    }
}
