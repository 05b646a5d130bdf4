//! From URLs to shards. The servers are asked for sizes and versions; the bytes stay where they are.

use substratus_plugin::{
    Failure,
    fingerprint::Fingerprint,
    http::{Http, look},
    importer::{File, HttpOrigin, Origin, PlanPage, Request, Shard},
};

use crate::asked::{Asked, Make, Url};

/// The manifest's name for the token that hosts of Hugging Face get.
const AUTH: &str = "hf";
/// Servers are asked about so many files; more are imported without a look before.
const MAX_ASKED: usize = 40;

/// One shard per URL, all on one page.
pub fn plan(http: &dyn Http, request: &Request, _: Option<&str>) -> Result<PlanPage, Failure> {
    let asked = Asked::of(request)?;
    let mut version = Fingerprint::default();
    let mut shards = Vec::with_capacity(asked.urls.len());
    for url in &asked.urls {
        version.take(&url.url);
        let size = if asked.urls.len() <= MAX_ASKED { look(http, &url.url, Some(AUTH), &mut version)? } else { None };
        shards.push(Shard {
            name: url.name.clone(),
            inputs: vec![File { path: url.name.clone(), size, digest: None, origin: origin(url) }],
            decoding: asked.make.decoding(),
            mapped: false,
            output: output(&url.name, &asked.make),
            split: None,
            context: "{}".into(),
            extensions: Vec::new(),
        });
    }
    Ok(PlanPage { revision: version.text(), shards, facts: None, warnings: Vec::new(), next: None, extensions: Vec::new() })
}

/// A URL stays what it is.
pub fn refresh(request: &Request, path: &str) -> Result<File, Failure> {
    let asked = Asked::of(request)?;
    match asked.urls.iter().find(|url| url.name == path) {
        Some(url) => Ok(File { path: path.into(), size: None, digest: None, origin: origin(url) }),
        None => Err(Failure::Internal(format!("refreshing {path:?}: no URL of the plan"))),
    }
}

fn origin(url: &Url) -> Origin {
    Origin::Http(HttpOrigin { url: url.url.clone(), headers: Vec::new(), auth: Some(AUTH.into()), expires: None })
}

/// Files keep their names; a compressed one loses the ending; the members of an archive lie in a folder of its name.
fn output(name: &str, make: &Make) -> String {
    let stem = |name: &str, endings: &[&str]| {
        let found = endings.iter().find_map(|ending| name.strip_suffix(ending)).filter(|stem| !stem.is_empty());
        found.map(str::to_owned)
    };
    let archives = [".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip"];
    let compressed = [".gz", ".zst", ".zstd"];
    match make {
        Make::Copy => name.to_owned(),
        Make::Unpacked => stem(name, &archives).or_else(|| stem(name, &compressed)).unwrap_or_else(|| name.to_owned()),
        Make::Rows { .. } => {
            let name = stem(name, &archives).or_else(|| stem(name, &compressed)).unwrap_or_else(|| name.to_owned());
            let formats = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"];
            format!("{}.jsonl", stem(&name, &formats).unwrap_or(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::importer_cases(env!("CARGO_MANIFEST_DIR"), plan, refresh, crate::transform);
    }

    #[test]
    fn outputs_are_what_is_inside() {
        let rows = Make::Rows { format: None, member: None };
        for (name, files, jsonl) in [
            ("a.jsonl", "a.jsonl", "a.jsonl"),
            ("a.csv.gz", "a.csv", "a.jsonl"),
            ("a.tar.gz", "a", "a.jsonl"),
            ("a.zip", "a", "a.jsonl"),
            (".gz", ".gz", ".gz.jsonl"),
            ("data", "data", "data.jsonl"),
        ] {
            assert_eq!(output(name, &Make::Unpacked), files);
            assert_eq!(output(name, &rows), jsonl);
            assert_eq!(output(name, &Make::Copy), name);
        }
    }
}
