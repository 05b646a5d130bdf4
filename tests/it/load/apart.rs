//! Failures that scripts tell apart by the exit code alone, and that say what to do.

use substratus_tests::hub::{Fault, Gated, Rule};

use super::*;

fn repo() -> Repo {
    Repo::model("acme/tiny").file("config.json", "{}").file("model.safetensors", Content::noise(7, MIB)).lfs_threshold(1000)
}

/// What `source` of `hub` comes to with this token.
fn ends(hub: Builder, source: &str, token: Option<&str>, faults: &[Rule]) -> (i32, String) {
    let bench = Bench::new(hub);
    for rule in faults {
        bench.hub.fault(rule.clone());
    }
    let mut command = bench.command_for("load", source);
    bench.to_folder(&mut command);
    command.args(["-o", "json"]);
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let loaded = Loaded::of(command.output().unwrap());
    let Outcome::Failed { reason, message, .. } = &loaded.outcome else { panic!("{}", loaded.everything) };
    (loaded.code.unwrap(), format!("{reason}: {message}"))
}

#[test]
fn each_failure_has_its_code_and_says_what_to_do() {
    let (hub, tiny) = (|| Hub::builder().token(TOKEN), "hf://acme/tiny");
    let gated = || hub().repo(repo().gated(Gated::Manual));
    let wrong = Rule::cdn("model.safetensors", Fault::WrongByte);
    let later = Rule::api("", Fault::TooManyRequests { seconds: 40_000 });
    let refused = |status| Rule::resolve("model.safetensors", Fault::Status(status));
    let cases: [(i32, (i32, String), &[&str]); 12] = [
        (64, ends(hub(), "hf://acme/tiny/x", None, &[]), &["Invalid: ", "spec.source"]),
        (65, ends(gated(), tiny, None, &[]), &["NeedsAuth: ", "/acme/tiny", "spec.env.HF_TOKEN: ${{ secrets.NAME.KEY }}"]),
        (65, ends(hub().repo(repo()), tiny, None, &[refused(403)]), &["NeedsAuth: ", "`model.safetensors`"]),
        (66, ends(gated(), tiny, Some(TOKEN), &[]), &["Gated: ", "/acme/tiny", "spec.env.HF_TOKEN: ${{ secrets.NAME.KEY }}"]),
        (67, ends(hub().repo(repo()), tiny, None, &[later]), &["RateLimited: ", "40000 s, until 20", "Z"]),
        (68, ends(hub().repo(repo()), "hf://acme/tinny", None, &[]), &["NotFound: ", "did you mean acme/tiny?"]),
        (
            68,
            ends(hub().repo(repo().revision("v1.0")), "hf://acme/tiny@v1.1", None, &[]),
            &["NotFound: ", "no revision \"v1.1\"", "did you mean v1.0?"],
        ),
        (69, ends(hub().repo(repo().disabled()), tiny, None, &[]), &["Disabled: ", "acme/tiny was disabled"]),
        (
            70,
            ends(hub().repo(repo()), tiny, Some(TOKEN), &[Rule::api("tree", Fault::Status(403))]),
            &["Forbidden: ", "HF_TOKEN may not read acme/tiny", "/settings/tokens"],
        ),
        (70, ends(hub().repo(repo()), tiny, Some(TOKEN), &[refused(403)]), &["Forbidden: ", "`model.safetensors`", "token"]),
        (69, ends(hub().repo(repo()), tiny, None, &[refused(451)]), &["Disabled: ", "legal reasons"]),
        (72, ends(hub().repo(repo()), tiny, None, &[wrong]), &["DigestMismatch: ", "`model.safetensors`"]),
    ];
    for (code, (found, message), words) in cases {
        assert_eq!(found, code, "{message}");
        for word in words {
            assert!(message.contains(word), "`{word}` is not in: {message}");
        }
    }
}

#[test]
fn a_gated_repository_without_a_configuration_is_refused_before_its_files() {
    let weights = Repo::model("acme/tiny").file("model.gguf", Content::noise(7, MIB)).lfs_threshold(1000);
    let bench = Bench::new(Hub::builder().token(TOKEN).repo(weights.gated(Gated::Auto).reader("hf_reader")));
    Loaded::of(bench.command().env("HF_TOKEN", TOKEN).output().unwrap()).assert_failed("Gated", true, &["/acme/tiny"]);
    assert_eq!(bench.hub.stats().hub.requests_with("GET /acme/tiny/resolve/"), 0);
    Loaded::of(bench.command().env("HF_TOKEN", "hf_reader").output().unwrap()).assert_complete();
}

#[test]
fn the_help_says_the_same() {
    for command in ["load", "plan", "import", "stage", "publish"] {
        let help = Command::new(program()).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        assert!(help.contains("65 NeedsAuth, 66 Gated") && help.contains("72 DigestMismatch"), "{command}: {help}");
    }
}

#[test]
fn pickles_are_refused_by_name_where_they_are_not_wanted() {
    let pickles = Repo::model("acme/tiny").file("config.json", "{}").file("pytorch_model.bin", "x").file("extra/old.ckpt", "x");
    let bench = Bench::new(Hub::builder().repo(pickles.clone()));
    let refused = Loaded::of(bench.command().arg("--no-pickle").output().unwrap());
    refused.assert_failed("Refused", true, &["extra/old.ckpt, pytorch_model.bin", "allowPickle"]);
    assert_eq!((refused.code, bench.hub.stats().cdn.bytes), (Some(64), 0));
    bench.load().assert_complete();
    // Where something safer is there, it is taken, and the pickles are none of its files.
    let bench = Bench::new(Hub::builder().repo(pickles.file("model.safetensors", Content::noise(7, MIB))));
    Loaded::of(bench.command().arg("--no-pickle").output().unwrap()).assert_complete();
    bench.assert_weights();
}

#[test]
fn a_disk_that_is_too_small_is_told_with_both_numbers_before_the_first_byte() {
    let bench = Bench::with_weights(16 * MIB);
    let inner = bench.command();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-ec"]);
    // A disk of its own, which is gone with the process.
    command.arg(r#"mkdir -p "$1"; mount -t tmpfs -o size=8m tmpfs "$1"; shift; exec "$@""#).arg("sh").arg(bench.target());
    command.arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let full = Loaded::of(command.output().unwrap());
    full.assert_failed("TooLarge", true, &["need 16777", "free", "make room"]);
    assert_eq!((full.code, bench.hub.stats().cdn.bytes), (Some(71), 0));
}
