//! The engine's root file system: llama.cpp's server really starts in it and answers, without rights and without writing.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};
use substratus_tests::engine;
use tokio::process::{Child, Command};

/// Starts the engine as nobody, in its own root, mounted read-only, with the model at /tmp. Needs root.
fn start(arguments: &str) -> Child {
    let cache = engine::cache().unwrap();
    let (root, model) = (engine::root(&cache).unwrap(), engine::tiny_model(&cache).unwrap());
    let script = "set -e; mount --bind \"$1\" \"$1\"; mount -o remount,bind,ro \"$1\"; mount --bind \"$2\" \"$1/tmp\"; \
                  mount -o remount,bind,ro \"$1/tmp\"; exec chroot --userspec=65534:65534 \"$1\" /app/llama-server $3";
    Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([root.as_path(), model.gguf.parent().unwrap()])
        .arg(arguments)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_engine_answers_as_nobody_in_a_read_only_root() {
    let port = free_port();
    let mut engine =
        start(&format!("-m /tmp/tiny.gguf --host 127.0.0.1 --port {port} --alias tiny -c 512 -np 1 -t 1 -ngl 0 --metrics"));
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().unwrap();
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let mut ready = false;
    for _ in 0..300 {
        ready = client.get(url("/health")).send().await.is_ok_and(|response| response.status() == 200);
        if ready || engine.try_wait().unwrap().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ready, "the engine does not become ready");
    let question = json!({ "model": "tiny", "prompt": "hello world", "max_tokens": 8 });
    let response = client.post(url("/v1/completions")).json(&question).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["model"], &answer["usage"]["completion_tokens"]), (&json!("tiny"), &json!(8)));
    assert!(!answer["choices"][0]["text"].as_str().unwrap().trim().is_empty());
    let metrics = client.get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("llamacpp:tokens_predicted_total 8"), "{metrics}");

    let pid = rustix::process::Pid::from_raw(engine.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::time::timeout(Duration::from_secs(10), engine.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn the_engine_refuses_unknown_flags_and_missing_models() {
    for (arguments, reason) in
        [("-m /tmp/tiny.gguf --frobnicate", "unrecognized arguments: --frobnicate"), ("-m /tmp/absent.gguf", "cannot serve")]
    {
        let output = start(arguments).wait_with_output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(reason), "{error}");
    }
}
