//! Imports by the real program, with the real importers, from the local hub: whole, repeated, and refused.
//! Must not look into the worker; what a user and the hub see is all there is.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod bounded;
mod converted;
mod hostile;
mod shared;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use substratus::worker::report::{MAX_TERMINATION_MESSAGE, Outcome};
use substratus_crds::SourceStatus;
use substratus_tests::guests::{self, root};
use substratus_tests::hub::{Content, Hub, Repo};
use tempfile::TempDir;

/// A hub and a place to import into.
struct Bench {
    hub: Hub,
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Bench {
    fn new(repo: Repo) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let hub = Hub::builder().repo(repo).start(Ipv4Addr::LOCALHOST.into(), runtime.handle()).unwrap();
        Self { hub, folder: tempfile::tempdir().unwrap(), _runtime: runtime }
    }

    fn url(&self, file: &str) -> String {
        format!("{}/datasets/acme/data/resolve/main/{file}", self.hub.url)
    }

    fn command(&self, plugin: &str, to: &Path) -> Command {
        let component = if plugin == guests::PYTHON { guests::python_importer() } else { guests::component(plugin) };
        let mut command = Command::new(crate::load::program());
        command.args(["import", "-o", "json", "--attempts", "2"]);
        command.arg("--to").arg(to).arg("--plugin").arg(component.unwrap());
        command.arg("--plugin-cache").arg(root().join("target/guests/cache"));
        command.args(["--grant", &self.hub.url, "--grant", &self.hub.cdn_url]);
        command.env_remove("HF_TOKEN").env_remove("HUGGING_FACE_HUB_TOKEN").stdin(Stdio::null());
        command
    }

    fn import(&self, plugin: &str, args: &[&str]) -> (Option<i32>, Outcome) {
        let mut command = self.command(plugin, &self.target());
        command.args(["--stall", "2"]).args(args);
        command.arg("--termination-log").arg(self.folder.path().join("outcome"));
        let output = command.output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let outcome: Outcome = serde_json::from_str(out.trim())
            .unwrap_or_else(|error| panic!("{error}: {out}{}", String::from_utf8_lossy(&output.stderr)));
        // The operator reads the same.
        let told = std::fs::read(self.folder.path().join("outcome")).unwrap();
        assert!(told.len() <= MAX_TERMINATION_MESSAGE);
        assert_eq!(serde_json::from_slice::<Outcome>(&told).unwrap(), outcome);
        (output.status.code(), outcome)
    }

