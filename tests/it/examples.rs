//! Every manifest under `examples/` is one that the operator takes and can plan, with a hub that has the models they name.
//! Must not reach the internet. `examples/deploy` is tested by `manners`.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substratus_crds::{Dataset, Model, Notebook, Plugin, PluginSource, Server};
use substratus_tests::guests;
use substratus_tests::hub::{Content, Gated, Hub, Repo};
use tempfile::TempDir;

const TOKEN: &str = "hf_examples";

/// Every YAML file of a folder and what is below it, sorted.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The operator's own install, and plugins, whose manifests are no objects.
            if path != root().join("deploy") && !path.join("plugin.yaml").exists() {
                found.extend(manifests(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    guests::root().join("examples")
}

fn documents(path: &Path) -> Vec<Value> {
    let found: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(!found.is_empty(), "{} holds no object", path.display());
    found
}

/// The document as our type reads and writes it again.
fn known<T: DeserializeOwned + Serialize>(document: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(document.clone()).unwrap()).unwrap()
}

/// What a document says and our types do not.
fn lost(given: &Value, known: &Value, at: &str) -> Vec<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given
            .iter()
            .flat_map(|(name, value)| {
                let at = format!("{at}.{name}");
                known.get(name).map_or_else(|| vec![at.clone()], |known| lost(value, known, &at))
            })
            .collect(),
        (given, known) if given == known => Vec::new(),
        (given, known) => vec![format!("{at}: {given} became {known}")],
    }
}

#[test]
fn every_field_is_one_of_ours() {
    let files = manifests(&root());
    assert!(files.len() > 10, "the examples are somewhere else");
    for path in files {
        for document in documents(&path) {
            let known = match document["kind"].as_str() {
                Some("Dataset") => known::<Dataset>(&document),
                Some("Model") => known::<Model>(&document),
                Some("Notebook") => known::<Notebook>(&document),
                Some("Server") => known::<Server>(&document),
                Some("Plugin") => known::<Plugin>(&document),
                Some("PluginSource") => known::<PluginSource>(&document),
                other => panic!("{}: kind {other:?}", path.display()),
            };
            let lost = lost(&document, &known, "");
            assert!(lost.is_empty(), "{}: {lost:?}", path.display());
        }
    }
}

#[test]
fn a_field_that_is_not_ours_would_be_found() {
    let document = json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": "a"}, "spec": {"imgae": "i"}});
    assert_eq!(lost(&document, &known::<Model>(&document), ""), [".spec.imgae"]);
}

/// A hub with every repository that the examples name, and manifests that send the bundled plugins there.
struct Bench {
    _hub: Hub,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn start() -> Self {
        let model = |id: &str, architecture: &str| {
            let config = json!({"architectures": [architecture], "max_position_embeddings": 2048, "torch_dtype": "bfloat16"});
            Repo::model(id).file("config.json", config.to_string().as_str())
        };
        let shards = |repo: Repo, size: u64| {
            repo.file("model-00001-of-00002.safetensors", Content::noise(1, size))
                .file("model-00002-of-00002.safetensors", Content::noise(2, size))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hub = Hub::builder()
            .repo(shards(model("tiiuae/falcon-40b", "FalconForCausalLM"), 1 << 20))
            .repo(shards(model("meta-llama/Llama-2-7b-hf", "LlamaForCausalLM"), 1 << 20).gated(Gated::Manual).reader(TOKEN))
            .repo(model("facebook/opt-125m", "OPTForCausalLM").file("pytorch_model.bin", Content::noise(3, 1 << 20)))
            .repo(
                model("HuggingFaceTB/SmolLM2-135M-Instruct", "LlamaForCausalLM")
                    .file("model.safetensors", Content::noise(4, 1 << 20)),
            )
            .repo(Repo::dataset("acme/squad").file("train-v2.0.json", r#"{"data": []}"#))
            .repo(Repo::model("substratusai/Llama-2-13B-chat-GGUF").file("model.bin", Content::noise(5, 1 << 20)))
            .start(Ipv4Addr::LOCALHOST.into(), runtime.handle())
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (url, cdn) = (&hub.url, &hub.cdn_url);
        let grants = json!({"hosts": [url, cdn], "secrets": [{"use": "hf", "hosts": [url]}]});
        let mirror = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": {"name": "loader-huggingface"},
            "spec": {"config": {"endpoint": url}, "grants": grants}});
        let data = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": {"name": "importer-squad"},
            "spec": {"config": {"endpoint": format!("{url}/datasets/acme/squad/resolve/main")}, "grants": {"hosts": [url, cdn]}}});
        std::fs::write(folder.path().join("mirror.yaml"), format!("{mirror}\n---\n{data}")).unwrap();
        Self { _hub: hub, folder, _runtime: runtime }
    }

    /// `substratus explain` for files and the local hub: what it printed, where it succeeded.
    fn explain(&self, files: &[PathBuf], arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(super::load::program());
        command.arg("explain").args(arguments).arg("--plugins-dir").arg(plugins());
        for file in files.iter().chain([&self.folder.path().join("mirror.yaml")]) {
            command.arg("-f").arg(file);
        }
        let output = command.env("HF_TOKEN", TOKEN).output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(!out.contains(TOKEN), "a secret shows: {out}");
        if output.status.success() { Ok(out) } else { Err(out + &String::from_utf8_lossy(&output.stderr)) }
    }
}

/// A folder with every first-party plugin under its own name.
fn plugins() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for plugin in guests::plugins().unwrap() {
            let name = Path::new(&plugin).file_name().unwrap();
            std::fs::copy(guests::component(&plugin).unwrap(), folder.path().join(name).with_extension("wasm")).unwrap();
        }
        folder
    });
    made.path()
}

