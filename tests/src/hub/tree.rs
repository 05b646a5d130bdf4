//! Listings: `tree` in pages with `Link: …; rel="next"`, and `paths-info`. Must not know who may ask.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::to_bytes,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    published::{Commit, Entry, Published, What},
    refusal::Refusal,
    state::Shared,
};

/// The real hub's page when `expand=true`.
const EXPANDED_PAGE: usize = 50;

/// Largest `paths-info` request that is read.
const PATHS: usize = 1 << 20;

/// One page of what lies below a path.
pub(super) fn tree(
    shared: &Shared,
    repo: &Published,
    revision: &str,
    path: &str,
    request: &Request,
) -> Result<Response, Refusal> {
    let commit = repo.commit(revision).ok_or_else(|| Refusal::revision(revision))?;
    if !path.is_empty() && !commit.entry(path).is_some_and(Entry::is_directory) {
        return Err(Refusal::entry(path));
    }
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let on = |name: &str| query.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    let (recursive, expand) = (on("recursive"), on("expand"));
    let size = if expand { shared.page_size().min(EXPANDED_PAGE) } else { shared.page_size() };
    let after = match query.get("cursor") {
        Some(cursor) => read_cursor(cursor).ok_or_else(|| Refusal::request(format!("Invalid cursor: {cursor}")))?,
        None => String::new(),
    };
    let mut below = commit.below(path, recursive, &after);
    let page: Vec<&Entry> = below.by_ref().take(size).collect();
    let listed: Vec<Value> = page.iter().map(|entry| line(commit, entry, expand)).collect();
    let mut response = Json(listed).into_response();
    if let (Some(last), Some(_)) = (page.last(), below.next()) {
        let link = next(request, query, &last.path).ok_or_else(|| Refusal::request("Invalid Host header"))?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The URL of the next page: the same one, with a cursor.
fn next(request: &Request, mut query: BTreeMap<String, String>, last: &str) -> Option<HeaderValue> {
    query.insert("cursor".to_owned(), hex::encode(last.as_bytes()));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let host = request.headers().get(header::HOST)?.to_str().ok()?;
    HeaderValue::from_str(&format!("<http://{host}{}?{query}>; rel=\"next\"", request.uri().path())).ok()
}

/// Cursors are opaque to clients: the hex of the last path of a page.
fn read_cursor(cursor: &str) -> Option<String> {
    let digits = (0..cursor.len()).step_by(2).map(|at| u8::from_str_radix(cursor.get(at..at + 2)?, 16).ok());
    String::from_utf8(digits.collect::<Option<Vec<u8>>>()?).ok()
}

#[derive(Deserialize)]
struct PathsInfo {
    paths: Vec<String>,
    #[serde(default)]
    expand: bool,
}

impl PathsInfo {
    /// The real hub takes JSON, and the form that its Python client sends.
    fn read(body: &[u8]) -> Option<Self> {
        if let Ok(asked) = serde_json::from_slice(body) {
            return Some(asked);
        }
        let mut asked = Self { paths: Vec::new(), expand: false };
        for (key, value) in form_urlencoded::parse(body) {
            match &*key {
                "paths" => asked.paths.push(value.into_owned()),
                "expand" => asked.expand = value.eq_ignore_ascii_case("true"),
                _ => return None,
            }
        }
        Some(asked)
    }
}

/// The lines of a few paths; unknown ones are left out, as the real hub does.
pub(super) async fn paths_info(repo: &Published, revision: &str, request: Request) -> Result<Response, Refusal> {
    let commit = repo.commit(revision).ok_or_else(|| Refusal::revision(revision))?;
    let body = to_bytes(request.into_body(), PATHS).await.map_err(|error| Refusal::request(error.to_string()))?;
    let asked = PathsInfo::read(&body).ok_or_else(|| Refusal::request("Invalid paths: neither JSON nor a form"))?;
    let found = asked.paths.iter().filter_map(|path| commit.entry(path));
    Ok(Json(found.map(|entry| line(commit, entry, asked.expand)).collect::<Vec<_>>()).into_response())
}

/// The sha256, size and pointer size of a large file.
pub(super) fn large(entry: &Entry) -> Option<(&str, u64, usize)> {
    match &entry.what {
        What::Large { sha256, pointer_size, content } => Some((sha256, content.size(), *pointer_size)),
        What::Directory | What::Small(_) => None,
    }
}

fn line(commit: &Commit, entry: &Entry, expand: bool) -> Value {
    let kind = if entry.is_directory() { "directory" } else { "file" };
    let mut fields = vec![
        ("type", kind.into()),
        ("oid", entry.oid.clone().into()),
        ("size", entry.size().into()),
        ("path", entry.path.clone().into()),
    ];
    if let Some((sha256, size, pointer_size)) = large(entry) {
        fields.push(("lfs", json!({ "oid": sha256, "size": size, "pointerSize": pointer_size })));
    }
    if expand {
        let commit = json!({ "id": commit.sha, "title": "Upload files", "date": "2026-01-01T00:00:00.000Z" });
        fields.push(("lastCommit", commit));
        if !entry.is_directory() {
            let status = json!({ "status": "safe", "avScan": null, "pickleImportScan": null });
            fields.push(("securityFileStatus", status));
        }
    }
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
