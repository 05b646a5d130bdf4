//! `/api/models/…`: what the hub knows of a repository. Must not know who may ask.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};

use super::{
    content::Content,
    published::{Commit, Published, What},
    refusal::Refusal,
    repo::Kind,
    tree::large,
};

/// Largest README or config that is looked into.
const READABLE: u64 = 1 << 20;

/// The metadata of a repository at a revision; `?blobs=true` adds sizes.
pub(super) fn info(repo: &Published, revision: &str, query: Option<&str>) -> Result<Response, Refusal> {
    let commit = repo.commit(revision).ok_or_else(|| Refusal::revision(revision))?;
    let blobs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .any(|(key, value)| key == "blobs" && value.eq_ignore_ascii_case("true"));
    let mut info = json!({
        "_id": commit.sha.get(..24),
        "id": repo.id,
        "author": repo.id.split('/').next(),
        "sha": commit.sha,
        "private": repo.private,
        "gated": repo.gated.json(),
        "disabled": repo.disabled,
        "lastModified": "2026-01-01T00:00:00.000Z",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "usedStorage": commit.entries.iter().map(super::published::Entry::size).sum::<u64>(),
        "siblings": siblings(commit, blobs),
    });
    if let Some(info) = info.as_object_mut() {
        if repo.kind == Kind::Model {
            info.insert("modelId".to_owned(), repo.id.clone().into());
            info.extend(config(commit).map(|config| ("config".to_owned(), config)));
        }
        info.extend(card(commit).map(|card| ("cardData".to_owned(), card)));
        info.extend(repo.info.clone());
    }
    Ok(Json(info).into_response())
}

/// Names of branches and tags: `main` is a branch, everything else a tag; `refs/…` is neither.
pub(super) fn refs(repo: &Published) -> Response {
    let list = |kind: &str, is_branch: bool| -> Vec<Value> {
        let named = repo.refs().filter(|(name, _)| !name.starts_with("refs/") && (*name == "main") == is_branch);
        named.map(|(name, sha)| json!({"name": name, "ref": format!("refs/{kind}/{name}"), "targetCommit": sha})).collect()
    };
    Json(json!({"branches": list("heads", true), "tags": list("tags", false), "converts": []})).into_response()
}

/// Repositories whose name holds `?search=`, of `?author=`, at most `?limit=`.
pub(super) fn search<'a>(repos: impl Iterator<Item = &'a Arc<Published>>, query: Option<&str>) -> Response {
    let asked: HashMap<_, _> = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    let limit = asked.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let fits = |repo: &&Arc<Published>| {
        let lower = repo.id.to_lowercase();
        asked.get("search").is_none_or(|text| lower.contains(&text.to_lowercase()))
            && asked.get("author").is_none_or(|author| repo.id.split_once('/').is_some_and(|(owner, _)| owner == author))
    };
    let found = repos.filter(fits).take(limit);
    let found: Vec<Value> = found.map(|repo| json!({"id": repo.id, "private": repo.private, "tags": []})).collect();
    Json(found).into_response()
}

fn siblings(commit: &Commit, blobs: bool) -> Vec<Value> {
    let files = commit.entries.iter().filter(|entry| !entry.is_directory());
    files
        .map(|entry| {
            let mut sibling = Map::from_iter([("rfilename".to_owned(), entry.path.clone().into())]);
            if blobs {
                sibling.insert("size".to_owned(), entry.size().into());
                sibling.insert("blobId".to_owned(), entry.oid.clone().into());
                if let Some((sha256, size, pointer_size)) = large(entry) {
                    let lfs = json!({ "sha256": sha256, "size": size, "pointerSize": pointer_size });
                    sibling.insert("lfs".to_owned(), lfs);
                }
            }
            Value::Object(sibling)
        })
        .collect()
}

/// The part of `config.json` that the hub repeats.
fn config(commit: &Commit) -> Option<Value> {
    let config: Map<String, Value> = serde_json::from_str(&text(commit, "config.json")?).ok()?;
    let kept = config.into_iter().filter(|(key, _)| key == "architectures" || key == "model_type");
    Some(Value::Object(kept.collect()))
}

/// The front matter of the model card.
fn card(commit: &Commit) -> Option<Value> {
    let readme = text(commit, "README.md")?;
    let (front, _) = readme.strip_prefix("---\n")?.split_once("\n---")?;
    serde_saphyr::from_str(front).ok()
}

fn text(commit: &Commit, path: &str) -> Option<String> {
    let What::Small(content) = &commit.entry(path)?.what else { return None };
    let mut text = Vec::new();
    let readable: Option<&Content> = Some(content).filter(|content| content.size() <= READABLE);
    readable?.each_chunk(|chunk| text.extend_from_slice(chunk)).ok()?;
    String::from_utf8(text).ok()
}
