//! The two calls of a loader, page by page. What to ask is in `api`, what to keep in `select`.

use substratus_plugin::{
    Failure,
    http::Http,
    loader::{File, PlanPage, Request},
};

use crate::{
    access,
    api::{self, Entry, Listing},
    cursor::Cursor,
    facts,
    reference::Repo,
    select::{Choice, Filter},
};

/// Files of one answer at most. The hub's pages are half of this; a mirror may answer all at once.
const MAX_FILES: usize = 2000;

/// One page of the plan. The first one pins the revision to a commit and decides which weights to fetch.
pub fn resolve(http: &dyn Http, request: &Request, cursor: Option<&str>) -> Result<PlanPage, Failure> {
    let repo = Repo::of(request)?;
    let filter = Filter::of(request, &repo.id)?;
    match cursor {
        None => first(http, &repo, &filter, access::is_looking(request)),
        Some(text) => {
            let cursor = Cursor::read(text)?;
            let listing = api::listing(http, &repo, &cursor.page)?;
            page(&repo, &filter, cursor, listing)
        }
    }
}

/// The hub redirects every request to a fresh signed URL, so the file is where it was.
pub fn refresh(request: &Request, path: &str) -> Result<File, Failure> {
    let repo = Repo::of(request)?;
    let Some(commit) = request.revision.as_deref() else {
        return Err(Failure::Internal(format!("refreshing {path:?} of {} needs the revision of the plan", repo.id)));
    };
    if path.is_empty() || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Failure::Internal(format!("refreshing {path:?} of {}: not a path of the plan", repo.id)));
    }
    Ok(File { path: path.to_owned(), size: None, digest: None, origin: api::origin(&repo, commit, path) })
}

fn first(http: &dyn Http, repo: &Repo, filter: &Filter, looking: bool) -> Result<PlanPage, Failure> {
    let info = api::info(http, repo)?;
    let commit = info.sha.clone().filter(|sha| is_commit(sha)).ok_or_else(|| {
        Failure::Unsupported(format!("{} names no commit for {}: it does not speak the hub's API", repo.endpoint, repo.id))
    })?;
    let first_page = api::first_page(repo, &commit);
    let listing = api::listing(http, repo, &first_page)?;
    let names: Vec<&str> = match &info.siblings {
        Some(siblings) => siblings.iter().map(|sibling| sibling.rfilename.as_str()).collect(),
        None => listing.entries.iter().filter(|entry| entry.is_file()).map(|entry| entry.path.as_str()).collect(),
    };
    let complete = info.siblings.is_some() || listing.next.is_none();
    let mut decision = filter.decide(&names, complete)?;
    if !complete {
        decision.warnings.push(format!("{} lists files in pages only: the format was chosen by the first page", repo.endpoint));
    }
    let first = || names.iter().find(|path| filter.keeps(&decision.choice, path));
    let config = match first() {
        // Whoever only looks reads no file.
        _ if !looking && names.contains(&"config.json") => api::model_config(http, repo, &commit),
        Some(path) if info.is_gated() => api::try_file(http, repo, &commit, path).map(|()| None),
        _ => Ok(None),
    };
    let (config, refused) = match config {
        Err(failure) if looking => (None, Some(access::refusal(&failure).ok_or(failure)?)),
        config => (config?, None),
    };
    let extensions = if looking { vec![access::said(&info, refused.as_ref())] } else { Vec::new() };
    let facts = facts::facts(&info, config.as_ref(), &decision);
    let cursor = Cursor { commit, page: first_page, skip: 0, choice: decision.choice };
    let page = page(repo, filter, cursor, listing)?;
    Ok(PlanPage { facts: Some(facts), warnings: decision.warnings, extensions, ..page })
}

/// The files of one listing, from `cursor.skip` on, and where to go on.
fn page(repo: &Repo, filter: &Filter, cursor: Cursor, listing: Listing) -> Result<PlanPage, Failure> {
    let Listing { entries, next } = listing;
    let mut wanted = wanted(filter, &cursor.choice, entries).skip(cursor.skip);
    let files: Vec<File> = wanted.by_ref().take(MAX_FILES).map(|entry| entry.into_file(repo, &cursor.commit)).collect();
    let rest = wanted.next().is_some();
    drop(wanted);
    let commit = cursor.commit.clone();
    let next = match next {
        _ if rest => Some(Cursor { skip: cursor.skip + MAX_FILES, ..cursor }.text()?),
        Some(page) => Some(Cursor { page, skip: 0, ..cursor }.text()?),
        None => None,
    };
    Ok(PlanPage { revision: commit, files, facts: None, warnings: Vec::new(), next, extensions: Vec::new() })
}

fn wanted(filter: &Filter, choice: &Choice, entries: Vec<Entry>) -> impl Iterator<Item = Entry> {
    entries.into_iter().filter(move |entry| entry.is_file() && filter.keeps(choice, &entry.path))
}

fn is_commit(sha: &str) -> bool {
    (7..=64).contains(&sha.len()) && sha.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use serde_json::json;
    use substratus_plugin::{
        http::{Error, Response},
        testing,
    };

    use super::*;

    #[test]
    fn cases() {
        testing::loader_cases(env!("CARGO_MANIFEST_DIR"), resolve, refresh);
    }

    /// A mirror that knows no pages: one listing of many files.
    struct Mirror(usize);

    impl Http for Mirror {
        fn send(&self, request: &substratus_plugin::http::Request) -> Result<Response, Error> {
            let body = if request.url.contains("/tree/") {
                let mut list = String::from("[");
                for n in 0..self.0 {
                    let comma = if n == 0 { "" } else { "," };
                    write!(list, r#"{comma}{{"type":"file","path":"data/{n}.json","size":1}}"#).unwrap();
                }
                list + "]"
            } else {
                r#"{"sha": "c0ffee0"}"#.into()
            };
            Ok(Response { status: 200, headers: Vec::new(), body: body.into_bytes() })
        }
    }

    #[test]
    fn a_long_listing_becomes_several_pages() {
        let request = testing::request("Model", json!({"source": "hf://a/b"}));
        let mut cursor: Option<String> = None;
        let mut seen = Vec::new();
        loop {
            let page = resolve(&Mirror(4500), &request, cursor.as_deref()).unwrap();
            assert!(page.files.len() <= MAX_FILES);
            seen.extend(page.files.into_iter().map(|file| file.path));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 4500);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 4500);
    }
}
