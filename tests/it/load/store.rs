//! Loads whose operator does not answer: progress is a courtesy, a plugin is fetched with patience, and nothing waits for ever.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";

#[test]
fn progress_that_nobody_takes_delays_nothing() {
    // One refuses connections, the other takes them and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for store in [NOWHERE.to_owned(), format!("http://{}", silent.local_addr().unwrap())] {
        let bench = Bench::with_weights(MIB);
        let start = Instant::now();
        let url = format!("{store}/progress/default/tiny");
        let loaded = Loaded::of(bench.command().args(["--log-filter", "info", "--progress-url", &url]).output().unwrap());
        loaded.assert_complete();
        bench.assert_weights();
        assert!(start.elapsed() < Duration::from_secs(30), "{store}: {:?}", start.elapsed());
        if store == NOWHERE {
            assert_eq!(
                loaded.everything.matches("progress cannot be reported; the load goes on").count(),
                1,
                "{}",
                loaded.everything
            );
        }
    }
}

/// The request of a pod whose loader is not in its image.
fn pod(bench: &Bench, digest: &str, store: &str) -> Command {
    let (hub, cdn) = (&bench.hub.url, &bench.hub.cdn_url);
    let request = json!({
        "inputs": "i", "namespace": "default", "name": "tiny", "source": "hf://acme/tiny",
        "plugin": {"name": "loader-huggingface", "version": "0.1.0", "digest": digest},
        "grant": {"hosts": [hub, cdn], "secrets": []}, "config": {"endpoint": hub},
        "target": substratus::bucket::BucketUrl::of_folder(&bench.target()).unwrap().to_string(),
    });
    let file = bench.folder.path().join("request.json");
    std::fs::write(&file, request.to_string()).unwrap();
    let mut command = Command::new(program());
    command.args(["load", "-o", "json", "--attempts", "3", "--store", store, "--log-filter", "info", "--request"]).arg(file);
    command.arg("--plugin-cache").arg(bench.folder.path().join("cache")).arg("--plugins").arg(bench.folder.path());
    command.stdin(Stdio::null());
    command
}

#[test]
fn a_store_that_is_gone_is_a_passing_failure() {
    let bench = Bench::with_weights(MIB);
    let digest = format!("sha256:{}", "0".repeat(64));
    let start = Instant::now();
    let loaded = Loaded::of(pod(&bench, &digest, NOWHERE).output().unwrap());
    loaded.assert_failed("Unavailable", false, &[&digest, "from the store"]);
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn a_store_that_stands_by_is_asked_again_and_a_wrong_component_is_refused() {
    let good = std::fs::read(guests::component("plugins/loader-huggingface").unwrap()).unwrap();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&good)));
    let other = std::fs::read(guests::component("plugins/gpu-generic").unwrap()).unwrap();
    for (component, complete) in [(good, true), (other, false)] {
        let bench = Bench::with_weights(MIB);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let store = std::thread::spawn(move || {
            let standby = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", component.len());
            for answer in [standby, [head.into_bytes(), component].concat()] {
                let (mut peer, _) = listener.accept().unwrap();
                let mut asked = [0; 4096];
                let read = peer.read(&mut asked).unwrap();
                assert!(String::from_utf8_lossy(&asked[..read]).starts_with("GET /plugins/sha256:"));
                peer.write_all(&answer).unwrap();
            }
        });
        let loaded = Loaded::of(pod(&bench, &digest, &url).output().unwrap());
        store.join().unwrap();
        if complete {
            loaded.assert_complete();
            bench.assert_weights();
        } else {
            loaded.assert_failed("PluginFailed", true, &["instead of", &digest]);
        }
    }
}
