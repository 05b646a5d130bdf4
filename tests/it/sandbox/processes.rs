//! What the processes look like from outside: what they hold, and that they end with their owner. Knows the system's view only.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use substratus_tests::guests::{self, root};

use super::{asking, is_answer, open, pid, resolve, score, scoring};
use crate::load::program;

fn status(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

/// Its environment; nothing where even that is kept from us.
pub(super) fn environment(pid: Pid) -> Vec<u8> {
    match fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Vec::new(),
        read => read.unwrap(),
    }
}

fn holds_nothing(pid: Pid) {
    for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(status(pid, name), value, "{name}");
    }
    assert_eq!(environment(pid), b"");
    let files = match fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        files => files.unwrap(),
    };
    for file in files.map(Result::unwrap) {
        let Ok(target) = fs::read_link(file.path()) else { continue };
        // Whatever started this test passed that on to everybody: standard error, and files of a shell.
        if fs::read_link(Path::new("/proc/self/fd").join(file.file_name())).is_ok_and(|ours| ours == target) {
            continue;
        }
        let target = target.to_string_lossy().into_owned();
        let harmless = ["socket:", "anon_inode:", "/memfd:", "/dev/null"].iter().any(|good| target.starts_with(good));
        assert!(harmless, "{} is {target}", file.path().display());
    }
}

fn gone(pid: Pid) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

#[tokio::test]
async fn guests_run_in_a_process_that_holds_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = open(cache.path());
    assert_eq!(plugins.sandbox().unwrap().pid, None, "nothing runs before the first question");
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    assert!(!environment(rustix::process::getpid()).is_empty(), "ours is not empty");
    let sandbox = pid(&plugins);
    assert_ne!(sandbox, rustix::process::getpid());
    holds_nothing(sandbox);
    let folders: Vec<_> = fs::read_dir(cache.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    assert_eq!(fs::metadata(&folders[0]).unwrap().permissions().mode() & 0o777, 0o700, "nobody else can connect");
    drop(plugins);
    assert!(gone(sandbox), "it ends with whoever started it");
    assert_eq!(fs::read_dir(cache.path().join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_call_with_it() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = open(cache.path());
    let digest = plugins.add(&asking(0)).unwrap().digest;
    plugins.prepare(&digest).await.unwrap();
    // More calls than may run at once, each given up while the guest waits.
    for _ in 0..20 {
        let never = std::sync::Arc::new(tokio::sync::Notify::new());
        let calls = super::Knife { after: Some(never), ..std::sync::Arc::into_inner(super::Knife::new(&plugins, 0)).unwrap() };
        let calls = std::sync::Arc::new(calls);
        let asked = async {
            while calls.requests() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = resolve(&plugins, &digest, &calls) => panic!("{answer:?}"),
            () = asked => {}
        }
    }
    let answer = resolve(&plugins, &digest, &super::Knife::new(&plugins, 0)).await;
    assert!(is_answer(&answer), "{answer:?}");
    assert_eq!(plugins.sandbox().unwrap().restarts, 0);
}

/// The sandbox of a process, by what the system says of its children.
fn child(parent: u32) -> Option<Pid> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut children = processes.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        of == Some(parent) && command.split('\0').nth(1) == Some("sandbox")
    });
    children.next().and_then(Pid::from_raw)
}

#[test]
fn the_loader_of_a_worker_runs_in_a_child_without_its_tokens() {
    let target = tempfile::tempdir().unwrap();
    let mut command = Command::new(program());
    command.args(["load", "hostile://anything", "--param", "do=loop", "--to"]).arg(target.path());
    command.arg("--plugin").arg(guests::component("tests/guests/loader").unwrap());
    command.arg("--plugin-cache").arg(root().join("target/guests/cache"));
    command.env("HUB_TOKEN", "hub_it_secret").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut worker = command.spawn().unwrap();
    let ours = Pid::from_raw(worker.id().try_into().unwrap()).unwrap();
    let confined = |pid: &Pid| {
        fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).is_ok_and(|text| text.contains("Seccomp:\t2"))
    };
    let sandbox = loop {
        if let Some(pid) = child(worker.id()).filter(confined) {
            break pid;
        }
        assert!(worker.try_wait().unwrap().is_none(), "the load ended without a sandbox");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(String::from_utf8_lossy(&environment(ours)).contains("hub_it_secret"));
    holds_nothing(sandbox);
    // A worker that is killed leaves nobody behind.
    kill_process(ours, Signal::KILL).unwrap();
    worker.wait().unwrap();
    assert!(gone(sandbox));
}

#[test]
fn a_compiler_refuses_what_is_no_component_with_its_own_exit_code() {
    let mut compiler = Command::new(program());
    compiler.arg("compile").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = compiler.output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(65), 0));
    assert!(!output.stderr.is_empty());
}
