//! Artifacts into a registry.

use std::time::{Duration, Instant};

use substratus_tests::registry::proxied::{Fault, PASSWORD, Rule};
use substratus_tests::seeds;

use super::*;

/// Seeds of a normal run.
const FEW: u64 = 10;

#[test]
fn a_folder_is_pushed_as_modelpack_has_it_and_a_second_push_sends_nothing() {
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    let first = ended(bench.push(&folder, ":v1"));
    first.assert_complete();
    bench.assert_pushed("v1", &folder);
    let (digest, manifest) = bench.manifest("v1").unwrap();
    assert_eq!(revision(&first), (digest.clone(), 0));
    assert_eq!(manifest["artifactType"], "application/vnd.cncf.model.manifest.v1+json");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.cncf.model.config.v1+json");
    let config: Value = serde_json::from_slice(
        &std::fs::read(bench.registry.blob(manifest["config"]["digest"].as_str().unwrap()).unwrap()).unwrap(),
    )
    .unwrap();
    assert_eq!(config["modelfs"]["diffIds"].as_array().unwrap().len(), 5);
    let kinds: Vec<&str> =
        manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect();
    let kind = |part: &str| format!("application/vnd.cncf.model.{part}.v1.raw");
    let expected = ["doc", "weight.config", "weight.config", "weight", "weight.config"].map(kind);
    assert_eq!(kinds, expected);
    // The same content lies there once, the large file came in pieces, and nothing twice.
    let stored = bench.registry.stored();
    assert_eq!(stored.len(), 5, "{stored:?}");
    assert_eq!(bench.registry.asked().iter().filter(|asked| asked.line.starts_with("PATCH ")).count(), 3);

    let before = (bench.registry.asked().len(), bench.registry.received());
    let again = ended(bench.push(&folder, ":v1"));
    again.assert_complete();
    assert_eq!(revision(&again).0, digest);
    assert_eq!((bench.registry.asked().len() - before.0, bench.registry.received()), (1, before.1), "one question was enough");
    // Another tag of the same is one more manifest, and no blob.
    let other = ended(bench.push(&folder, ":v2"));
    let bytes = sums(&folder).keys().map(|path| folder.join(path).metadata().unwrap().len()).sum::<u64>();
    assert_eq!(revision(&other), (digest, bytes - 2), "but for the file that lies there under another name, all were there");
    assert_eq!(bench.registry.stored().len(), 5);
}

