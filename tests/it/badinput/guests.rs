//! Guests that misbehave while the operator asks them: each object says which plugin did what, and the next question is answered.

use anyhow::{Result, ensure};
use serde_json::json;
use substratus_tests::guests;

use super::registry::{HOST, Registry};
use super::{Turn, alone};

/// What the guest is told to do, and what the Server says then.
const ADAPTER: [(&str, &str, &[&str]); 26] = [
    ("loop", "PluginFailed", &["`hostile-adapter` hit a limit in `serve`", "processor time is at most 100 ms"]),
    ("eat", "PluginFailed", &["memory is at most 64 MiB"]),
    ("recurse", "PluginFailed", &["the guest's stack is at most 512 KiB"]),
    ("recurse-wide", "PluginFailed", &["crashed in `serve`: wasm trap: out of bounds memory access"]),
    ("panic", "PluginFailed", &["crashed in `serve`", "an adapter's panic with 5 words", "src/lib.rs"]),
    ("huge", "PluginFailed", &["data from guest to host is at most 1024 KiB"]),
    ("args", "PluginFailed", &[]),
    ("port-zero", "PluginFailed", &["the port is 0"]),
    ("env-odd", "PluginFailed", &["no name of an environment variable"]),
    ("probe-relative", "PluginFailed", &["does not start with `/`"]),
    ("cache-dotdot", "PluginFailed", &["`..`"]),
    ("cache-relative", "PluginFailed", &["is not absolute"]),
    ("probe-zero", "PluginFailed", &["at least 1"]),
    ("probe-elsewhere", "PluginFailed", &["does not start with `/`"]),
    ("cache-root", "PluginFailed", &["it is empty"]),
    ("cache-twice", "PluginFailed", &["is there twice"]),
    ("shm", "PluginFailed", &["18446744073709551615 bytes of memory or scratch space"]),
    ("memory", "PluginFailed", &["18446744073709551615 bytes of memory"]),
    ("image-odd", "PluginFailed", &["docker.io/hostile/server:1 --privileged", "no image's name"]),
    ("image-dotdot", "PluginFailed", &["docker.io/hostile/../evil/miner:1", "no image's name"]),
    ("image", "PluginDenied", &["docker.io/evil/miner:latest", "spec.grants.images"]),
    ("image-prefix", "PluginDenied", &["docker.io/hostile-not/server:1"]),
    ("cache-model", "PluginDenied", &["/content/model"]),
    ("cache-params", "PluginDenied", &["/content/params.json"]),
    ("cache-token", "PluginDenied", &["/var/run/secrets/kubernetes.io/serviceaccount"]),
    ("nonsense", "Invalid", &["spec.params.do"]),
];

/// The GPU type, and what the Model says then.
const POLICY: [(&str, &str, &[&str]); 14] = [
    ("loop", "PluginFailed", &["`hostile-policy` hit a limit in `place`", "processor time"]),
    ("huge", "PluginFailed", &["data from guest to host"]),
    ("tolerate-all", "PluginFailed", &["tolerates every taint"]),
    ("tolerate-odd", "PluginFailed", &["Exists, Equal"]),
    ("selector-odd", "PluginFailed", &["control character"]),
    ("resource-huge", "PluginFailed", &["18446744073709551615 of `nvidia.com/gpu`"]),
    ("resource-twice", "PluginFailed", &["`nvidia.com/gpu` is there twice"]),
    ("resource-other", "PluginDenied", &["`example.com/license`", "spec.grants.scheduling"]),
    ("runtime", "PluginDenied", &["`runtimeclass/privileged`", "spec.grants.scheduling"]),
    ("selector", "PluginDenied", &["node-role.kubernetes.io/control-plane", "spec.grants.scheduling"]),
    ("selector-name", "PluginDenied", &["kubernetes.io/hostname"]),
    ("toleration", "PluginDenied", &["control-plane"]),
    ("resource", "PluginDenied", &["`cpu`"]),
    ("claim", "PluginDenied", &["device claims"]),
];

#[test]
fn a_guest_that_misbehaves_is_named_and_nothing_runs_by_its_word() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        for (name, grants) in
            [("adapter", json!({"images": ["docker.io/hostile/"]})), ("policy", json!({"scheduling": ["nvidia.com/gpu"]}))]
        {
            let bytes = std::fs::read(guests::component(&format!("tests/guests/{name}"))?)?;
            let image = registry.push(name, &bytes, bytes.len()).await?;
            turn.create("Plugin", &format!("hostile-{name}"), json!({"image": image, "grants": grants})).await?;
        }
        turn.adopted("ready").await?;
        let server = |how: &str| json!({"engine": "hostile", "model": {"name": "ready"}, "params": {"do": how}});
        let model = |how: &str| json!({"source": "hf://a/b", "resources": {"gpu": {"type": how, "count": 1}}});
        for (how, ..) in ADAPTER {
            turn.create("Server", how, server(how)).await?;
        }
        for (how, ..) in POLICY {
            turn.create("Model", how, model(how)).await?;
        }
        let arguments = ["--insecure-registry", HOST, "--cloud", "hostile", "--artifact-bucket-url", "tar:///bucket"];
        let operator = turn.operator(&arguments).await?;
        for (how, reason, words) in ADAPTER {
            turn.refused("Server", how, "Serving", reason, words).await?;
        }
        for (how, reason, words) in POLICY {
            turn.refused("Model", how, "Complete", reason, words).await?;
        }
        ensure!(operator.count("substratus_plugin_traps_total").await? >= 6, "{}", operator.metrics().await?);
        turn.calm(&operator, 2).await?;
        ensure!(turn.list("Job").await?.is_empty() && turn.list("Deployment").await?.is_empty(), "something runs");

        // The host is well: the same guests answer the next question.
        turn.create("Server", "good", server("good")).await?;
        turn.create("Model", "good", model("good")).await?;
        // What only looks like harm is bounded and runs.
        for how in ["grace", "env-preload", "env-expansion"] {
            turn.create("Server", how, server(how)).await?;
            turn.wait("Deployment", &format!("{how}-server"), async |_| Ok(true)).await?;
        }
        let slow = turn.wait("Deployment", "grace-server", async |_| Ok(true)).await?;
        ensure!(slow["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 3600, "{slow}");
        turn.wait("Deployment", "good-server", async |_| Ok(true)).await?;
        turn.wait("Job", "good-modeller", async |_| Ok(true)).await?;
        Ok(())
    })
}
