//! Artifacts out of a registry.

use std::time::Instant;

use serde_json::json;
use substratus_tests::registry::proxied::{Fault, MANIFEST, PASSWORD, Rule};

use super::*;

#[test]
fn what_was_pushed_comes_back_byte_by_byte_by_tag_and_by_digest() {
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    let (digest, _) = revision(&ended(bench.push(&folder, ":v1")));
    let loaded = ended(bench.load(":v1", "model"));
    loaded.assert_complete();
    bench.assert_loaded("model", &folder);
    assert_eq!(revision(&loaded).0, digest, "the revision is the manifest's digest");
    // Another tag of the same name is another model; the digest stays what it is.
    std::fs::write(folder.join("config.json"), r#"{"other": true}"#).unwrap();
    ended(bench.push(&folder, ":v1")).assert_complete();
    ended(bench.load(&format!("@{digest}"), "pinned")).assert_complete();
    assert_eq!(std::fs::read_to_string(bench.path("pinned/artifacts/config.json")).unwrap(), "{}");
    // And what is known by its digest is not fetched again.
    let before = bench.registry.asked().len();
    let mut again = bench.load(":v1", "second");
    again.arg("--reuse").arg(bench.path("model"));
    let again = ended(again);
    again.assert_complete();
    bench.assert_loaded("second", &folder);
    let large = bench.registry.asked().split_off(before).iter().filter(|asked| asked.line.contains("/blobs/")).count();
    assert!(revision(&again).1 >= SIZE as u64 && large <= 3, "{large} blobs were fetched");
}

#[test]
fn what_is_known_of_a_model_comes_back_with_it() {
    let bench = Bench::new();
    let folder = bench.written(7);
    std::fs::rename(folder.join("model.safetensors"), folder.join("model.gguf")).unwrap();
    ended(bench.push(&folder, ":v1")).assert_complete();
    let loaded = ended(bench.load(":v1", "model"));
    loaded.assert_complete();
    let Outcome::Complete { source, .. } = &loaded.outcome else { unreachable!() };
    assert_eq!((source.format.as_deref(), source.entrypoint.as_deref()), (Some("gguf"), Some("model.gguf")));
}

#[test]
fn files_can_be_chosen() {
    let bench = Bench::new();
    ended(bench.push(&bench.written(7), ":v1")).assert_complete();
    let mut some = bench.load(":v1", "model");
    some.args(["--include", "*.json", "--exclude", "sub folder/**"]);
    ended(some).assert_complete();
    assert_eq!(sums(&bench.path("model/artifacts")).into_keys().collect::<Vec<_>>(), ["config.json"]);
}

#[test]
fn what_oras_pushes_is_loaded_and_what_it_packs_is_refused() {
    let bench = Bench::new();
    let layer = |bytes: &[u8], kind: &str, annotations: Value| {
        let digest = bench.runtime.block_on(bench.registry.put_blob(REPOSITORY, bytes)).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len(), "annotations": annotations})
    };
    let put = |tag: &str, layers: Vec<Value>| {
        let config = layer(b"{}", "application/vnd.oci.empty.v1+json", json!({}));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/vnd.unknown.artifact.v1",
            "config": config, "layers": layers, "annotations": {"org.opencontainers.image.created": "2026-01-01T00:00:00Z"}});
        bench.runtime.block_on(bench.registry.put_manifest(REPOSITORY, tag, &manifest)).unwrap();
    };
    let titled = |title: &str| json!({"org.opencontainers.image.title": title});
    put(
        "files",
        vec![
            // As `oras push … model.bin` calls it, and as with `model.bin:application/octet-stream`.
            layer(b"weights", "application/vnd.oci.image.layer.v1.tar", titled("model.bin")),
            layer(b"{}", "application/json", titled("sub/config.json")),
        ],
    );
    ended(bench.load(":files", "model")).assert_complete();
    assert_eq!(std::fs::read(bench.path("model/artifacts/model.bin")).unwrap(), b"weights");
    assert!(bench.path("model/artifacts/sub/config.json").exists());

    let mut unpack = titled("folder");
    unpack["io.deis.oras.content.unpack"] = "true".into();
    put("folder", vec![layer(b"tar", "application/vnd.oci.image.layer.v1.tar+gzip", unpack)]);
    ended(bench.load(":folder", "none")).assert_failed(
        "Unsupported",
        true,
        &["`folder` is packed", "push the files as they are"],
    );
    put("image", vec![layer(b"tar", "application/vnd.oci.image.layer.v1.tar+gzip", json!({}))]);
    ended(bench.load(":image", "none")).assert_failed("Unsupported", true, &["container image"]);
}

