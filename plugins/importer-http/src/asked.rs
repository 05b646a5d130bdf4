//! What the user asks for: which URLs, and what to make of them. Pure; no server is asked here.

use substratus_plugin::{
    Failure,
    http::decode,
    importer::{Decoding, Parsing, Request},
    invalid,
    params::Params,
};

/// URLs of one import.
const MAX_URLS: usize = 10_000;
const FORMATS: [&str; 5] = ["jsonl", "json", "csv", "tsv", "parquet"];

/// Everything that was asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) urls: Vec<Url>,
    pub(crate) make: Make,
}

/// One URL, and what it is called here.
#[derive(Debug, PartialEq)]
pub(crate) struct Url {
    pub(crate) url: String,
    /// Name of the input; no two are the same.
    pub(crate) name: String,
}

/// What becomes of a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Make {
    /// The bytes as they are.
    Copy,
    /// Without its compression, its archive taken apart.
    Unpacked,
    /// Its rows as JSON Lines.
    Rows {
        /// How the source writes them; absent: as the name says.
        format: Option<String>,
        member: Option<String>,
    },
}

impl Make {
    pub(crate) fn decoding(&self) -> Decoding {
        match self {
            Self::Copy => Decoding::Copy,
            Self::Unpacked => Decoding::Unpack,
            Self::Rows { format, member } => Decoding::Rows(Parsing { format: format.clone(), member: member.clone() }),
        }
    }
}

impl Asked {
    /// Reads `spec.source` and the parameters.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let params = Params::new(&request.params);
        let mut urls = Vec::new();
        if let Some(source) = request.source.as_deref().filter(|source| !source.is_empty()) {
            add(&mut urls, source, "spec.source")?;
        }
        let more = params.text("urls")?.unwrap_or_default();
        for url in more.split([',', ' ', '\n', '\t']).filter(|url| !url.is_empty()) {
            add(&mut urls, url, "spec.params.urls")?;
        }
        if urls.is_empty() {
            let missing = "is missing: give one or more URLs, separated by commas, such as https://host.example/rows.jsonl";
            return Err(invalid("spec.params.urls", missing));
        }
        if urls.len() > MAX_URLS {
            return Err(invalid("spec.params.urls", format!("names {} URLs, and at most {MAX_URLS} are possible", urls.len())));
        }
        Ok(Self { urls, make: make(params)? })
    }
}

fn make(params: Params<'_>) -> Result<Make, Failure> {
    let (from, member) = (params.text("from")?, params.text("member")?);
    if let Some(wrong) = from.as_deref().filter(|from| !FORMATS.contains(from)) {
        return Err(invalid("spec.params.from", format!("is {wrong:?}, must be one of {}", FORMATS.join(", "))));
    }
    match params.text("format")?.as_deref() {
        Some("jsonl") => Ok(Make::Rows { format: from, member }),
        None if from.is_some() || member.is_some() => Ok(Make::Rows { format: from, member }),
        None | Some("files") => Ok(Make::Unpacked),
        Some("raw") => Ok(Make::Copy),
        Some(other) => {
            let choices = "must be files (unpacked), jsonl (rows as JSON Lines) or raw (the bytes as they are)";
            Err(invalid("spec.params.format", format!("is {other:?}, {choices}")))
        }
    }
}

fn add(urls: &mut Vec<Url>, url: &str, field: &str) -> Result<(), Failure> {
    let wrong = |why: &str| invalid(field, format!("is {url:?}: {why}"));
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| wrong("must start with https:// or http://"))?;
    let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
    let path = rest.split_once('?').map_or(rest, |(path, _)| path);
    let (host, path) = path.split_once('/').unwrap_or((path, ""));
    if host.is_empty() || host.contains(['@', '\\']) {
        return Err(wrong("names no host, or holds a credential; use a Secret for credentials"));
    }
    if urls.iter().any(|known| known.url == url) {
        return Err(wrong("is there twice"));
    }
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let last = decode(last).ok_or_else(|| wrong("its percent-encoding is broken"))?;
    let name: String = last.chars().map(|c| if c.is_control() || matches!(c, '/' | '\\') { '_' } else { c }).collect();
    let name = if matches!(name.as_str(), "" | "." | "..") { "data".to_owned() } else { name };
    urls.push(Url { url: url.to_owned(), name: unique(urls, &name) });
    Ok(())
}

/// Two files of one name become `name` and `2-name`.
fn unique(urls: &[Url], name: &str) -> String {
    let taken = |name: &str| urls.iter().any(|known| known.name.eq_ignore_ascii_case(name));
    let numbered = (2..).map(|number| format!("{number}-{name}"));
    std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use substratus_plugin::testing;

    use super::*;

    fn asked(members: Value) -> Result<Asked, Failure> {
        Asked::of(&testing::request("Dataset", members))
    }

    fn names(urls: &str) -> Vec<String> {
        let params = json!([["urls", Value::from(urls).to_string()]]);
        asked(json!({ "params": params })).unwrap().urls.into_iter().map(|url| url.name).collect()
    }

    #[test]
    fn names_are_those_of_the_urls_and_differ() {
        assert_eq!(names("https://a.example/x/rows.jsonl"), ["rows.jsonl"]);
        assert_eq!(
            names("https://a.example/r.csv, https://b.example/R.csv\nhttps://c.example/r.csv"),
            ["r.csv", "2-R.csv", "3-r.csv"]
        );
        assert_eq!(names("https://a.example/a%20b.json?token=x#y"), ["a b.json"]);
        assert_eq!(
            names("https://a.example,https://a.example/x/%2e%2e,https://a.example/%2fetc%2fpasswd"),
            ["data", "2-data", "_etc_passwd"]
        );
    }

    #[test]
    fn mistakes_name_their_field() {
        let field = |members: Value| match asked(members) {
            Err(Failure::Invalid(problems)) => problems[0].field.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(field(json!({})), "spec.params.urls");
        assert_eq!(field(json!({"params": [["urls", "\"ftp://a/b\""]]})), "spec.params.urls");
        assert_eq!(field(json!({"params": [["urls", "\"https://u:p@a/b\""]]})), "spec.params.urls");
        assert_eq!(field(json!({"params": [["urls", "\"https://a/b,https://a/b\""]]})), "spec.params.urls");
        assert_eq!(field(json!({"source": "https:///x"})), "spec.source");
        let with = |name: &str, value: &str| json!({"source": "https://a/b", "params": [[name, Value::from(value).to_string()]]});
        assert_eq!(field(with("format", "xml")), "spec.params.format");
        assert_eq!(field(with("from", "xml")), "spec.params.from");
    }
}
