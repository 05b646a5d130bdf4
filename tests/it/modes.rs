//! Where demo and tests run on which machine: the page that comes first, read as a user does, on machines that are made up of
//! a few programs. It must not start anything.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use substratus_tests::guests::root;

/// A machine: a folder of programs, some real, some not.
struct Machine(tempfile::TempDir);

impl Machine {
    /// `uid` is who asks, `programs` are there besides what every machine has.
    fn new(uid: u32, programs: &[&str]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for real in ["sh", "dirname", "df", "awk", "cat"] {
            let found = ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(real)).find(|path| path.exists());
            std::os::unix::fs::symlink(found.unwrap(), machine.0.path().join(real)).unwrap();
        }
        machine.program("id", &format!("echo {uid}"));
        for program in programs {
            machine.program(program, "exit 0");
        }
        machine
    }

    fn program(&self, name: &str, body: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Exit code and everything printed.
    fn preflight(&self, task: &str, variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new("/bin/sh");
        command.arg(root().join("tests/preflight.sh")).arg(task).current_dir(root());
        command.env_clear().env("PATH", self.0.path()).env("HOME", self.0.path()).envs(variables.iter().copied());
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    }
}

const RUST: [&str; 2] = ["cargo", "rustup"];

#[test]
fn the_machine_decides_unless_the_user_does() {
    let root = Machine::new(0, &["kind"]);
    let user = Machine::new(1000, &["kind"]);
    let bare = Machine::new(1000, &[]);
    for (machine, wish, mode) in [
        (&root, "", "own"),
        (&root, "kind", "kind"),
        (&root, "current", "current"),
        (&user, "", "kind"),
        (&user, "current", "current"),
        (&bare, "", "none"),
    ] {
        assert_eq!(machine.preflight("mode", &[("CLUSTER", wish)]), (Some(0), format!("{mode}\n")), "CLUSTER={wish}");
    }
    let (code, text) = root.preflight("mode", &[("CLUSTER", "minikube")]);
    assert!(code == Some(2) && text.contains("minikube") && text.contains("current"), "{text}");
}

#[test]
fn whoever_can_start_none_hears_three_ways() {
    let (code, text) = Machine::new(1000, &RUST).preflight("demo", &[]);
    assert_eq!(code, Some(1));
    for way in ["as root", "CLUSTER=current REGISTRY=", "https://kind.sigs.k8s.io"] {
        assert!(text.contains(way), "`{way}` is not in: {text}");
    }
}

#[test]
fn what_is_missing_is_said_with_the_command_that_gets_it() {
    let machine = Machine::new(1000, &[]);
    machine.program("dpkg", "[ \"$2\" = musl-tools ]");
    let packages = ("PACKAGES", "musl-tools binutils python3");
    let (code, text) = machine.preflight("demo", &[("CLUSTER", "current"), packages]);
    assert_eq!(code, Some(1));
    for lack in
        ["cargo: https://rustup.rs", "sudo apt-get install --no-install-recommends binutils python3", "kubectl", "REGISTRY="]
    {
        assert!(text.contains(lack), "`{lack}` is not in: {text}");
    }
    let (_, text) = machine.preflight("demo", &[("CLUSTER", "own"), packages]);
    assert!(text.contains("root:") && text.contains("go,"), "{text}");
}

#[test]
fn the_page_names_the_mode_and_all_that_changes() {
    let machine = Machine::new(0, &["cargo", "rustup", "go", "kubectl", "kind", "dpkg"]);
    let (_, own) = machine.preflight("demo", &[]);
    for change in
        ["mode: own", "packages:", "below target/", "disk:", "network namespace", "iptables", "cgroup", "kernel settings"]
    {
        assert!(own.contains(change), "`{change}` is not in: {own}");
    }
    let (code, current) = machine.preflight("test", &[("CLUSTER", "current"), ("REGISTRY", "registry.test/x")]);
    assert!(code == Some(0) && current.contains("mode: current"), "{current}");
    assert!(current.contains("what is skipped") && current.contains("it::e2e") && current.contains("every fault"), "{current}");
    let (code, kind) = machine.preflight("demo", &[("CLUSTER", "kind")]);
    assert!(code == Some(0) && kind.contains("never tried against a real kind"), "{kind}");
}

#[test]
fn nothing_is_killed_on_a_cluster_of_somebody_else() {
    let machine = Machine::new(0, &["cargo", "rustup", "kubectl", "kind", "dpkg"]);
    for wish in ["current", "kind"] {
        let (code, text) = machine.preflight("soak", &[("CLUSTER", wish), ("REGISTRY", "registry.test/x")]);
        assert!(code == Some(1) && text.contains("kills things"), "{text}");
    }
}

/// Whoever starts a cluster here must be left out where the cluster is somebody else's.
#[test]
fn every_module_that_needs_a_cluster_of_its_own_is_known() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let listed = makefile.lines().find_map(|line| line.strip_prefix("OWN_ONLY := ")).unwrap();
    let listed: Vec<&str> = listed.split_whitespace().collect();
    let mut folders = vec![root().join("tests/it")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_default();
            let starts = ["api", "control", "node", "start"].iter().any(|mode| text.contains(&format!("Cluster::{mode}(")));
            let below = path.strip_prefix(root().join("tests/it")).unwrap().to_string_lossy().into_owned();
            let module = below.split(['/', '.']).next().unwrap_or_default();
            seen += usize::from(starts);
            assert!(!starts || listed.contains(&module), "{below} starts a cluster; add {module} to OWN_ONLY in the Makefile");
        }
    }
    assert!(seen >= 5, "the tests are somewhere else");
}
