//! `substratus plan`: what would be fetched, and who may.

use serde_json::Value;
use substratus_tests::hub::Gated;

use super::*;

const CARD: &str = "---\nlicense: apache-2.0\n---\n# Tiny\n";

fn repo() -> Repo {
    Repo::model("acme/tiny")
        .file("config.json", r#"{"architectures":["LlamaForCausalLM"]}"#)
        .file("README.md", CARD)
        .file("model.safetensors", Content::noise(7, 3 * MIB))
        .file("pytorch_model.bin", Content::noise(8, 3 * MIB))
}

/// Exit code, standard output and standard error of a plan.
fn plan(bench: &Bench, source: &str, token: Option<&str>, args: &[&str]) -> (i32, String, String) {
    let mut command = bench.command_for("plan", source);
    command.args(args);
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_plan_says_what_would_be_fetched_and_fetches_nothing() {
    let bench = Bench::new(Hub::builder().repo(repo()));
    let (code, out, err) = plan(&bench, "hf://acme/tiny", None, &[]);
    let commit = bench.hub.commit(substratus_tests::hub::Kind::Model, "acme/tiny", "main").unwrap();
    assert_eq!((code, err.as_str()), (0, ""));
    let expected = [
        format!("hf://acme/tiny at revision {commit}").as_str(),
        "license  apache-2.0",
        "format   safetensors",
        "access   anybody may read it",
        "total    3 files, 3.0 MiB",
        "       35 B  README.md",
        "       38 B  config.json",
        "    3.0 MiB  model.safetensors",
    ]
    .join("\n");
    assert_eq!(out.trim_end(), expected);
    let stats = bench.hub.stats();
    assert_eq!((stats.hub.requests_with("/resolve/"), stats.cdn.requests.len()), (0, 0), "{stats:?}");

    let (code, out, _) = plan(&bench, "hf://acme/tiny", None, &["-o", "json", "--include", "*.bin"]);
    let planned: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &planned["outcome"], &planned["access"]), (0, &"planned".into(), &"public".into()), "{out}");
    assert_eq!((&planned["bytes"], &planned["list"][0]["path"]), (&(3 * MIB).into(), &"pytorch_model.bin".into()));
    assert_eq!(planned["list"][0]["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn a_plan_of_a_gated_repository_says_what_that_means_for_this_token() {
    let bench = Bench::new(Hub::builder().token(TOKEN).repo(repo().gated(Gated::Manual).reader("hf_reader")));
    for (token, code, words) in [
        (None, 65, &["access   gated, and a load would fail: ", "NeedsAuth", "/acme/tiny", "HF_TOKEN"][..]),
        (Some(TOKEN), 66, &["access   gated, and a load would fail: ", "Gated", "/acme/tiny"]),
        (Some("hf_reader"), 0, &["access   gated; the token given may read it"]),
    ] {
        let (found, out, err) = plan(&bench, "hf://acme/tiny", token, &[]);
        assert_eq!((found, err.as_str()), (code, ""), "{out}");
        assert!(out.contains("3.0 MiB  model.safetensors"), "{out}");
        for word in words {
            assert!(out.contains(word), "`{word}` is not in {out}");
        }
    }
    let (code, out, _) = plan(&bench, "hf://acme/tiny", None, &["-o", "json"]);
    let planned: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &planned["access"]), (65, &"gated".into()), "{out}");
    assert!(planned["refused"].as_str().unwrap().contains("HF_TOKEN"));
    assert_eq!(bench.hub.stats().cdn.requests.len(), 0);
}

#[test]
fn a_plan_that_cannot_be_made_ends_as_a_load_would() {
    let bench =
        Bench::new(Hub::builder().repo(repo()).repo(Repo::model("acme/secret").private().reader(TOKEN).file("a.txt", "a")));
    let (code, out, err) = plan(&bench, "hf://acme/tini", None, &[]);
    assert_eq!((code, out.as_str()), (68, ""));
    assert!(err.contains("did you mean acme/tiny?") && err.trim_end().ends_with("(NotFound)"), "{err}");
    let (code, out, _) = plan(&bench, "hf://acme/tiny", None, &["-o", "json", "--no-pickle", "--format", "pytorch"]);
    assert!(code == 64 && out.contains("pytorch_model.bin") && out.contains("\"Refused\""), "{code}: {out}");
    assert!(plan(&bench, "hf://acme/secret", Some(TOKEN), &[]).1.contains("access   private; the token given may read it"));
}

#[test]
fn a_plan_of_a_data_set_asks_the_importer() {
    let bench = Bench::new(Hub::builder().repo(Repo::dataset("acme/data").file("README.md", CARD).file("own.csv", "n\n1\n")));
    let (code, out, err) = plan(&bench, "hf://datasets/acme/data", None, &["--param", "format=files"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("license  apache-2.0") && out.contains("        4 B  own.csv"), "{out}");
    assert_eq!(bench.hub.stats().hub.requests_with("/resolve/"), 0);
}
