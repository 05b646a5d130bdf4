//! What the user asks for: which repository, and what of it. Pure; what the hub answers is not known here.

use serde::Deserialize;
use substratus_plugin::{Failure, config, http, importer::Request, invalid, params::Params};

const SCHEME: &str = "hf://datasets/";

/// `Plugin.spec.config`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) endpoint: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: "https://huggingface.co".into() }
    }
}

/// What becomes of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Jsonl,
    Parquet,
    Files,
}

/// Everything that was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Without a slash at the end.
    pub(crate) endpoint: String,
    /// `org/name`, or `name` alone for the hub's oldest data sets.
    pub(crate) id: String,
    /// A branch, a tag or a commit, where one is named.
    pub(crate) revision: Option<String>,
    pub(crate) format: Format,
    pub(crate) config: Option<String>,
    pub(crate) split: Option<String>,
}

impl Asked {
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let source = request.source.as_deref().unwrap_or_default();
        let wrong = |why: &str| invalid("spec.source", format!("is {source:?}: {why}"));
        let rest = source.strip_prefix(SCHEME).ok_or_else(|| wrong("must be hf://datasets/org/name"))?;
        let (id, revision) = rest.split_once('@').map_or((rest, None), |(id, revision)| (id, Some(revision)));
        if !is_id(id) {
            return Err(wrong("must be hf://datasets/org/name, of letters, digits, `-`, `_` and `.`"));
        }
        let revision = revision.map(|text| http::decode(text).filter(|text| is_revision(text)));
        let revision = match revision {
            Some(None) => return Err(wrong("the revision after @ must be a branch, a tag or a commit")),
            Some(revision) => revision,
            None => None,
        };
        let params = Params::new(&request.params);
        let chosen = !request.files.include.is_empty() || !request.files.exclude.is_empty();
        let format = match params.text("format")?.as_deref() {
            None if chosen => Format::Files,
            None | Some("jsonl") => Format::Jsonl,
            Some("parquet") if revision.is_none() => Format::Parquet,
            Some("parquet") => {
                return Err(invalid(
                    "spec.params.format",
                    "is parquet, which the hub makes of its main branch only: leave out the revision",
                ));
            }
            Some("files") => Format::Files,
            Some(other) => return Err(invalid("spec.params.format", format!("is {other:?}, must be jsonl, parquet or files"))),
        };
        if chosen && format != Format::Files {
            return Err(invalid("spec.files", "chooses among the repository's own files: leave out spec.params.format"));
        }
        let Config { endpoint } = config::parse(&request.config)?;
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        Ok(Self { endpoint, id: id.to_owned(), revision, format, config: params.text("config")?, split: params.text("split")? })
    }
}

fn is_id(id: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(['-', '.'])
            && !name.contains("..")
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    id.len() <= 96 && id.split('/').count() <= 2 && id.split('/').all(is_name)
}

fn is_revision(text: &str) -> bool {
    text.len() <= 255
        && !text.contains(|c: char| c.is_control() || c.is_whitespace())
        && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use substratus_plugin::testing;

    use super::*;

    fn asked(members: Value) -> Result<Asked, Failure> {
        Asked::of(&testing::request("Dataset", members))
    }

    #[test]
    fn sources() {
        for (source, id, revision) in [
            ("hf://datasets/org/name", "org/name", None),
            ("hf://datasets/squad", "squad", None),
            ("hf://datasets/a/b@refs%2Fpr%2F2", "a/b", Some("refs/pr/2")),
        ] {
            let found = asked(json!({ "source": source })).unwrap();
            assert_eq!((found.id.as_str(), found.revision.as_deref()), (id, revision), "{source}");
        }
        for source in [
            "",
            "hf://a/b",
            "hf://datasets/",
            "hf://datasets/a/b/c",
            "hf://datasets/a/..",
            "hf://datasets/a/b@",
            "hf://datasets/a/b@..",
        ] {
            match asked(json!({ "source": source })) {
                Err(Failure::Invalid(problems)) => assert_eq!(problems[0].field, "spec.source", "{source}"),
                other => panic!("{source}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_choice_of_files_means_the_files() {
        let members = json!({"source": "hf://datasets/a/b", "files": {"include": ["*.txt"]}});
        assert_eq!(asked(members).unwrap().format, Format::Files);
        let both = json!({"source": "hf://datasets/a/b", "files": {"include": ["*.txt"]}, "params": [["format", "\"jsonl\""]]});
        assert!(asked(both).is_err());
    }

    #[test]
    fn the_manifest_tells_the_same_defaults() {
        let manifest = testing::manifest_defaults(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(manifest, json!({"endpoint": Config::default().endpoint}));
    }
}
