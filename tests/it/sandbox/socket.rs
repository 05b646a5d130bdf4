//! A sandbox behind a socket, as in the operator's pod: it may start later than whoever asks, end and come back. Knows no pod.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use substratus::plugin::{Isolation, PluginOptions, Plugins};

use super::processes::environment;
use super::{Knife, asking, is_answer, resolve, score, scoring};
use crate::load::program;

/// One that ends with this value.
struct Container(Child);

impl Container {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new(program());
        command.arg("sandbox").arg("--socket").arg(socket).env("TOKEN", "it_secret").stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn open(cache: &Path, socket: PathBuf) -> Plugins {
    let options = PluginOptions { cache: cache.to_owned(), bundled: Vec::new() };
    Plugins::open_isolated(options, Isolation::Socket { path: socket, program: program().to_owned() }).unwrap()
}

fn check(socket: &Path) -> (bool, String) {
    let output = Command::new(program()).args(["sandbox", "--check", "--socket"]).arg(socket).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_sandbox_behind_a_socket_may_come_late_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sandbox.sock");
    let plugins = open(&folder.path().join("cache"), socket.clone());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    let late = async {
        tokio::task::yield_now().await;
        Container::start(&socket)
    };
    let (answer, first) = tokio::join!(score(&plugins, &digest), late);
    assert_eq!(answer.unwrap(), 7);
    assert_eq!(environment(first.pid()), b"", "it started again without one");
    let state = plugins.sandbox().unwrap();
    assert_eq!((state.pid, state.restarts), (None, 0));
    assert_eq!(check(&socket), (true, String::new()));
    drop(first);
    let second = Container::start(&socket);
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    assert_eq!(plugins.sandbox().unwrap().restarts, 1);
    drop(second);
}

#[tokio::test]
async fn a_container_that_is_killed_in_the_middle_loses_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sandbox.sock");
    let plugins = open(&folder.path().join("cache"), socket.clone());
    let digest = plugins.add(&asking(0)).unwrap().digest;
    let (first, waits) = (Container::start(&socket), std::sync::Arc::new(tokio::sync::Notify::new()));
    let calls = Knife { after: Some(waits), ..std::sync::Arc::into_inner(Knife::new(&plugins, 0)).unwrap() };
    let calls = std::sync::Arc::new(calls);
    let replaced = async {
        while calls.requests() == 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        calls.after.as_ref().unwrap().notify_one();
        Container::start(&socket)
    };
    let (answer, _second) = tokio::join!(resolve(&plugins, &digest, &calls), replaced);
    assert!(is_answer(&answer), "{answer:?}");
    assert_eq!(calls.requests(), 2);
}

#[tokio::test]
async fn a_sandbox_ends_when_its_pod_does() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("sandbox.sock");
    let plugins = open(&folder.path().join("cache"), socket.clone());
    let digest = plugins.add(&scoring(7)).unwrap().digest;
    let mut container = Container::start(&socket);
    assert_eq!(score(&plugins, &digest).await.unwrap(), 7);
    kill_process(container.pid(), Signal::TERM).unwrap();
    assert!(container.0.wait().unwrap().success());
    let (well, said) = check(&socket);
    assert!(!well && said.contains("sandbox.sock"), "{said}");
}
