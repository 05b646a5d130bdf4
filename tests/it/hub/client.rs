//! `huggingface_hub`, the hub's own client for Python, unchanged.

use std::{collections::BTreeMap, fs, path::Path};

use substratus_tests::{
    engine,
    hub::{Content, Fault, Gated, Hub, Kind, Repo, Rule},
};
use tempfile::TempDir;
use tokio::process::Command;

use super::start;

/// Runs `client.py` and returns the lines it printed.
async fn client(hub: &Hub, token: Option<&str>, arguments: &[&str]) -> Vec<String> {
    let python = tokio::task::spawn_blocking(|| engine::python(&engine::cache().unwrap()).unwrap()).await.unwrap();
    let home = TempDir::new().unwrap();
    let mut command = Command::new(python);
    command.args(["-B", concat!(env!("CARGO_MANIFEST_DIR"), "/it/hub/client.py")]).args(arguments);
    command.env_clear().env("HF_ENDPOINT", &hub.url).env("HF_HOME", home.path()).env("NO_PROXY", "*");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Every file below a folder, but for the client's own notes.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            match path.is_dir() {
                true if name != ".cache" => folders.push(path),
                true => {}
                false => drop(found.insert(name, fs::read(path).unwrap())),
            }
        }
    }
    found
}

async fn tiny() -> std::path::PathBuf {
    tokio::task::spawn_blocking(|| engine::tiny_model(&engine::cache().unwrap()).unwrap().repository).await.unwrap()
}

#[tokio::test]
async fn downloads_a_whole_repository_over_many_pages_and_keeps_its_token_from_the_cdn() {
    let source = tiny().await;
    let repo = Repo::model("acme/tiny").directory(&source).unwrap().private().reader("hf_reader");
    let hub = start(Hub::builder().page_size(2).repo(repo));
    let target = TempDir::new().unwrap();
    let printed = client(&hub, Some("hf_reader"), &["snapshot", "acme/tiny", "main", target.path().to_str().unwrap()]).await;
    assert_eq!(printed.len(), 1, "{printed:?}");
    let (have, want) = (files(target.path()), files(&source));
    assert!(want.len() >= 6 && want.contains_key("model.safetensors"));
    assert!(have == want, "have {:?}, want {:?}", have.keys(), want.keys());

    let stats = hub.stats();
    let pages = want.len().div_ceil(2) as u64;
    assert_eq!(stats.hub.requests_with("GET /api/models/acme/tiny/tree/"), pages);
    assert_eq!(stats.cdn.bytes, want["model.safetensors"].len() as u64);
    assert_eq!((stats.cdn.requests_with("GET"), stats.cdn.authorization_headers), (1, 0));
    assert!(stats.hub.authorization_headers >= pages);
}

#[tokio::test]
async fn raises_its_own_exceptions() {
    let weights = |id: &str| Repo::model(id).file("model.safetensors", vec![1; 100]);
    let hub = start(
        Hub::builder()
            .token("hf_other")
            .repo(weights("acme/open"))
            .repo(weights("acme/gated").gated(Gated::Manual).reader("hf_reader"))
            .repo(weights("acme/secret").private().reader("hf_reader"))
            .repo(weights("acme/gone").disabled()),
    );
    let one = async |token, repository, revision, file| {
        let printed = client(&hub, token, &["file", repository, revision, file]).await;
        printed.first().unwrap().clone()
    };
    let file = "model.safetensors";
    for (token, repository, revision, file, expected) in [
        (None, "acme/gated", "main", file, "GatedRepoError"),
        (Some("hf_other"), "acme/gated", "main", file, "GatedRepoError"),
        (None, "acme/secret", "main", file, "RepositoryNotFoundError"),
        (Some("hf_other"), "acme/secret", "main", file, "RepositoryNotFoundError"),
        (None, "acme/absent", "main", file, "RepositoryNotFoundError"),
        (None, "acme/open", "v9", file, "RevisionNotFoundError"),
        (None, "acme/open", "main", "absent.bin", "RemoteEntryNotFoundError"),
    ] {
        assert_eq!(one(token, repository, revision, file).await, expected, "{token:?} {repository} {revision} {file}");
    }
    assert_eq!(client(&hub, None, &["info", "acme/gone", "main"]).await, ["DisabledRepoError"]);
    for repository in ["acme/gated", "acme/secret"] {
        let path = one(Some("hf_reader"), repository, "main", file).await;
        assert!(path.ends_with(file), "{path}");
    }
}

#[tokio::test]
async fn reads_metadata_listings_and_revisions() {
    let repo = Repo::model("acme/tiny").file("a/b/one.txt", "1").revision("refs/pr/2");
    let hub = start(Hub::builder().page_size(2).repo(repo.directory(&tiny().await).unwrap().renamed_from("old/name")));
    let main = hub.commit(Kind::Model, "acme/tiny", "main").unwrap();

    let all = client(&hub, None, &["tree", "acme/tiny", "main"]).await;
    assert!(all.len() > 6 && all.is_sorted() && all.contains(&"a/b/one.txt".to_owned()), "{all:?}");
    assert_eq!(client(&hub, None, &["tree", "acme/tiny", "refs/pr/2"]).await, ["a", "a/b", "a/b/one.txt"]);
    let top = client(&hub, None, &["expanded", "acme/tiny", "main"]).await;
    assert!(top.contains(&format!("a {main}")) && top.contains(&format!("config.json {main}")), "{top:?}");

    let weights = hub.sha256(Kind::Model, "acme/tiny", "main", "model.safetensors").unwrap();
    let size = fs::metadata(tiny().await.join("model.safetensors")).unwrap().len();
    let paths = client(&hub, None, &["paths", "acme/tiny", "main", "model.safetensors", "nothing"]).await;
    assert_eq!(paths, [format!("model.safetensors {size} {weights}")]);

    let bytes: usize = files(&tiny().await).values().map(Vec::len).sum();
    let info = client(&hub, None, &["info", "old/name", "main"]).await;
    assert_eq!(info, [format!("{main} apache-2.0 llama {}", bytes + 1)]);
}

#[tokio::test]
async fn resumes_after_a_cut() {
    // The client writes 10 MiB at a time and forgets what it has of the next.
    let noise = Content::noise(3, 24 << 20);
    let hub = start(Hub::builder().repo(Repo::model("acme/big").file("model.bin", noise.clone())));
    hub.fault(Rule::cdn("model.bin", Fault::CutAfter(15 << 20)).once());
    let target = TempDir::new().unwrap();
    client(&hub, None, &["snapshot", "acme/big", "main", target.path().to_str().unwrap()]).await;
    let got = fs::read(target.path().join("model.bin")).unwrap();
    assert_eq!(Content::from(got).sha256().unwrap(), noise.sha256().unwrap());
    assert_eq!(hub.stats().cdn.statuses, BTreeMap::from([(200, 1), (206, 1)]));
}

#[tokio::test]
async fn finds_repositories_and_revisions_by_name() {
    let tiny = Repo::model("acme/tiny").file("a.txt", "a").revision("v1.0");
    let hub = start(Hub::builder().repo(tiny).repo(Repo::model("other/tiny-gguf")).repo(Repo::model("acme/secret").private()));
    assert_eq!(client(&hub, None, &["refs", "acme/tiny", "main"]).await, ["main v1.0"]);
    assert_eq!(client(&hub, None, &["search", "TIN", "main"]).await, ["acme/tiny other/tiny-gguf"]);
    assert_eq!(client(&hub, None, &["author", "acme", "main"]).await, ["acme/tiny"]);
}
