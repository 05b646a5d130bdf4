//! Registries and manifests that lie. Nothing of them leaves the target, and no account leaves for where it does not belong.

use serde_json::json;
use substratus_tests::registry::proxied::{Fault, MANIFEST, PASSWORD, Rule, digest};

use super::*;

const RAW: &str = "application/vnd.cncf.model.weight.v1.raw";

impl Bench {
    fn blob_of(&self, bytes: &[u8]) -> String {
        self.runtime.block_on(self.registry.put_blob(REPOSITORY, bytes)).unwrap()
    }

    fn put(&self, tag: &str, layers: &[Value]) {
        let config = self.blob_of(b"{}");
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": {"mediaType": "application/vnd.cncf.model.config.v1+json", "digest": config, "size": 2}});
        self.runtime.block_on(self.registry.put_manifest(REPOSITORY, tag, &manifest)).unwrap();
    }
}

fn layer(path: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": RAW, "digest": digest, "size": size, "annotations": {"org.cncf.model.filepath": path}})
}

#[test]
fn paths_that_leave_the_model_or_meet_are_refused_before_a_byte() {
    let bench = Bench::new();
    let (one, two) = (bench.blob_of(b"one"), bench.blob_of(b"two"));
    let cases: [(&str, Vec<Value>, &str); 6] = [
        ("up", vec![layer("../x", &one, 3)], "outside of the model"),
        ("absolute", vec![layer("/etc/x", &one, 3)], "outside of the model"),
        ("inside-up", vec![layer("a/../../x", &one, 3)], "outside of the model"),
        ("twice", vec![layer("x", &one, 3), layer("x", &two, 3)], "differ"),
        ("case", vec![layer("x", &one, 3), layer("X", &two, 3)], "differs from another only in case"),
        ("folder", vec![layer("x", &one, 3), layer("x/y", &two, 3)], "file and a folder"),
    ];
    for (tag, layers, words) in cases {
        bench.put(tag, &layers);
        let before = bench.registry.asked().len();
        let refused = ended(bench.load(&format!(":{tag}"), tag));
        assert!(refused.code.is_some_and(|code| code >= 64), "{tag}: {}", refused.everything);
        assert!(refused.everything.contains(words), "{tag}: {}", refused.everything);
        let blobs = [one.as_str(), two.as_str()];
        let fetched = bench
            .registry
            .asked()
            .split_off(before)
            .into_iter()
            .filter(|asked| blobs.iter().any(|blob| asked.line.contains(blob)));
        assert_eq!(fetched.count(), 0, "{tag}");
    }
    assert!(!bench.folder.path().join("x").exists() && !std::path::Path::new("/etc/x").exists());
}

