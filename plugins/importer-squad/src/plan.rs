//! A shard for each split: its file, parsed into articles by the host, mapped here. It moves no bytes.

use serde::Deserialize;
use substratus_plugin::{
    Failure, config,
    fingerprint::Fingerprint,
    http::{Http, look},
    importer::{DatasetFacts, Decoding, File, HttpOrigin, Origin, Parsing, PlanPage, Request, Shard},
    invalid,
    params::Params,
};

/// `Plugin.spec.config`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    endpoint: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: "https://rajpurkar.github.io/SQuAD-explorer/dataset".into() }
    }
}

/// The splits asked for, in order.
fn splits(request: &Request) -> Result<&'static [&'static str], Failure> {
    match Params::new(&request.params).text("split")?.as_deref() {
        None | Some("train") => Ok(&["train"]),
        Some("dev") => Ok(&["dev"]),
        Some("all") => Ok(&["train", "dev"]),
        Some(other) => Err(invalid("spec.params.split", format!("is {other:?}, must be train, dev or all"))),
    }
}

fn file_name(split: &str) -> String {
    format!("{split}-v2.0.json")
}

fn url(request: &Request, name: &str) -> Result<String, Failure> {
    let Config { endpoint } = config::parse(&request.config)?;
    Ok(format!("{}/{name}", endpoint.trim_end_matches('/')))
}

fn origin(url: String) -> Origin {
    Origin::Http(HttpOrigin { url, headers: Vec::new(), auth: None, expires: None })
}

/// All on one page.
pub fn plan(http: &dyn Http, request: &Request, _: Option<&str>) -> Result<PlanPage, Failure> {
    let mut version = Fingerprint::default();
    let mut shards = Vec::new();
    for split in splits(request)? {
        let name = file_name(split);
        let url = url(request, &name)?;
        version.take(&url);
        let size = look(http, &url, None, &mut version)?;
        shards.push(Shard {
            name: (*split).to_owned(),
            inputs: vec![File { path: name, size, digest: None, origin: origin(url) }],
            decoding: Decoding::Rows(Parsing { format: Some("json".into()), member: Some("data".into()) }),
            mapped: true,
            output: String::new(),
            split: Some((*split).to_owned()),
            context: "{}".into(),
            extensions: Vec::new(),
        });
    }
    let facts = Some(DatasetFacts { license: Some("cc-by-sa-4.0".into()), partial: None });
    Ok(PlanPage { revision: version.text(), shards, facts, warnings: Vec::new(), next: None, extensions: Vec::new() })
}

/// A file stays where it is.
pub fn refresh(request: &Request, path: &str) -> Result<File, Failure> {
    if !["train", "dev"].into_iter().any(|split| file_name(split) == path) {
        return Err(Failure::Internal(format!("refreshing {path:?}: no file of the plan")));
    }
    Ok(File { path: path.to_owned(), size: None, digest: None, origin: origin(url(request, path)?) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::importer_cases(env!("CARGO_MANIFEST_DIR"), plan, refresh, crate::transform);
    }

    #[test]
    fn the_manifest_tells_the_same_defaults() {
        let manifest = testing::manifest_defaults(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(manifest, json!({"endpoint": Config::default().endpoint}));
    }
}