#[test]
fn what_a_load_left_is_pushed_by_its_record_and_not_where_it_was_changed() {
    let bench = Bench::new();
    ended(bench.push(&bench.written(SIZE), ":v1")).assert_complete();
    ended(bench.load(":v1", "model")).assert_complete();
    let artifact = bench.path("model");
    let pushed = ended(bench.push(&artifact, ":copy"));
    pushed.assert_complete();
    assert!(!pushed.everything.contains("hashed first"), "{}", pushed.everything);
    // The load has found out what the weights are; the files are the same, and a second copy is the same artifact.
    let (copy, manifest) = bench.manifest("copy").unwrap();
    assert_eq!(manifest["layers"], bench.manifest("v1").unwrap().1["layers"]);
    ended(bench.load(":copy", "again")).assert_complete();
    assert_eq!(revision(&ended(bench.push(&bench.path("again"), ":third"))).0, copy);
    // Changed after it was complete, with its size: found out while it is read, before anything counts.
    let weights = artifact.join("artifacts/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    bytes[SIZE / 2] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    let elsewhere =
        bench.command(&["push", artifact.to_str().unwrap(), "--to", &format!("oci://{}/team/other:v1", bench.registry.host)]);
    ended(elsewhere).assert_failed("DigestMismatch", true, &["model.safetensors", "changed after it was complete"]);
    assert!(bench.runtime.block_on(bench.registry.manifest("team/other", "v1")).unwrap().is_none());
    std::fs::write(&weights, "shorter").unwrap();
    ended(bench.push(&artifact, ":again")).assert_failed("DigestMismatch", true, &["model.safetensors"]);
}

#[test]
fn what_a_folder_leads_out_to_is_not_pushed() {
    use std::os::unix::fs::symlink;
    let bench = Bench::new();
    let folder = bench.written(7);
    std::fs::write(bench.path("account"), "of somebody").unwrap();
    symlink(bench.path("account"), folder.join("out.json")).unwrap();
    let done = ended(bench.push(&folder, ":v1"));
    done.assert_complete();
    assert!(done.everything.contains("leads out of the folder"), "{}", done.everything);
    std::fs::remove_file(folder.join("out.json")).unwrap();
    bench.assert_pushed("v1", &folder);

    // A record names what lies beside it, and no link that took a file's place.
    ended(bench.load(":v1", "model")).assert_complete();
    let config = bench.path("model/artifacts/config.json");
    std::fs::remove_file(&config).unwrap();
    symlink(bench.path("account"), &config).unwrap();
    let refused = ended(bench.push(&bench.path("model"), ":v2"));
    refused.assert_failed("Refused", true, &["config.json"]);
}

#[test]
fn accounts_are_shown_to_their_registry_and_their_lack_is_told() {
    let bench = Bench::private();
    let folder = bench.written(7);
    let host = bench.registry.host.clone();
    ended(bench.push(&folder, ":v1")).assert_failed(
        "NeedsAuth",
        true,
        &["UNAUTHORIZED", "spec.publishSecret", "docker login", &host],
    );
    let with = |config: PathBuf| {
        let mut command = bench.push(&folder, ":v1");
        command.arg("--docker-config").arg(config);
        command
    };
    let wrong = ended(with(bench.login("a guess")));
    wrong.assert_failed("NeedsAuth", true, &[]);
    assert!(!wrong.everything.contains("a guess"), "{}", wrong.everything);
    assert!(bench.manifest("v1").is_none());
    ended(with(bench.login(PASSWORD))).assert_complete();
    bench.assert_pushed("v1", &folder);
    // An account of another registry stays at home.
    let before = bench.registry.asked().len();
    let elsewhere = bench.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("config.json"), docker_config("ghcr.io", PASSWORD).to_string()).unwrap();
    ended(with(elsewhere)).assert_failed("NeedsAuth", true, &[]);
    assert!(bench.registry.asked().split_off(before).iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn refusals_have_names() {
    let denied = r#"{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}"#;
    let quota = r#"{"errors": [{"code": "DENIED", "message": "adding 5 MiB would exceed the quota of the project"}]}"#;
    let unknown = r#"{"errors": [{"code": "NAME_UNKNOWN", "message": "repository name not known to registry"}]}"#;
    for (status, text, reason, words) in [
        (403, denied, "Forbidden", "is denied"),
        (403, quota, "TooLarge", "quota"),
        (413, "", "TooLarge", "413"),
        (507, "", "TooLarge", "507"),
        (404, unknown, "NotFound", "NAME_UNKNOWN"),
        (405, "", "Unsupported", "takes no pushes"),
        (400, "", "Refused", "400"),
    ] {
        let bench = Bench::new();
        bench.registry.fault(Rule { method: "POST", part: "/blobs/uploads/", fault: Fault::Answer(status, text), times: 99 });
        ended(bench.push(&bench.written(7), ":v1")).assert_failed(reason, true, &[words]);
        assert!(bench.manifest("v1").is_none());
    }
    let bench = Bench::new();
    let nobody = bench.command(&["push", bench.written(7).to_str().unwrap(), "--to", "oci://127.0.0.1:1/team/model:v1"]);
    let mut nobody = nobody;
    nobody.args(["--plain-http", "127.0.0.1:1"]);
    ended(nobody).assert_failed("Unavailable", false, &["127.0.0.1:1"]);
    ended(bench.push(&bench.path("none"), ":v1")).assert_failed("NotFound", true, &["none"]);
    let digest = format!("@sha256:{}", "0".repeat(64));
    ended(bench.push(&bench.written(7), &digest)).assert_failed("Invalid", true, &["name a tag"]);
}

#[test]
fn a_lost_request_is_gone_on_with_and_a_cut_one_costs_its_file_at_most() {
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::Slow(1 << 40), times: 1 });
    bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::Reset, times: 2 });
    bench.registry.fault(Rule { method: "PUT", part: "digest=", fault: Fault::LostAnswer, times: 1 });
    bench.registry.fault(Rule { method: "PUT", part: "/manifests/", fault: Fault::Reset, times: 1 });
    bench.registry.fault(Rule { method: "HEAD", part: "/blobs/", fault: Fault::Answer(503, ""), times: 2 });
    ended(bench.push(&folder, ":v1")).assert_complete();
    bench.assert_pushed("v1", &folder);
    let sent = bench.registry.received();
    assert!(sent < (SIZE + MIB) as u64, "{sent} bytes arrived of {SIZE}");
    let asks = |asked: &substratus_tests::registry::proxied::Asked| {
        asked.line.starts_with("GET ") && asked.line.contains("/blobs/uploads/")
    };
    assert!(bench.registry.asked().iter().any(asks), "it did not ask how far it was");

    // Cut in the second piece: this registry forgets such an upload.
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::Slow(1 << 40), times: 1 });
    bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::CutAfter(9 << 20), times: 1 });
    bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::LostAnswer, times: 1 });
    ended(bench.push(&folder, ":v1")).assert_complete();
    bench.assert_pushed("v1", &folder);
}

