//! Plugins that cannot be had or used: the step that failed is named, and the objects that want them say the same.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use oci_client::secrets::RegistryAuth;
use serde_json::json;
use substratus::plugin::{PluginOptions, Plugins};
use substratus_tests::guests;

use super::registry::{HOST, Registry};
use super::{Turn, alone, condition};

/// Name, layer, announced size, the condition that is False, its reason, words of its message.
type Case<'a> = (&'a str, &'a [u8], usize, &'a str, &'a str, &'a [&'a str]);

/// Machine code as the engine compiles it: what the plugin host itself keeps, less its signature.
async fn native(component: &[u8]) -> Result<Vec<u8>> {
    let cache = tempfile::tempdir()?;
    let plugins = Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() })?;
    let digest = plugins.add(component)?.digest;
    plugins.prepare(&digest).await?;
    let engines = std::fs::read_dir(cache.path().join("aot"))?.next().context("no compiled code")??.path();
    let sealed = std::fs::read(engines.join(format!("{}.cwasm", digest.replace("sha256:", ""))))?;
    Ok(sealed.get(32..).context("no code behind the signature")?.to_vec())
}

/// A policy whose manifest has other members than its packager would let it have.
fn forged(members: &serde_json::Value) -> Result<Vec<u8>> {
    let mut manifest = json!({"name": "forged", "version": "0.1.0", "role": "GpuPolicy", "host": "0.1"});
    for (name, value) in members.as_object().context("no members")? {
        manifest[name] = value.clone();
    }
    guests::forged("tests/guests/policy", &manifest.to_string())
}

#[test]
fn a_plugin_that_cannot_be_used_says_which_step_failed() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        let good = std::fs::read(guests::component("plugins/loader-huggingface")?)?;
        let native = native(&good).await?;
        // Not one of the bundled: those are there already.
        let unknown = std::fs::read(guests::component("tests/guests/policy")?)?;
        let mut bare = wasm_encoder::Component::new();
        bare.section(&wasm_encoder::CustomSection { name: "other".into(), data: b"1".as_slice().into() });
        let module = wasm_encoder::Module::new().finish();
        let cap = usize::try_from(substratus::limits::COMPONENT_BYTES)?;
        let liar = forged(&json!({"role": "ServerAdapter"}))?;
        let bomb = forged(&json!({"config": {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}}))?;
        let deep = guests::forged("tests/guests/policy", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))?;
        let cases: [Case<'_>; 10] = [
            ("script", b"#!/bin/sh", 9, "Compatible", "NotAComponent", &["is not WebAssembly", "substratus plugin build"]),
            (
                "module",
                &module,
                module.len(),
                "Compatible",
                "NotAComponent",
                &["core WebAssembly module", "substratus plugin build"],
            ),
            ("native", &native, native.len(), "Compatible", "NotAComponent", &["precompiled machine code", "never loaded"]),
            ("garbage", b"\0asm\x0d\0\x01\0garbage", 15, "Compatible", "NotAComponent", &["not valid"]),
            ("bare", &bare.finish(), 17, "Compatible", "InvalidManifest", &["substratus:manifest"]),
            (
                "liar",
                &liar,
                liar.len(),
                "Compatible",
                "IncompatibleWorld",
                &["does not export `substratus:plugin/serving@0.1.0`", "which a ServerAdapter must"],
            ),
            (
                "bomb",
                &bomb,
                bomb.len(),
                "Compatible",
                "InvalidManifest",
                &["config.properties.a", "keyword `pattern` is not supported"],
            ),
            ("deep", &deep, deep.len(), "Compatible", "InvalidManifest", &["recursion limit"]),
            ("large", b"small", cap + 1, "Resolved", "TooLarge", &["67108865", "at most 67108864"]),
            ("spoilt", &unknown, unknown.len(), "Verified", "DigestMismatch", &["is not used"]),
        ];
        for (name, bytes, announced, ..) in &cases {
            let size = if *name == "bare" { bytes.len() } else { *announced };
            let image = registry.push(name, bytes, size).await?;
            if *name == "spoilt" {
                registry.spoil(bytes)?;
            }
            turn.create("Plugin", name, json!({"image": image})).await?;
            turn.create("Model", name, json!({"source": "hf://a/b", "plugin": name})).await?;
        }
        turn.create("Plugin", "missing", json!({"image": format!("{HOST}/plugins/none:1")})).await?;
        turn.create("Model", "missing", json!({"source": "hf://a/b", "plugin": "missing"})).await?;
        turn.create("Model", "nobodys", json!({"source": "nope://a/b"})).await?;

        let operator = turn.operator(&["--insecure-registry", HOST]).await?;
        for (name, _, _, about, reason, words) in cases {
            let plugin = turn.refused("Plugin", name, about, reason, words).await?;
            ensure!(condition(&plugin, "Active")["reason"] == reason, "{plugin}");
            turn.refused("Model", name, "Complete", "PluginNotReady", &[name, reason]).await?;
        }
        turn.refused("Plugin", "missing", "Resolved", "ImageNotFound", &["plugins/none:1", "check the name"]).await?;
        turn.refused("Model", "nobodys", "Complete", "PluginNotFound", &["nope://", "hf"]).await?;
        turn.calm(&operator, 2).await?;
        ensure!(turn.list("Job").await?.is_empty(), "a Job runs for a plugin that cannot");
        Ok(())
    })
}