#[test]
fn accounts_come_from_pull_secrets_and_go_nowhere_else() {
    let bench = Bench::private();
    let folder = bench.written(SIZE);
    let mut push = bench.push(&folder, ":v1");
    push.arg("--docker-config").arg(bench.login(PASSWORD));
    ended(push).assert_complete();
    ended(bench.load(":v1", "none")).assert_failed("NeedsAuth", true, &["spec.imagePullSecrets", "docker login"]);
    let secrets = bench.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::write(secrets.join("000.json"), docker_config("ghcr.io", "of another").to_string()).unwrap();
    let with = |to: &str| {
        let mut load = bench.load(":v1", to);
        load.arg("--pull-secrets").arg(&secrets);
        load
    };
    ended(with("none")).assert_failed("NeedsAuth", true, &[]);
    assert!(bench.registry.asked().iter().all(|asked| asked.authorization.as_deref() != Some("Basic dXNlcjpvZiBhbm90aGVy")));
    std::fs::write(secrets.join("001.json"), docker_config(&bench.registry.host, PASSWORD).to_string()).unwrap();
    let loaded = ended(with("model"));
    loaded.assert_complete();
    bench.assert_loaded("model", &folder);
    std::fs::write(secrets.join("001.json"), "{").unwrap();
    let broken = ended(with("broken"));
    assert!(broken.code != Some(0) && broken.everything.contains("001.json"), "{}", broken.everything);
}

#[test]
fn a_load_that_was_killed_goes_on_and_a_blob_with_other_bytes_is_refused() {
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    ended(bench.push(&folder, ":v1")).assert_complete();
    let mut child = bench.load(":v1", "model").spawn().unwrap();
    let began = Instant::now();
    let partial = bench.path("model/artifacts/model.safetensors.partial");
    while !partial.exists() && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed().as_secs() < 60, "nothing came");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait_with_output().unwrap();
    ended(bench.load(":v1", "model")).assert_complete();
    bench.assert_loaded("model", &folder);

    let (_, manifest) = bench.manifest("v1").unwrap();
    let weights = manifest["layers"].as_array().unwrap().iter().find(|layer| layer["size"] == SIZE).unwrap();
    let blob = bench.registry.blob(weights["digest"].as_str().unwrap()).unwrap();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[7] ^= 1;
    std::fs::write(&blob, bytes).unwrap();
    ended(bench.load(":v1", "spoilt")).assert_failed("DigestMismatch", true, &["model.safetensors"]);
    assert!(!bench.path("spoilt/.substratus/manifest.json").exists());
}

#[test]
fn trouble_of_the_registry_is_waited_out() {
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    ended(bench.push(&folder, ":v1")).assert_complete();
    for fault in [Fault::Answer(503, ""), Fault::Reset, Fault::Answer(429, "")] {
        bench.registry.clear_faults();
        bench.registry.fault(Rule { method: "GET", part: "/manifests/", fault, times: 1 });
        bench.registry.fault(Rule { method: "GET", part: "/blobs/", fault, times: 2 });
        let to = format!("model-{fault:?}");
        ended(bench.load(":v1", &to)).assert_complete();
        bench.assert_loaded(&to, &folder);
    }
    ended(bench.load(":none", "none")).assert_failed("NotFound", true, &["team/model:none", "does not exist"]);
}

#[test]
fn a_plan_lists_what_would_be_fetched() {
    let bench = Bench::new();
    ended(bench.push(&bench.written(7), ":v1")).assert_complete();
    let mut plan = Command::new(program());
    plan.args(["plan", &bench.place(":v1"), "-o", "json", "--plain-http", &bench.registry.host]);
    plan.arg("--plugin").arg(guests::component("plugins/loader-oci").unwrap());
    plan.arg("--plugin-cache").arg(root().join("target/guests/cache")).env_clear();
    let said: Value = serde_json::from_slice(&plan.output().unwrap().stdout).unwrap();
    assert_eq!((said["files"].as_u64(), said["list"].as_array().unwrap().len()), (Some(5), 5), "{said}");
    assert_eq!(said["revision"].as_str(), Some(bench.manifest("v1").unwrap().0.as_str()));
}