#[test]
fn a_registry_that_forgets_an_upload_or_takes_no_pieces_gets_it_all_the_same() {
    let bench = Bench::new();
    let folder = bench.written(SIZE);
    let unknown = r#"{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN", "message": "blob upload unknown to registry"}]}"#;
    bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::Answer(404, unknown), times: 1 });
    ended(bench.push(&folder, ":v1")).assert_complete();
    bench.assert_pushed("v1", &folder);
    for status in [405, 416] {
        let bench = Bench::new();
        let folder = bench.written(SIZE);
        bench.registry.fault(Rule { method: "PATCH", part: "", fault: Fault::Answer(status, ""), times: 99 });
        ended(bench.push(&folder, ":v1")).assert_complete();
        bench.assert_pushed("v1", &folder);
        let whole =
            bench.registry.asked().into_iter().filter(|asked| asked.line.starts_with("PATCH ") && asked.status == Some(202));
        assert_eq!(whole.count(), 0, "it came in one request");
    }
}

#[test]
fn a_registry_that_asks_to_wait_is_waited_for() {
    let bench = Bench::new();
    let folder = bench.written(7);
    bench.registry.fault(Rule { method: "POST", part: "/blobs/uploads/", fault: Fault::Answer(429, ""), times: 2 });
    ended(bench.push(&folder, ":v1")).assert_complete();
    bench.assert_pushed("v1", &folder);
}

#[test]
fn memory_stays_bounded_whatever_the_size() {
    let bench = Bench::new();
    let folder = bench.written(400 * MIB);
    for number in 0..8 {
        std::fs::write(folder.join(format!("more-{number}.bin")), noise(20 * MIB + number)).unwrap();
    }
    let (loaded, peak) = Loaded::with_peak(&mut bench.push(&folder, ":v1"));
    loaded.assert_complete();
    assert!(peak > 0 && peak < 128 * 1024, "{peak} KiB were resident");
    bench.assert_pushed("v1", &folder);
}

#[test]
fn chaos_a_push_killed_at_any_moment_leaves_nothing_that_counts_and_sends_no_blob_twice() {
    for seed in seeds::all(FEW).unwrap() {
        let (mut chance, bench) = (seed.begin(), Bench::new());
        let folder = bench.written(SIZE);
        for number in 0..4 {
            std::fs::write(folder.join(format!("shard-{number}.bin")), noise(3 * MIB + number)).unwrap();
        }
        let total: u64 = sums(&folder).keys().map(|path| folder.join(path).metadata().unwrap().len()).sum();
        for _ in 0..chance.number(1..5) {
            bench.registry.clear_faults();
            bench.registry.fault(Rule {
                method: "PATCH",
                part: "",
                fault: Fault::Slow(chance.number(20 << 20..200 << 20)),
                times: 99,
            });
            let (begun, far) = (bench.registry.received(), chance.number(0..total));
            let mut child = bench.push(&folder, ":v1").spawn().unwrap();
            let (started, early, by_bytes) = (Instant::now(), chance.pause(0..400), chance.number(0..4) > 0);
            while child.try_wait().unwrap().is_none() {
                let now = if by_bytes { bench.registry.received() - begun >= far } else { started.elapsed() >= early };
                if now {
                    let signal =
                        if chance.number(0..4) == 0 { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
                    // It may have ended by itself.
                    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal);
                    break;
                }
                assert!(started.elapsed() < Duration::from_mins(2), "the push neither moves nor ends");
                std::thread::sleep(Duration::from_millis(5));
            }
            child.wait_with_output().unwrap();
            if bench.manifest("v1").is_some() {
                bench.assert_pushed("v1", &folder);
            }
        }
        bench.registry.clear_faults();
        ended(bench.push(&folder, ":v1")).assert_complete();
        bench.assert_pushed("v1", &folder);
        let mut stored = bench.registry.stored();
        let count = stored.len();
        stored.sort();
        stored.dedup();
        assert_eq!(stored.len(), count, "a blob that was there was sent again");
    }
}