#[test]
fn sizes_and_digests_that_are_not_true_end_the_load() {
    let bench = Bench::new();
    let blob = bench.blob_of(&noise(100));
    for (tag, size) in [("short", 99), ("long", 101), ("huge", 1 << 60)] {
        bench.put(tag, &[layer("x", &blob, size)]);
        let refused = ended(bench.load(&format!(":{tag}"), tag));
        assert!(refused.code != Some(0), "{tag}: {}", refused.everything);
        assert!(!bench.path(tag).join(".substratus/manifest.json").exists(), "{tag}");
    }
    ended(bench.load(":huge", "huge")).assert_failed("TooLarge", true, &["bytes"]);
    // A manifest that is not what its digest says, in a registry that does not look.
    bench.put("v1", &[layer("x", &blob, 100)]);
    let (found, _) = bench.manifest("v1").unwrap();
    let other = digest(b"something else");
    bench.registry.fault(Rule { method: "GET", part: "/manifests/", fault: Fault::Answer(200, r#"{"layers": []}"#), times: 99 });
    let refused = ended(bench.load(&format!("@{other}"), "other"));
    assert!(refused.everything.contains("where sha256:") && refused.code == Some(1), "{}", refused.everything);
    assert_ne!(found, other);
}

#[test]
fn manifests_of_something_else_say_so() {
    let bench = Bench::new();
    for (text, words) in [
        (r#"{"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}"#, "index of 0 manifests"),
        ("no JSON at all", "none of the known form"),
        (r#"{"layers": [{"digest": "md5:00", "size": 1, "annotations": {"org.cncf.model.filepath": "x"}}]}"#, "no sha256"),
        (r#"{"layers": [{"digest": "sha256:00", "size": -1}]}"#, "none of the known form"),
    ] {
        bench.registry.clear_faults();
        bench.registry.fault(Rule { method: "GET", part: "/manifests/", fault: Fault::Answer(200, text), times: 99 });
        ended(bench.load(":v1", "none")).assert_failed("Unsupported", true, &[words]);
    }
}

#[test]
fn ten_thousand_layers_are_listed_page_by_page() {
    let bench = Bench::new();
    let blob = bench.blob_of(b"x");
    let layers: Vec<Value> = (0..10_000).map(|number| layer(&format!("shard/{number}.bin"), &blob, 1)).collect();
    bench.put("many", &layers);
    let mut plan = Command::new(program());
    plan.args(["plan", &bench.place(":many"), "-o", "json", "--plain-http", &bench.registry.host]);
    plan.arg("--plugin").arg(guests::component("plugins/loader-oci").unwrap());
    plan.arg("--plugin-cache").arg(root().join("target/guests/cache")).env_clear();
    let output = plan.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["files"].as_u64(), Some(10_000), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_account_follows_no_realm_that_nobody_granted() {
    for realm in ["http://169.254.169.254/latest/meta-data", "https://realm.example/token", "http://127.0.0.1:1/token"] {
        let bench = Bench::private();
        bench.registry.fault(Rule { method: "GET", part: "/manifests/", fault: Fault::Challenge(realm), times: 99 });
        let mut load = bench.load(":v1", "none");
        load.arg("--docker-config").arg(bench.login(PASSWORD));
        let host = realm.split('/').nth(2).unwrap();
        ended(load).assert_failed("Unsupported", true, &["is not among the granted hosts", host]);
        bench.registry.fault(Rule { method: "HEAD", part: "", fault: Fault::Challenge(realm), times: 99 });
        let mut push = bench.push(&bench.written(7), ":v1");
        push.arg("--docker-config").arg(bench.login(PASSWORD));
        ended(push).assert_failed("PluginDenied", true, &["is not among the granted hosts", host]);
        assert!(bench.registry.asked().iter().all(|asked| asked.authorization.is_none()), "{realm}");
    }
}

#[test]
fn an_account_does_not_go_where_a_blob_leads() {
    let (bench, other) = (Bench::private(), Bench::new());
    let folder = bench.written(7);
    let mut push = bench.push(&folder, ":v1");
    push.arg("--docker-config").arg(bench.login(PASSWORD));
    ended(push).assert_complete();
    // Without a grant a redirect leads nowhere.
    let stray = format!("http://{}/stray", other.registry.host);
    let leaked: &'static str = Box::leak(stray.into_boxed_str());
    bench.registry.fault(Rule { method: "GET", part: "/blobs/", fault: Fault::Redirect(leaked), times: 99 });
    let mut load = bench.load(":v1", "none");
    load.arg("--docker-config").arg(bench.login(PASSWORD));
    let refused = ended(load);
    assert!(refused.code != Some(0) && refused.everything.contains("is not among the granted hosts"), "{}", refused.everything);
    assert!(other.registry.asked().is_empty());
    // With one it is followed, and the account stays behind.
    let mut load = bench.load(":v1", "none");
    load.arg("--docker-config").arg(bench.login(PASSWORD));
    load.args(["--grant", &format!("http://{}", other.registry.host)]);
    assert!(ended(load).code != Some(0));
    assert!(!other.registry.asked().is_empty());
    assert!(other.registry.asked().iter().all(|asked| asked.authorization.is_none()));
}