    fn complete(&self, plugin: &str, args: &[&str]) -> SourceStatus {
        match self.import(plugin, args) {
            (Some(0), Outcome::Complete { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    }

    /// Refused for good, for `reason`, with nothing that looks like an artifact.
    fn refused(&self, plugin: &str, args: &[&str]) -> (String, String) {
        match self.import(plugin, args) {
            (code, outcome @ Outcome::Failed { .. }) if outcome.is_final() && code == Some(outcome.exit_code().into()) => {
                assert!(!self.target().join(".substratus/manifest.json").exists());
                let Outcome::Failed { reason, message, .. } = outcome else { unreachable!() };
                (reason, message)
            }
            other => panic!("{other:?}"),
        }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.target().join("artifacts").join(path)).unwrap()
    }

    /// Everything below `artifacts/`, sorted.
    fn files(&self) -> Vec<String> {
        let (top, mut folders, mut files) = (self.target().join("artifacts"), vec![], vec![]);
        folders.push(top.clone());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        let mut files: Vec<_> = files.iter().map(|path| path.strip_prefix(&top).unwrap().display().to_string()).collect();
        files.sort();
        files
    }
}

const HTTP: &str = "plugins/importer-http";

fn tar(members: &[(&str, &str)]) -> Content {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    }
    Content::from(archive.into_inner().unwrap())
}

#[test]
fn files_are_unpacked_and_rows_counted() {
    let repo = Repo::dataset("acme/data")
        .file("rows.jsonl", "{\"prompt\":\"a\",\"n\":1}\n{\"prompt\":\"b\",\"n\":2.5}\n")
        .file("more.tar", tar(&[("x/y.csv", "a,b\n1,2\n"), ("README.md", "# hi")]));
    let bench = Bench::new(repo);
    let urls = format!("urls={},{}", bench.url("rows.jsonl"), bench.url("more.tar"));
    let image = ["--image", "substratusai/dataset-loader-http", "--param", &urls];
    let source = bench.complete(HTTP, &image);
    assert_eq!(bench.files(), ["more/README.md", "more/x/y.csv", "rows.jsonl"]);
    assert_eq!(bench.text("more/x/y.csv"), "a,b\n1,2\n");
    assert_eq!((source.rows, source.files, source.bytes), (Some(3), 3, 44 + 8 + 4));
    assert_eq!(source.schema, ["n: float", "prompt: string", "a: string", "b: string"]);
    // Nothing of the work is left, and the second run asks nobody.
    let records = std::fs::read_dir(bench.target().join(".substratus")).unwrap();
    let mut records: Vec<_> = records.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    records.sort();
    assert_eq!(records, ["lock", "manifest.json"]);
    bench.hub.reset_stats();
    assert_eq!(bench.complete(HTTP, &image), source);
    assert_eq!(bench.hub.stats().hub.requests_with("rows"), 0);
    // Other inputs: the old files go.
    bench.complete(HTTP, &[&bench.url("rows.jsonl")]);
    assert_eq!(bench.files(), ["rows.jsonl"]);
}

#[test]
fn tables_become_rows_where_asked_for() {
    let mut gz = std::process::Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    gz.stdin.take().unwrap().write_all(b"prompt,completion\nhi,\"a, b\"\n").unwrap();
    let bench = Bench::new(Repo::dataset("acme/data").file("t.csv.gz", Content::from(gz.wait_with_output().unwrap().stdout)));
    let source = bench.complete(HTTP, &[&bench.url("t.csv.gz"), "--param", "format=jsonl"]);
    assert_eq!(bench.text("t.jsonl"), "{\"prompt\":\"hi\",\"completion\":\"a, b\"}\n");
    assert_eq!((source.rows, source.files), (Some(1), 1));
}

#[test]
fn archives_that_would_write_elsewhere_are_refused() {
    for name in ["../../evil", "/tmp/evil", "a/../../evil"] {
        let bench = Bench::new(Repo::dataset("acme/data").file("evil.tar", tar(&[("good", "1"), (name, "x")])));
        let (reason, message) = bench.refused(HTTP, &[&bench.url("evil.tar")]);
        assert_eq!(reason, "Refused", "{message}");
        assert!(message.contains("evil.tar"), "{message}");
        assert!(!bench.folder.path().join("evil").exists() && bench.files().is_empty());
    }
}

#[test]
fn what_is_not_there_or_not_granted_is_said() {
    let bench = Bench::new(Repo::dataset("acme/data").file("a.jsonl", "nonsense\n"));
    assert_eq!(bench.refused(HTTP, &[&bench.url("b.jsonl")]).0, "NotFound");
    let (reason, message) = bench.refused(HTTP, &[&bench.url("a.jsonl"), "--param", "format=jsonl"]);
    assert!(reason == "Invalid" && message.contains("line 1"), "{reason}: {message}");
    let (_, message) = bench.refused(HTTP, &["http://127.0.0.9:9/x.jsonl"]);
    assert!(message.contains("127.0.0.9"), "{message}");
}

#[test]
fn squad_is_mapped_by_its_importer() {
    let article = |n: usize| {
        format!(
            r#"{{"title": "T{n}", "paragraphs": [{{"context": "C{n}", "qas": [{{"question": "Q?", "answers": [{{"text": "A", "answer_start": 0}}]}}]}}]}}"#
        )
    };
    let file = |from: usize, to: usize| {
        let articles: Vec<String> = (from..to).map(article).collect();
        format!(r#"{{"version": "v2.0", "data": [{}]}}"#, articles.join(",\n"))
    };
    let repo = Repo::dataset("acme/data")
        .file("train-v2.0.json", file(0, 4000).as_str())
        .file("dev-v2.0.json", file(4000, 4010).as_str());
    let bench = Bench::new(repo);
    let endpoint = format!("endpoint={}/datasets/acme/data/resolve/main", bench.hub.url);
    let image = ["--image", "substratusai/dataset-squad", "--param", "split=all", "--config", &endpoint];
    let source = bench.complete("plugins/importer-squad", &image);
    assert_eq!(bench.files(), ["all.jsonl"]);
    let text = bench.text("all.jsonl");
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((rows.len(), source.rows, source.files), (4010, Some(4010), 1));
    // In the plan's order, whichever shard was done first.
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(*row, format!(r#"{{"prompt":"T{n}\n\nC{n}\n\nQuestion: Q?\nAnswer:","completion":" A"}}"#));
    }
    assert_eq!(
        (source.splits, source.schema),
        (vec!["train".into(), "dev".into()], vec!["completion: string".into(), "prompt: string".into()])
    );
    assert_eq!(source.license.as_deref(), Some("cc-by-sa-4.0"));
}

#[test]
fn an_importer_in_python_maps_rows() {
    let row = |n: usize| {
        format!(r#"{{"instruction":"Say {n}.","input":"{}","output":"{n}"}}"#, if n.is_multiple_of(2) { "loud" } else { "" })
    };
    let rows: Vec<String> = (0..30_000).map(row).collect();
    let file = format!("[{}]", rows.join(",\n"));
    let bench = Bench::new(Repo::dataset("acme/data").file("alpaca.json", file.as_str()));
    let url = format!("url={}", bench.url("alpaca.json"));
    let source = bench.complete(guests::PYTHON, &["alpaca://hub.example/alpaca.json", "--param", &url]);
    assert_eq!((source.rows, source.files, source.splits), (Some(30_000), 1, vec!["train".to_owned()]));
    let text = bench.text("all.jsonl");
    assert!(
        text.starts_with("{\"prompt\": \"Say 0.\\n\\nloud\\n\\nAnswer:\", \"completion\": \" 0\"}\n"),
        "{:?}",
        text.get(..200)
    );
    assert_eq!(text.lines().count(), 30_000);
}
