//! Loads by the real program, with the real Hugging Face loader, from the local hub: whole, resumed, spoilt and refused.
//! Must not look into the worker; what a user, the hub and the operator see is all there is.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod apart;
mod by_hand;
mod chaos;
mod matrix;
mod network;
mod plan;
mod refused;
mod resume;
mod reuse;
mod spoilt;
mod store;
mod whole;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};
use substratus::worker::report::Outcome;
use substratus_tests::guests::{self, root};
use substratus_tests::hub::{Builder, Content, Hub, Repo};
use substratus_tests::s3::SECRET_KEY;
use tempfile::TempDir;

const TOKEN: &str = "hf_it_secret";
const MIB: u64 = 1024 * 1024;

/// The program, freshly built with the profile of this test.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let folder = own.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(root()).args(["build", "--quiet", "--package", "substratus", "--bin", "substratus"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        folder.join("substratus")
    })
}

/// A hub and a place to load into.
struct Bench {
    hub: Hub,
    folder: TempDir,
    /// Keeps the hub's requests going while a test waits for a process.
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(builder: Builder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let hub = builder.start(Ipv4Addr::LOCALHOST.into(), runtime.handle()).unwrap();
        Self { hub, folder: tempfile::tempdir().unwrap(), runtime }
    }

    /// One public repository `acme/tiny` with a configuration and one large file.
    fn with_weights(size: u64) -> Self {
        let repo = Repo::model("acme/tiny")
            .file("config.json", r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama"}"#)
            .file("model.safetensors", Content::noise(7, size));
        Self::new(Hub::builder().token(TOKEN).repo(repo))
    }

    /// `substratus load hf://acme/tiny` into the folder, few attempts, no long waits.
    fn command(&self) -> Command {
        self.command_to(&self.target())
    }

    fn command_to(&self, target: &Path) -> Command {
        let mut command = self.command_for("load", "hf://acme/tiny");
        command.arg("--to").arg(target);
        command.args(["-o", "json"]);
        command.arg("--termination-log").arg(self.folder.path().join("outcome"));
        command
    }

    /// A command about a source, with every right that it needs, said in so many words.
    fn command_for(&self, command: &str, source: &str) -> Command {
        let mut command = self.bare_command(command, source);
        command.args(["--config", &format!("endpoint={}", self.hub.url)]);
        command.args(["--grant", &self.hub.url, "--grant", &self.hub.cdn_url]);
        command.arg("--send-secret").arg(format!("hf={}", self.hub.url));
        command
    }

    /// A command about a source, with the first-party plugins and no right besides theirs.
    fn bare_command(&self, name: &str, source: &str) -> Command {
        let mut command = Command::new(program());
        command.args([name, source, "--attempts", "3", "--stall", "2"]);
        command.arg("--plugins").arg(self.plugins()).arg("--plugin-cache").arg(root().join("target/guests/cache"));
        for variable in
            ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
        {
            command.env_remove(variable).env_remove(variable.to_lowercase());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn to_folder(&self, command: &mut Command) {
        command.arg("--to").arg(self.target());
    }

    /// The hub's two plugins, as they lie beside the program.
    fn plugins(&self) -> PathBuf {
        let folder = self.folder.path().join("plugins");
        std::fs::create_dir_all(&folder).unwrap();
        for plugin in ["loader-huggingface", "importer-huggingface"] {
            let file = folder.join(format!("{plugin}.wasm"));
            if !file.exists() {
                std::fs::copy(guests::component(&format!("plugins/{plugin}")).unwrap(), file).unwrap();
            }
        }
        folder
    }

    fn load(&self) -> Loaded {
        Loaded::of(self.command().output().unwrap())
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("model")
    }

    fn artifact(&self, path: &str) -> PathBuf {
        self.target().join("artifacts").join(path)
    }

    /// The file is there, under its name, with the bytes that the hub announces.
    fn assert_weights(&self) {
        let bytes = std::fs::read(self.artifact("model.safetensors")).unwrap();
        let expected = self.hub.sha256(substratus_tests::hub::Kind::Model, "acme/tiny", "main", "model.safetensors").unwrap();
        let found = substratus::worker::journal::unhex::<32>(&expected).unwrap();
        assert!(Sha256::digest(&bytes)[..] == found);
        assert!(!self.artifact("model.safetensors.partial").exists());
    }

    fn manifest(&self) -> Option<serde_json::Value> {
        let text = std::fs::read(self.target().join(".substratus/manifest.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }
}

/// A process that has ended, of any command that moves bytes.
pub(crate) struct Loaded {
    pub(crate) code: Option<i32>,
    pub(crate) outcome: Outcome,
    pub(crate) everything: String,
}

impl Loaded {
    pub(crate) fn of(output: Output) -> Self {
        let out = String::from_utf8(output.stdout).unwrap();
        let everything = format!("{out}{}", String::from_utf8(output.stderr).unwrap());
        for secret in [TOKEN, SECRET_KEY] {
            assert!(!everything.contains(secret), "a secret shows: {everything}");
        }
        assert!(!everything.contains('\r'), "a carriage return in a log");
        let outcome = serde_json::from_str(out.trim()).unwrap_or_else(|_| panic!("no outcome: {everything}"));
        Self { code: output.status.code(), outcome, everything }
    }

    /// Runs it to its end; answers with the most memory that was resident at a time, in KiB, too.
    pub(crate) fn with_peak(command: &mut Command) -> (Self, u64) {
        let child = command.spawn().unwrap();
        let status = format!("/proc/{}/status", child.id());
        let watched = std::thread::spawn(move || {
            let mut peak = 0_u64;
            while let Ok(text) = std::fs::read_to_string(&status) {
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let Some(kib) = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()) else { break };
                peak = peak.max(kib);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            peak
        });
        let loaded = Self::of(child.wait_with_output().unwrap());
        (loaded, watched.join().unwrap())
    }

    pub(crate) fn assert_complete(&self) {
        assert!(matches!(self.outcome, Outcome::Complete { .. }) && self.code == Some(0), "{}", self.everything);
    }

    /// Failed for `reason`, finally or not, with a message that says `words`.
    pub(crate) fn assert_failed(&self, reason: &str, last: bool, words: &[&str]) {
        let Outcome::Failed { reason: found, message, .. } = &self.outcome else { panic!("{}", self.everything) };
        assert_eq!(found, reason, "{}", self.everything);
        assert_eq!((self.outcome.is_final(), self.code), (last, Some(self.outcome.exit_code().into())), "{}", self.everything);
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    }
}