/// The families: folders whose manifests belong together.
fn families() -> Vec<Vec<PathBuf>> {
    let folders = std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().path());
    let families: Vec<_> = folders.filter(|path| path.join("model.yaml").exists()).map(|path| manifests(&path)).collect();
    assert!(families.len() >= 5, "{families:?}");
    families
}

#[test]
fn every_family_can_be_planned() {
    let bench = Bench::start();
    for family in families() {
        let reports = bench.explain(&family, &["-o", "json"]).unwrap_or_else(|said| panic!("{family:?}: {said}"));
        let reports: Vec<Value> = serde_json::from_str(&reports).unwrap();
        let wanted: usize = family.iter().map(|file| documents(file).len()).sum();
        assert_eq!(reports.len(), wanted, "{family:?}");
        for report in reports {
            assert!(is_planned(&report), "{family:?}: {report:#}");
            if report["kind"] == "Dataset" {
                assert_eq!(report["source"]["list"][0]["path"], "train-v2.0.json", "{report:#}");
                assert_eq!(report["source"]["splits"], json!(["train"]), "{report:#}");
            }
        }
    }
}

/// Whether the child that does the work is there.
fn is_planned(report: &Value) -> bool {
    let main = match report["kind"].as_str() {
        Some("Model" | "Dataset") => "Job",
        Some("Notebook") => "Pod",
        _ => "Deployment",
    };
    report["children"].as_array().unwrap().iter().any(|child| child["kind"] == main)
}

/// Without a hub everything is explained that does not need one, and the rest is said to be unknown.
#[test]
fn every_family_is_explained_offline() {
    let bench = Bench::start();
    for family in families() {
        let reports = bench.explain(&family, &["-o", "json", "--offline"]).unwrap_or_else(|said| panic!("{family:?}: {said}"));
        let reports: Vec<Value> = serde_json::from_str(&reports).unwrap();
        for report in reports {
            assert!(report["stopped"].is_null() && report["route"].is_string(), "{family:?}: {report:#}");
            let unknown = report["unknown"].as_str().unwrap_or_default();
            match report["kind"].as_str() {
                Some("Server") => assert!(is_planned(&report) != unknown.contains("the Model's files"), "{family:?}: {report:#}"),
                _ => assert!(is_planned(&report), "{family:?}: {report:#}"),
            }
            let route = report["route"].as_str().unwrap();
            let asks_a_hub = ["loader-huggingface", "importer-"].iter().any(|plugin| route.contains(plugin));
            assert!(asks_a_hub == unknown.contains("no hub was asked"), "{family:?}: {report:#}");
        }
    }
}

#[test]
fn what_builds_an_image_and_what_runs_it_are_both_explained() {
    let bench = Bench::start();
    let files = [root().join("from-source/dataset.yaml")];
    let reports = bench.explain(&files, &["-o", "json", "--registry-url", "registry.example/team"]).unwrap();
    let reports: Vec<Value> = serde_json::from_str(&reports).unwrap();
    let children = reports[0]["children"].as_array().unwrap();
    let job = |name: &str| children.iter().find(|child| child["kind"] == "Job" && child["metadata"]["name"] == name).unwrap();
    let image = "registry.example/team/substratus-dataset-default-rows:main";
    assert_eq!(job("rows-dataset-bld")["metadata"]["annotations"]["image"], image);
    assert_eq!(job("rows-data-loader")["spec"]["template"]["spec"]["containers"][0]["image"], image);
    let said = bench.explain(&files, &[]).unwrap_err();
    assert!(said.contains("BuildUnsupported") && said.contains("REGISTRY_URL"), "{said}");
}

#[test]
fn a_family_that_the_hub_does_not_have_cannot_be_planned() {
    let bench = Bench::start();
    let text = std::fs::read_to_string(root().join("falcon-40b/model.yaml")).unwrap();
    let file = bench.folder.path().join("absent.yaml");
    std::fs::write(&file, text.replace("tiiuae/falcon-40b", "tiiuae/absent")).unwrap();
    let said = bench.explain(&[file], &[]).unwrap_err();
    assert!(said.contains("tiiuae/absent"), "{said}");
}

#[test]
fn the_losers_of_a_choice_are_named_with_their_reasons() {
    let bench = Bench::start();
    let files = ["model.yaml", "server.yaml"].map(|file| root().join("quickstart").join(file));
    let text = bench.explain(&files, &[]).unwrap();
    for words in ["vLLM's CPU image", "llama.cpp reads only GGUF", "substratusai/model-server-basaran only"] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

#[test]
fn the_plan_of_falcon_40b() {
    let bench = Bench::start();
    let files = ["model.yaml", "server.yaml"].map(|file| root().join("falcon-40b").join(file));
    let text = bench.explain(&files, &["--cloud", "gcp"]).unwrap();
    let filters = vec![
        // The hub and its CDN alike: hosts are sorted, and which port is the lower one is chance.
        (r"http://127\.0\.0\.1:[0-9]+", "[here]"),
        (r"port: [0-9]{5}\n", "port: [here]\n"),
        // Of the plugins as compiled here, and of inputs that hold the hub's address.
        ("[0-9a-f]{64}", "[sha256]"),
        ("(-hash|/identity|\"inputs\"): \"?[0-9a-f]{16}[-0-9a-f]*\"?", "$1: [hash]"),
    ];
    insta::with_settings!({filters => filters}, { insta::assert_snapshot!("falcon_40b", text) });
}
