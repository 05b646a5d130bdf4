//! A name that is not there, and one like it that is: most often a typing mistake. A hint, so whatever fails here says nothing.

use serde::Deserialize;
use substratus_plugin::{
    Failure,
    http::{Http, Response, encode_segment, header},
};

use crate::{api, reference::Repo};

/// Names that are asked for.
const ASKED: usize = 50;
/// Names that are told where none is like what was asked for.
const TOLD: usize = 5;

#[derive(Debug, Deserialize)]
struct Found {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refs {
    branches: Vec<Ref>,
    tags: Vec<Ref>,
}

#[derive(Debug, Deserialize)]
struct Ref {
    name: String,
}

/// Adds a near name to what was not found.
pub(crate) fn hint(http: &dyn Http, repo: &Repo, response: &Response, failure: Failure) -> Failure {
    let Failure::NotFound(text) = failure else { return failure };
    let hint = match header(response, "x-error-code") {
        Some("RevisionNotFound") => revision(http, repo),
        _ => repository(http, repo),
    };
    Failure::NotFound(hint.map(|hint| format!("{text}; {hint}")).unwrap_or(text))
}

fn repository(http: &dyn Http, repo: &Repo) -> Option<String> {
    let (owner, name) = repo.id.split_once('/').map_or((None, repo.id.as_str()), |(owner, name)| (Some(owner), name));
    let ask = |key: &str, value: &str| -> Vec<String> {
        let path = format!("/api/models?{key}={}&limit={ASKED}", encode_segment(value));
        let found: Vec<Found> = api::try_json(http, repo, &path).unwrap_or_default();
        found.into_iter().map(|found| found.id).collect()
    };
    // The search finds a name with another owner, or a part of one; the owner's list finds a name with a letter too much.
    let near = nearest(&repo.id, ask("search", name)).or_else(|| nearest(&repo.id, ask("author", owner?)))?;
    Some(format!("did you mean {near}?"))
}

fn revision(http: &dyn Http, repo: &Repo) -> Option<String> {
    let refs: Refs = api::try_json(http, repo, &format!("/api/models/{}/refs", repo.id))?;
    let names: Vec<String> = refs.branches.into_iter().chain(refs.tags).map(|one| one.name).filter(|name| is_fit(name)).collect();
    if let Some(near) = nearest(&repo.revision, names.iter().cloned()) {
        return Some(format!("did you mean {near}?"));
    }
    let told: Vec<&str> = names.iter().take(TOLD).map(String::as_str).collect();
    (!told.is_empty()).then(|| format!("it has {}", told.join(", ")))
}

/// The name that takes the fewest changes, if they are few for its length.
fn nearest(wanted: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let lower = wanted.to_lowercase();
    let changes = |name: String| (distance(&lower, &name.to_lowercase()), name);
    let (changes, name) = names.into_iter().filter(|name| is_fit(name)).map(changes).min()?;
    (changes <= (wanted.chars().count() / 4).max(1)).then_some(name)
}

fn is_fit(name: &str) -> bool {
    name.len() <= 255 && !name.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// How many letters have to be added, removed or changed to get from one to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.chars().enumerate() {
        let mut left = line + 1;
        let cells = other.iter().zip(row.iter().zip(row.iter().skip(1))).map(|(b, (diagonal, above))| {
            left = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            left
        });
        row = std::iter::once(line + 1).chain(cells).collect();
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted() {
        for (one, other, changes) in
            [("", "", 0), ("", "ab", 2), ("ab", "", 2), ("falcon", "falcon", 0), ("facon", "falcon", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(one, other), changes, "{one} {other}");
        }
    }

    #[test]
    fn only_what_is_near_is_told() {
        let names = || ["tiiuae/falcon-40b", "tiiuae/falcon-7b", "acme/tiny"].map(str::to_owned);
        assert_eq!(nearest("tiiuae/facon-40b", names()).as_deref(), Some("tiiuae/falcon-40b"));
        assert_eq!(nearest("TIIUAE/Falcon-7B", names()).as_deref(), Some("tiiuae/falcon-7b"));
        assert_eq!(nearest("acme/huge", names()), None);
        assert_eq!(nearest("v1", ["v1.0\n".to_owned()]), None);
    }
}
