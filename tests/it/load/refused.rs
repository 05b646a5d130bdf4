//! Loads that cannot go well, and say why.

use substratus_tests::hub::{Fault, Gated, Rule};

use super::*;

fn repo() -> Repo {
    Repo::model("acme/tiny").file("config.json", "{}").file("model.safetensors", Content::noise(7, MIB)).lfs_threshold(1000)
}

#[test]
fn a_gated_repository_says_where_to_ask() {
    let bench = Bench::new(Hub::builder().token(TOKEN).repo(repo().gated(Gated::Manual).reader("hf_reader")));
    let page = format!("{}/acme/tiny", bench.hub.url);
    bench.load().assert_failed("NeedsAuth", true, &[&page, "HF_TOKEN", "secrets."]);
    Loaded::of(bench.command().env("HF_TOKEN", TOKEN).output().unwrap()).assert_failed("Gated", true, &[&page, "HF_TOKEN"]);
    assert_eq!(bench.hub.stats().cdn.bytes, 0);
    Loaded::of(bench.command().env("HF_TOKEN", "hf_reader").output().unwrap()).assert_complete();
    bench.assert_weights();
}

#[test]
fn a_private_repository_asks_for_a_token() {
    let bench = Bench::new(Hub::builder().repo(repo().private().reader(TOKEN)));
    bench.load().assert_failed("NotFound", true, &["HF_TOKEN"]);
    Loaded::of(bench.command().env("HF_TOKEN", "hf_wrong").output().unwrap()).assert_failed("NeedsAuth", true, &["HF_TOKEN"]);
    Loaded::of(bench.command().env("HF_TOKEN", TOKEN).output().unwrap()).assert_complete();
}

#[test]
fn what_does_not_exist_is_said_once() {
    let bench = Bench::new(Hub::builder());
    bench.load().assert_failed("NotFound", true, &["acme/tiny"]);
}

#[test]
fn a_hub_that_asks_to_come_back_much_later_is_not_waited_for() {
    let bench = Bench::with_weights(MIB);
    bench.hub.fault(Rule::api("", Fault::TooManyRequests { seconds: 40_000 }));
    let loaded = bench.load();
    // The operator keeps to the time that was named; the Job would not.
    loaded.assert_failed("RateLimited", true, &["40000 s"]);
    assert!(matches!(loaded.outcome, Outcome::Failed { retry_after: Some(40_000), .. }), "{}", loaded.everything);
}

#[test]
fn a_hub_that_is_down_is_a_passing_trouble() {
    let bench = Bench::with_weights(MIB);
    let mut command = bench.command();
    drop(bench.hub);
    Loaded::of(command.output().unwrap()).assert_failed("Unavailable", false, &[]);
}

#[test]
fn a_path_that_leaves_the_target_stops_everything() {
    let bench = Bench::new(Hub::builder().repo(repo().file("../../escaped.json", "{}")));
    bench.load().assert_failed("PluginFailed", true, &["escaped.json"]);
    assert!(!bench.folder.path().join("escaped.json").exists() && !bench.artifact("config.json").exists());
}

#[test]
fn a_cdn_that_nobody_granted_is_not_asked() {
    let bench = Bench::new(Hub::builder().repo(repo()));
    let mut command = Command::new(program());
    let granted = bench.command();
    let mut arguments = granted.get_args().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--grant" && arguments.peek().is_some_and(|next| *next == bench.hub.cdn_url.as_str()) {
            arguments.next();
        } else {
            command.arg(argument);
        }
    }
    Loaded::of(command.output().unwrap()).assert_failed("PluginDenied", true, &[&bench.hub.cdn_url, "grant"]);
    assert!(bench.hub.stats().cdn.requests.is_empty());
}
