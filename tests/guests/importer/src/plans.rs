//! Plans that nobody should follow. Transforms nothing.

use substratus_plugin::importer::{DatasetFacts, Decoding, File, HttpOrigin, Origin, Parsing, PlanPage, Shard};

/// Inputs of a shard: one more than there may be.
const TOO_MANY: usize = 65;

/// The plan of one shard, spoilt as `how` says; without it, or with a word for `transform`, a good one.
pub fn plan(how: &str, url: &str, cursor: Option<&str>) -> PlanPage {
    let good = || shard("one", "in.jsonl", url);
    let output = |path: &str| Shard { mapped: false, output: path.to_owned(), ..good() };
    let (mut next, mut facts) = (None, None);
    let shards = match how {
        "input-dotdot" => vec![shard("one", "../../in.jsonl", url)],
        "input-absolute" => vec![shard("one", "/tmp/in.jsonl", url)],
        "outside" => vec![shard("one", "in.jsonl", "https://elsewhere.example/in.jsonl")],
        "file-url" => vec![shard("one", "in.jsonl", "file:///etc/passwd")],
        "metadata-url" => vec![shard("one", "in.jsonl", "http://169.254.169.254/latest/meta-data/")],
        "twice" => vec![good(), shard("one", "other.jsonl", url)],
        "same-input" => vec![good(), shard("two", "in.jsonl", url)],
        "endless" => {
            let page: usize = cursor.and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
            next = Some((page + 1).to_string());
            (0..2000).map(|n| shard(&format!("{page}-{n}"), &format!("{page}/{n}.jsonl"), url)).collect()
        }
        "no-shards" => Vec::new(),
        "many-inputs" => vec![Shard { inputs: (0..TOO_MANY).map(|n| file(&format!("{n}.jsonl"), url)).collect(), ..good() }],
        "output-dotdot" => vec![output("../../evil.jsonl")],
        "output-absolute" => vec![output("/tmp/substratus-evil.jsonl")],
        "output-records" => vec![output("../.substratus/manifest.json")],
        "endless-empty" => {
            next = Some(cursor.and_then(|cursor| cursor.parse::<usize>().ok()).map_or(1, |page| page + 1).to_string());
            Vec::new()
        }
        "license-control" => {
            facts = Some(DatasetFacts { license: Some("\u{1b}[31mfree\n".to_owned()), partial: None });
            vec![good()]
        }
        "partial-control" => {
            facts = Some(DatasetFacts { license: None, partial: Some("\u{1b}[2Jnothing\n".to_owned()) });
            vec![good()]
        }
        _ => vec![good()],
    };
    PlanPage { revision: "1".to_owned(), shards, facts, warnings: Vec::new(), next, extensions: Vec::new() }
}

fn shard(name: &str, path: &str, url: &str) -> Shard {
    Shard {
        name: name.to_owned(),
        inputs: vec![file(path, url)],
        decoding: Decoding::Rows(Parsing { format: Some("jsonl".to_owned()), member: None }),
        mapped: true,
        output: String::new(),
        split: None,
        context: "{}".to_owned(),
        extensions: Vec::new(),
    }
}

/// A file at a URL.
pub fn file(path: &str, url: &str) -> File {
    let origin = Origin::Http(HttpOrigin { url: url.to_owned(), headers: Vec::new(), auth: None, expires: None });
    File { path: path.to_owned(), size: None, digest: None, origin }
}
