//! Takes a request's path apart. Pure; must not know what exists.
//!
//! Revisions are one segment, percent-encoded whole (`refs%2Fpr%2F2`); names with and without a namespace are read.

use percent_encoding::percent_decode_str;

use super::repo::Kind;

/// What is asked of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Info { revision: Option<String> },
    Refs,
    Tree { revision: String, path: String },
    PathsInfo { revision: String },
    Resolve { revision: String, path: String },
}

/// A repository's URL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) ask: Ask,
}

/// Percent-decodes a whole path.
pub(super) fn decode(path: &str) -> String {
    percent_decode_str(path).decode_utf8_lossy().into_owned()
}

/// Whether a path is the search among repositories of a kind.
pub(super) fn search(path: &str) -> Option<Kind> {
    match path {
        "/api/models" => Some(Kind::Model),
        "/api/datasets" => Some(Kind::Dataset),
        _ => None,
    }
}

/// Reads a path as it came over the wire.
pub(super) fn parse(path: &str) -> Option<Address> {
    let segments: Vec<String> = path.strip_prefix('/')?.split('/').map(decode).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (kind, api, rest) = match segments.as_slice() {
        ["api", "models", rest @ ..] => (Kind::Model, true, rest),
        ["api", "datasets", rest @ ..] => (Kind::Dataset, true, rest),
        ["datasets", rest @ ..] => (Kind::Dataset, false, rest),
        rest => (Kind::Model, false, rest),
    };
    let verbs: &[&str] = if api { &["revision", "tree", "paths-info", "refs"] } else { &["resolve"] };
    let words = rest.iter().skip(1).take(2).position(|segment| verbs.contains(segment));
    let (name, ask) = rest.split_at_checked(words.map_or(rest.len(), |at| at + 1))?;
    if !(1..=2).contains(&name.len()) || name.iter().any(|part| part.is_empty()) {
        return None;
    }
    let ask = match (api, ask) {
        (true, []) => Ask::Info { revision: None },
        (true, ["refs"]) => Ask::Refs,
        (true, ["revision", revision]) => Ask::Info { revision: Some((*revision).to_owned()) },
        (true, ["tree", revision, path @ ..]) => Ask::Tree { revision: (*revision).to_owned(), path: path.join("/") },
        (true, ["paths-info", revision]) => Ask::PathsInfo { revision: (*revision).to_owned() },
        (false, ["resolve", revision, path @ ..]) if !path.is_empty() => {
            Ask::Resolve { revision: (*revision).to_owned(), path: path.join("/") }
        }
        _ => return None,
    };
    Some(Address { kind, id: name.join("/"), ask })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> (Kind, String, Ask) {
        let Address { kind, id, ask } = parse(path).unwrap();
        (kind, id, ask)
    }

    #[test]
    fn paths_of_the_real_hub_are_read() {
        let (model, dataset) = (Kind::Model, Kind::Dataset);
        let tree = |revision: &str, path: &str| Ask::Tree { revision: revision.into(), path: path.into() };
        let resolve = |revision: &str, path: &str| Ask::Resolve { revision: revision.into(), path: path.into() };
        assert_eq!(read("/api/models/a/b"), (model, "a/b".into(), Ask::Info { revision: None }));
        assert_eq!(read("/api/models/a/b/refs"), (model, "a/b".into(), Ask::Refs));
        assert_eq!((search("/api/models"), search("/api/models/a")), (Some(model), None));
        assert_eq!(read("/api/models/gpt2"), (model, "gpt2".into(), Ask::Info { revision: None }));
        assert_eq!(read("/api/models/a/b/tree/refs%2Fpr%2F2/x%2Fy"), (model, "a/b".into(), tree("refs/pr/2", "x/y")));
        assert_eq!(read("/api/datasets/a/b/tree/main"), (dataset, "a/b".into(), tree("main", "")));
        assert_eq!(read("/a/b/resolve/main/x/y%20z"), (model, "a/b".into(), resolve("main", "x/y z")));
        assert_eq!(read("/gpt2/resolve/main/x"), (model, "gpt2".into(), resolve("main", "x")));
        assert_eq!(read("/datasets/a/b/resolve/main/x"), (dataset, "a/b".into(), resolve("main", "x")));
        for wrong in ["/", "/a/b", "/a/b/resolve/main", "/api/models/", "/api/models/a/b/c", "/api/models/a//tree/x"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
