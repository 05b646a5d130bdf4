//! Loads that go well.

use substratus_tests::hub::{Fault, Rule};

use super::*;

#[test]
fn a_repository_arrives_whole_verified_and_described() {
    let bench = Bench::with_weights(40 * MIB);
    let loaded = Loaded::of(bench.command().env("HF_TOKEN", TOKEN).output().unwrap());
    loaded.assert_complete();
    bench.assert_weights();
    let Outcome::Complete { source, inputs, .. } = &loaded.outcome else { unreachable!() };
    assert_eq!(source.architecture.as_deref(), Some("LlamaForCausalLM"));
    assert_eq!(source.format.as_deref(), Some("safetensors"));
    let manifest = bench.manifest().unwrap();
    assert_eq!(manifest["inputs"], inputs.as_str());
    assert_eq!(manifest["revision"], source.revision.clone().unwrap());
    assert_eq!(manifest["files"].as_array().unwrap().len(), usize::try_from(source.files).unwrap());
    let told: Outcome = serde_json::from_slice(&std::fs::read(bench.folder.path().join("outcome")).unwrap()).unwrap();
    assert_eq!(told, loaded.outcome);
}

#[test]
fn the_cdn_never_sees_the_token_and_gets_each_byte_asked_for_once() {
    let bench = Bench::with_weights(64 * MIB);
    Loaded::of(bench.command().env("HF_TOKEN", TOKEN).output().unwrap()).assert_complete();
    let stats = bench.hub.stats();
    assert!(stats.hub.authorization_headers > 0, "the hub did get it");
    assert_eq!(stats.cdn.authorization_headers, 0);
    assert_eq!(stats.cdn.bytes_with("model.safetensors"), 64 * MIB);
    assert!(stats.cdn.max_open_connections > 1, "several ranges at a time");
    assert_eq!(
        stats.hub.requests_with("resolve/"),
        stats.hub.requests_with("config.json") + stats.hub.requests_with("model.safetensors")
    );
    assert_eq!(stats.hub.requests_with("model.safetensors"), 1, "ranges go where the first redirect led");
}

#[test]
fn a_second_run_asks_nobody() {
    let bench = Bench::with_weights(MIB);
    bench.load().assert_complete();
    bench.hub.reset_stats();
    bench.load().assert_complete();
    let stats = bench.hub.stats();
    assert!(stats.hub.requests.is_empty() && stats.cdn.requests.is_empty(), "{stats:?}");
    // A manifest speaks only of files that are there.
    std::fs::remove_file(bench.artifact("model.safetensors")).unwrap();
    bench.load().assert_complete();
    bench.assert_weights();
    assert_eq!(bench.hub.stats().cdn.bytes_with("model.safetensors"), MIB);
}

#[test]
fn another_load_into_the_same_place_takes_it_over() {
    let bench = Bench::with_weights(20 * MIB);
    bench.load().assert_complete();
    let repo = Repo::model("acme/tiny")
        .file("new.json", "{}")
        .file("model.safetensors", Content::noise(7, 20 * MIB))
        .without("config.json");
    bench.hub.put(repo).unwrap();
    bench.hub.reset_stats();
    Loaded::of(bench.command().args(["--param", "again=1"]).output().unwrap()).assert_complete();
    bench.assert_weights();
    assert!(bench.artifact("new.json").exists() && !bench.artifact("config.json").exists());
    assert_eq!(bench.hub.stats().cdn.bytes, 0, "weights of the same digest are not fetched again");
}

#[test]
fn a_hub_without_hurry_is_waited_for() {
    let bench = Bench::with_weights(4 * MIB);
    bench.hub.fault(Rule::api("", Fault::TooManyRequests { seconds: 1 }).once());
    bench.hub.fault(Rule::resolve("model.safetensors", Fault::TooManyRequests { seconds: 1 }).once());
    bench.load().assert_complete();
    bench.assert_weights();
    assert_eq!(bench.hub.stats().hub.statuses.get(&429), Some(&2));
}