/// `user` and `secret`, by bcrypt.
const HTPASSWD: &str = "user:$2b$05$/.AeTZmHNcBlAFqF0UmABubrkmB4O5la76TmxkW9sl62jts7asnWm";

#[test]
fn a_registry_that_wants_credentials_gets_those_of_the_pull_secret() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start_with(turn.cluster, Some(HTPASSWD)).await?;
        let good = std::fs::read(guests::component("tests/guests/policy")?)?;
        let right = RegistryAuth::Basic("user".to_owned(), "secret".to_owned());
        let secrets = Api::<Secret>::namespaced(turn.cluster.client(), &turn.namespace);
        for (name, password) in [("wrong", "guess"), ("right", "secret")] {
            let config = json!({"auths": {HOST: {"username": "user", "password": password}}}).to_string();
            let secret = json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
                "stringData": {".dockerconfigjson": config}});
            secrets.create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
        }
        for (name, secret) in [("nobody", None), ("absent", Some("absent")), ("wrong", Some("wrong")), ("right", Some("right"))] {
            let image = registry.push_as(&right, name, &good, good.len()).await?;
            turn.create(
                "PluginSource",
                name,
                json!({"prefix": format!("{HOST}/plugins/{name}"), "pullSecret": secret, "unverified": "Allow"}),
            )
            .await?;
            turn.create("Plugin", name, json!({"image": image})).await?;
        }
        // The operator's own namespace is where pull secrets are.
        let namespace = format!("--namespace={}", turn.namespace);
        let _operator = turn.operator(&["--insecure-registry", HOST, &namespace]).await?;
        for (name, words) in [("nobody", "nobody"), ("absent", "absent"), ("wrong", "wrong")] {
            let plugin = turn.refused("Plugin", name, "Resolved", "RegistryAuth", &[words]).await?;
            ensure!(!plugin.to_string().contains("guess"), "the password shows: {plugin}");
        }
        let active = async |plugin: &serde_json::Value| Ok(condition(plugin, "Active")["status"] == "True");
        turn.wait("Plugin", "right", active).await?;
        Ok(())
    })
}

#[test]
fn a_registry_that_goes_away_takes_nothing_that_worked_with_it() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        let good = std::fs::read(guests::component("tests/guests/policy")?)?;
        let image = registry.push("policy", &good, good.len()).await?;
        turn.create("Plugin", "policy", json!({"image": image})).await?;
        let operator = turn.operator(&["--insecure-registry", HOST]).await?;
        let active = async |plugin: &serde_json::Value| Ok(condition(plugin, "Active")["status"] == "True");
        let before = turn.wait("Plugin", "policy", active).await?;
        registry.stop()?;

        turn.create("Plugin", "late", json!({"image": format!("{HOST}/plugins/late:1")})).await?;
        turn.refused("Plugin", "late", "Resolved", "RegistryUnavailable", &[HOST]).await?;
        turn.create("Model", "late", json!({"source": "hf://a/b", "plugin": "late"})).await?;
        turn.refused("Model", "late", "Complete", "PluginNotReady", &["RegistryUnavailable"]).await?;
        turn.calm(&operator, 3).await?;

        // A restart finds the component in its own store: no registry is asked, nothing changes.
        let operator = operator.restart(turn.cluster, &[&turn.scope(), "--insecure-registry", HOST]).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = turn.wait("Plugin", "policy", active).await?;
        ensure!(before["status"] == after["status"], "{before} became {after}");
        // A revision that cannot be had leaves the last good one at work.
        let broken = json!({"spec": {"image": format!("{HOST}/plugins/policy:2")}});
        turn.api("Plugin")?.patch("policy", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(broken)).await?;
        let kept = turn.refused("Plugin", "policy", "Resolved", "RegistryUnavailable", &[]).await?;
        let said = condition(&kept, "Active");
        ensure!(
            said["status"] == "True" && said["message"].as_str().is_some_and(|words| words.contains("keeps answering")),
            "{said}"
        );
        drop(operator);
        Ok(())
    })
}
