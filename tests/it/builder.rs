//! `substratus builder build` with a real `BuildKit` and a real registry that wants an account, without a cluster: the same user, the same
//! two capabilities and the same programs as in a pod. What a pod adds is tested by `e2e`.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{XattrFlags, chown, setxattr};
use rustix::process::{Gid, Uid};
use serde_json::{Value, json};
use substratus_tests::cluster::settings::Settings;
use substratus_tests::registry::proxied::{Fault, PASSWORD, Registry, Rule, USER};
use tempfile::TempDir;

use crate::load::program;

const BUILDER: u32 = 1000;
/// Its folder stands for the image's: user 1000 exists, and may have ids of its own.
const SCRIPT: &str = r#"mount --bind "$1/etc/passwd" /etc/passwd && mount --bind "$1/etc/subid" /etc/subuid \
  && mount --bind "$1/etc/subid" /etc/subgid && mount -t tmpfs tmpfs /run && shift \
  && exec setpriv --bounding-set -all,+setuid,+setgid --inh-caps -all --reuid 1000 --regid 1000 --clear-groups "$@""#;

struct Bench {
    registry: Registry,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let registry = Registry::start_at([127, 0, 0, 1].into(), true, runtime.handle()).unwrap();
        let bench = Self { registry, folder: tempfile::tempdir().unwrap(), _runtime: runtime };
        for folder in ["bin", "etc", "from/source", "state", "out"] {
            fs::create_dir_all(bench.path(folder)).unwrap();
        }
        fs::set_permissions(bench.folder.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(bench.path("etc/passwd"), "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n").unwrap();
        fs::write(bench.path("etc/subid"), "user:100000:65536\n").unwrap();
        let settings = Settings::from_environment().unwrap();
        for name in ["buildkitd", "buildctl", "rootlesskit", "runc", "newuidmap", "newgidmap"] {
            fs::copy(settings.require(name).unwrap(), bench.path("bin").join(name)).unwrap();
            fs::set_permissions(bench.path("bin").join(name), Permissions::from_mode(0o755)).unwrap();
        }
        for (name, capability) in [("newuidmap", 7), ("newgidmap", 6)] {
            let value: Vec<u8> = [0x0200_0001_u32, 1 << capability, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
            setxattr(bench.path("bin").join(name), "security.capability", &value, XattrFlags::empty()).unwrap();
        }
        fs::copy(program(), bench.path("bin/substratus")).unwrap();
        fs::set_permissions(bench.path("bin/substratus"), Permissions::from_mode(0o755)).unwrap();
        for folder in ["state", "out"] {
            chown(bench.path(folder), Some(Uid::from_raw(BUILDER)), Some(Gid::from_raw(BUILDER))).unwrap();
        }
        fs::write(bench.path("from/commit"), "abc\n").unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder with a docker configuration, as a Secret is mounted.
    fn account(&self, password: &str) -> PathBuf {
        let folder = self.path(&format!("account-{}", password.len()));
        fs::create_dir_all(&folder).unwrap();
        let auth = BASE64_STANDARD.encode(format!("{USER}:{password}"));
        let config = json!({"auths": {&self.registry.host: {"auth": auth}}});
        fs::write(folder.join("config.json"), config.to_string()).unwrap();
        folder
    }

    /// Builds the image of this name: its exit code, its last words, and what it logs.
    fn build(&self, image: &str, accounts: Option<&Path>) -> (i32, Value, String) {
        self.build_folder("", image, accounts)
    }

    /// The same of a folder of the sources.
    fn build_folder(&self, path: &str, image: &str, accounts: Option<&Path>) -> (i32, Value, String) {
        let outcome = self.path("out/outcome");
        drop(fs::remove_file(&outcome));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "/bin/sh", "-c", SCRIPT, "sh"]).arg(self.folder.path());
        command.arg(self.path("bin/substratus")).args([
            "builder",
            "build",
            "--inputs=i",
            "--cache-tag=_cache-1",
            &format!("--path={path}"),
        ]);
        command.arg(format!("--from={}", self.path("from").display()));
        command.arg(format!("--state={}", self.path("state").display()));
        command.arg(format!("--image={}/{image}", self.registry.host));
        command.arg(format!("--plain-http={}", self.registry.host));
        command.arg(format!("--termination-log={}", outcome.display()));
        command.args(accounts.map(|folder| format!("--accounts={}", folder.display())));
        command.env_clear().env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display()));
        let output = command.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(outcome.is_file(), "{log}");
        let said = fs::read(&outcome).unwrap();
        (output.status.code().unwrap(), serde_json::from_slice(&said).unwrap(), log)
    }
}

