//! Bytes that come wrong, short, long, slowly or not at all.

use std::time::Duration;

use substratus_tests::hub::{Fault, Rule};

use super::*;

const SIZE: u64 = 40 * MIB;

/// The load gets over `rule`.
fn survives(rule: Rule) -> Bench {
    let bench = Bench::with_weights(SIZE);
    bench.hub.fault(rule);
    bench.load().assert_complete();
    bench.assert_weights();
    bench
}

#[test]
fn cut_connections_are_taken_up_where_they_broke() {
    let bench = survives(Rule::cdn("model.safetensors", Fault::CutAfter(5 * MIB)).times(3));
    let fetched = bench.hub.stats().cdn.bytes;
    assert!(fetched < SIZE + 12 * MIB, "{} MiB for {} MiB", fetched / MIB, SIZE / MIB);
}

#[test]
fn a_connection_that_stalls_is_replaced() {
    survives(Rule::cdn("model.safetensors", Fault::StallAfter(MIB)).once());
}

#[test]
fn short_and_long_bodies_do_not_pass() {
    survives(Rule::cdn("model.safetensors", Fault::ShortBody(1000)).once());
    survives(Rule::cdn("model.safetensors", Fault::ExtraBody(1000)).once());
    survives(Rule::cdn("model.safetensors", Fault::CutAfter(0)).once());
}

#[test]
fn a_server_that_fails_now_and_then_is_asked_again() {
    survives(Rule::cdn("model.safetensors", Fault::Status(503)).times(2));
    let bench = Bench::with_weights(SIZE);
    bench.hub.fault(Rule::resolve("config.json", Fault::Status(500)).once());
    let Outcome::Complete { source, .. } = bench.load().outcome else { panic!("the load failed") };
    assert_eq!(source.architecture.as_deref(), Some("LlamaForCausalLM"), "what an engine is chosen by was lost");
    survives(Rule::api("", Fault::Status(502)).once());
}

#[test]
fn an_expired_url_is_asked_for_anew() {
    let bench = survives(Rule::cdn("model.safetensors", Fault::Expired).times(2));
    assert!(bench.hub.stats().hub.requests_with("model.safetensors") > 1);
}

#[test]
fn a_wrong_byte_is_found_and_its_range_fetched_again() {
    let bench = survives(Rule::cdn("model.safetensors", Fault::WrongByte).at(0).once());
    let again = bench.hub.stats().cdn.bytes - SIZE;
    assert!((1..=17 * MIB).contains(&again), "{again} bytes came again");
}

#[test]
fn a_signed_url_is_left_before_it_ends() {
    let repo = Repo::model("acme/tiny").file("config.json", "{}").file("model.safetensors", Content::noise(7, 2 * SIZE));
    let bench = Bench::new(Hub::builder().url_ttl(Duration::from_secs(2)).repo(repo));
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(12 * MIB)));
    Loaded::of(bench.command().args(["--connections", "2"]).output().unwrap()).assert_complete();
    bench.assert_weights();
    let stats = bench.hub.stats();
    assert_eq!(stats.cdn.statuses.get(&403), None, "{stats:?}");
    assert!(stats.hub.requests_with("model.safetensors") > 1);
}

#[test]
fn an_outage_in_the_middle_is_waited_for() {
    let bench = Bench::with_weights(SIZE);
    // As often as three attempts would ask.
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::Status(502)).at(SIZE - 1).times(3));
    bench.load().assert_complete();
    bench.assert_weights();
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::Status(502)).at(SIZE - 1));
    std::fs::remove_dir_all(bench.target()).unwrap();
    let loaded = Loaded::of(bench.command().args(["--outage", "0"]).output().unwrap());
    loaded.assert_failed("Unavailable", false, &["model.safetensors", "502"]);
}

#[test]
fn bytes_that_are_always_wrong_fail_the_load_for_good() {
    let bench = Bench::with_weights(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::WrongByte));
    bench.load().assert_failed("DigestMismatch", true, &["model.safetensors", "sha256"]);
    assert!(bench.manifest().is_none());
    assert!(!bench.artifact("model.safetensors").exists());
}

#[test]
fn a_server_that_always_cuts_is_given_up_for_now() {
    let bench = Bench::with_weights(SIZE);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::CutAfter(100)));
    bench.load().assert_failed("Unavailable", false, &["model.safetensors"]);
}