fn words(said: &Value) -> &str {
    said["message"].as_str().unwrap_or_default()
}

#[test]
fn a_push_takes_an_account_and_each_refusal_has_its_name() {
    let bench = Bench::new();
    let dockerfile = "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"chown\", \"5:5\", \"/bin/busybox\"]\n";
    fs::write(bench.path("from/source/Dockerfile"), dockerfile).unwrap();
    fs::copy("/bin/busybox", bench.path("from/source/busybox")).unwrap();

    let (code, said, log) = bench.build("team/x:v1", None);
    assert_eq!((code, &said["reason"]), (64, &json!("PushDenied")), "{said}\n{log}");
    assert!(words(&said).contains("REGISTRY_PUSH_SECRET"), "{said}");
    let (code, said, _) = bench.build("team/x:v1", Some(&bench.account("wrong")));
    assert_eq!((code, &said["reason"]), (64, &json!("PushDenied")), "{said}");

    let account = bench.account(PASSWORD);
    bench.registry.fault(Rule { method: "PUT", part: "/manifests/v1", fault: Fault::Answer(503, "busy"), times: 1000 });
    let (code, said, _) = bench.build("team/x:v1", Some(&account));
    assert_eq!((code, &said["reason"], &said["passing"]), (1, &json!("PushFailed"), &json!(true)), "{said}");
    bench.registry.clear_faults();

    let (code, first, log) = bench.build("team/x:v1", Some(&account));
    assert_eq!((code, &first["outcome"], &first["commit"]), (0, &json!("built"), &json!("abc")), "{first}\n{log}");
    assert!(!log.contains(PASSWORD), "{log}");
    // Another builder, which has nothing but the registry.
    fs::remove_dir_all(bench.path("state")).unwrap();
    fs::create_dir(bench.path("state")).unwrap();
    chown(bench.path("state"), Some(Uid::from_raw(BUILDER)), Some(Gid::from_raw(BUILDER))).unwrap();
    let (_, second, log) = bench.build("team/x:v2", Some(&account));
    assert_eq!(first["digest"], second["digest"], "the same sources are another image: {log}");
    assert!(log.contains("CACHED"), "nothing was taken from the registry: {log}");
}

#[test]
fn a_build_that_fails_says_which_line_and_leaves_no_image() {
    let bench = Bench::new();
    let dockerfile = "FROM scratch\nCOPY busybox /bin/\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo no rows && exit 3\"]\n";
    fs::write(bench.path("from/source/Dockerfile"), dockerfile).unwrap();
    fs::copy("/bin/busybox", bench.path("from/source/busybox")).unwrap();
    let (code, said, log) = bench.build("team/x:v1", Some(&bench.account(PASSWORD)));
    assert_eq!((code, &said["reason"], &said["passing"]), (64, &json!("BuildFailed"), &json!(false)), "{said}\n{log}");
    assert!(words(&said).starts_with("Dockerfile:3: RUN"), "{said}");
    assert!(words(&said).contains("no rows"), "{said}");
    assert!(bench.registry.stored().is_empty(), "{:?}", bench.registry.stored());
}

/// What runs in a build is root in a user namespace alone, and reads nothing of the process that has the account.
#[test]
fn a_step_of_a_build_does_not_see_the_account() {
    let bench = Bench::new();
    let script = "for f in /proc/[0-9]*/root${STATE}/docker/config.json /proc/[0-9]*/cwd${STATE}/docker/config.json; do \
                  if busybox grep -l auths $f 2>/dev/null; then echo FOUND $f; exit 7; fi; done; echo nothing to see";
    let script = script.replace("${STATE}", &bench.path("state").display().to_string());
    // A name that would be two options, one of which leads to the account.
    let name = format!("x,context={}", bench.path("state/docker").display());
    let folder = bench.path("from/source").join(&name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("look"), script).unwrap();
    fs::copy("/bin/busybox", folder.join("busybox")).unwrap();
    let dockerfile = "FROM scratch\nENV PATH=/bin\nCOPY busybox look /bin/\nRUN [\"/bin/busybox\", \"sh\", \"/bin/look\"]\n";
    fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    let (code, said, log) = bench.build_folder(&name, "team/x:v1", Some(&bench.account(PASSWORD)));
    assert!(code == 0 && log.contains("nothing to see"), "{said}\n{log}");
}
