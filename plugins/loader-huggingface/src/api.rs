//! The hub's HTTP API: URLs, and the few members of its answers that we read. It decides nothing about files.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use substratus_plugin::{
    Digest, Failure,
    http::{Http, Method, Request, Response, encode_path, encode_segment, get, header, no_answer},
    loader::{File, HttpOrigin, Origin},
};

use crate::{errors, near, reference::Repo};

/// The manifest's name for the hub's token.
const AUTH: &str = "hf";
const MAX_CONFIG: usize = 1 << 20;

/// What we read of a repository's description. Everything is optional: mirrors leave things out.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    /// The commit.
    pub(crate) sha: Option<String>,
    pub(crate) disabled: Option<bool>,
    pub(crate) private: Option<bool>,
    /// `false`, `"auto"` or `"manual"`.
    pub(crate) gated: Value,
    pub(crate) siblings: Option<Vec<Sibling>>,
    #[serde(rename = "cardData")]
    pub(crate) card: Value,
    pub(crate) tags: Value,
    pub(crate) safetensors: Value,
    pub(crate) gguf: Value,
}

impl Info {
    /// Whether access is asked for first.
    pub(crate) fn is_gated(&self) -> bool {
        !matches!(self.gated, Value::Null | Value::Bool(false))
    }
}

/// A file's name in a repository's description.
#[derive(Debug, Deserialize)]
pub(crate) struct Sibling {
    pub(crate) rfilename: String,
}

/// One entry of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) path: String,
    size: Option<u64>,
    /// Git's object id: of the file where it lies in git, else of a pointer to it.
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    /// The sha256 of the content.
    oid: String,
    size: Option<u64>,
}

impl Entry {
    /// Whether it is a file; the rest are folders.
    pub(crate) fn is_file(&self) -> bool {
        self.kind == "file"
    }

    /// As a file of the plan. Small files lie in git, which knows them by their object id.
    pub(crate) fn into_file(self, repo: &Repo, commit: &str) -> File {
        let (algorithm, length, oid) = match &self.lfs {
            Some(lfs) => ("sha256", 64, lfs.oid.trim_start_matches("sha256:")),
            None => ("gitoid:blob:sha1", 40, self.oid.as_str()),
        };
        let is_digest = oid.len() == length && oid.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digest = is_digest.then(|| oid.to_ascii_lowercase());
        File {
            size: self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size),
            digest: digest.map(|hex| Digest { algorithm: algorithm.into(), hex }),
            origin: origin(repo, commit, &self.path),
            path: self.path,
        }
    }
}

/// One page of a listing.
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    /// Path and query of the next page, below the endpoint.
    pub(crate) next: Option<String>,
}

/// Where a file's bytes are. The hub redirects large ones to a signed URL; asking again gives a fresh one.
pub(crate) fn origin(repo: &Repo, commit: &str, path: &str) -> Origin {
    Origin::Http(HttpOrigin {
        url: format!("{}/{}/resolve/{}/{}", repo.endpoint, repo.id, encode_segment(commit), encode_path(path)),
        headers: Vec::new(),
        auth: Some(AUTH.into()),
        expires: None,
    })
}

/// The repository at its revision: the commit, the file names, the card.
pub(crate) fn info(http: &dyn Http, repo: &Repo) -> Result<Info, Failure> {
    let url = format!("{}/api/models/{}/revision/{}", repo.endpoint, repo.id, encode_segment(&repo.revision));
    let what = format!("revision {:?}", repo.revision);
    let response = send(http, repo, &get(&url, Some(AUTH)), &what)?;
    if response.status != 200 {
        return Err(near::hint(http, repo, &response, errors::failure(repo, &response, &what)));
    }
    let info: Info = json(repo, &response, &what)?;
    if info.disabled == Some(true) {
        return Err(errors::disabled(repo));
    }
    Ok(info)
}

/// Path and query of the first page of a listing.
pub(crate) fn first_page(repo: &Repo, commit: &str) -> String {
    format!("/api/models/{}/tree/{}?recursive=true&expand=false", repo.id, encode_segment(commit))
}

/// One page of a listing.
pub(crate) fn listing(http: &dyn Http, repo: &Repo, page: &str) -> Result<Listing, Failure> {
    let what = "the list of files";
    let response = ask(http, repo, &format!("{}{page}", repo.endpoint), what)?;
    let next = header(&response, "link").and_then(next_link);
    Ok(Listing { entries: json(repo, &response, what)?, next })
}

/// The model's own configuration. Lenient: a repository without one, or with an odd one, still loads. A refusal counts: it would
/// meet every file. So does a passing failure: the host asks again, and an engine gets the architecture it is chosen by.
pub(crate) fn model_config(http: &dyn Http, repo: &Repo, commit: &str) -> Result<Option<Value>, Failure> {
    let what = "config.json";
    let url = format!("{}/{}/resolve/{}/{what}", repo.endpoint, repo.id, encode_segment(commit));
    match ask(http, repo, &url, what) {
        Ok(response) if response.body.len() <= MAX_CONFIG => Ok(serde_json::from_slice(&response.body).ok()),
        Err(
            refused @ (Failure::Gated(_)
            | Failure::NeedsAuth(_)
            | Failure::Forbidden(_)
            | Failure::RateLimited(_)
            | Failure::Unavailable(_)),
        ) => Err(refused),
        Ok(_) | Err(_) => Ok(None),
    }
}

/// Whether a file may be read, without reading it: a listing is open to everybody, the files of a gated repository are not.
pub(crate) fn try_file(http: &dyn Http, repo: &Repo, commit: &str, path: &str) -> Result<(), Failure> {
    let url = format!("{}/{}/resolve/{}/{}", repo.endpoint, repo.id, encode_segment(commit), encode_path(path));
    let head = Request { method: Method::Head, follow: false, ..get(url, Some(AUTH)) };
    let response = send(http, repo, &head, path)?;
    if (200..400).contains(&response.status) { Ok(()) } else { Err(errors::failure(repo, &response, path)) }
}

/// An answer of the API as JSON, where there is one: for what a load can do without.
pub(crate) fn try_json<T: for<'a> Deserialize<'a>>(http: &dyn Http, repo: &Repo, path_and_query: &str) -> Option<T> {
    let response = http.send(&get(format!("{}{path_and_query}", repo.endpoint), Some(AUTH))).ok()?;
    serde_json::from_slice(&response.body).ok().filter(|_| response.status == 200)
}

fn ask(http: &dyn Http, repo: &Repo, url: &str, what: &str) -> Result<Response, Failure> {
    let response = send(http, repo, &get(url, Some(AUTH)), what)?;
    if response.status == 200 { Ok(response) } else { Err(errors::failure(repo, &response, what)) }
}

fn send(http: &dyn Http, repo: &Repo, request: &Request, what: &str) -> Result<Response, Failure> {
    http.send(request).map_err(|error| no_answer(error, &format!("asking {} for {what} of {}", repo.endpoint, repo.id)))
}

fn json<T: for<'a> Deserialize<'a>>(repo: &Repo, response: &Response, what: &str) -> Result<T, Failure> {
    serde_json::from_slice(&response.body)
        .map_err(|error| Failure::Unavailable(format!("reading {what} of {} from {}: {error}", repo.id, repo.endpoint)))
}

/// The `rel="next"` of a `Link` header as path and query from `/api/models/` on: a mirror's links may name the hub itself, but
/// we stay with the endpoint, for the token goes with us.
fn next_link(link: &str) -> Option<String> {
    let next = link.split(',').find(|one| one.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    let (_, path) = url.split_once("/api/models/")?;
    is_page(path).then(|| format!("/api/models/{path}"))
}

/// Whether this can only be a page of a listing.
pub(crate) fn is_page(page: &str) -> bool {
    !page.contains("..") && !page.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, '#' | '\\'))
}

/// Names of numeric members, largest number first; used for `safetensors.parameters`.
pub(crate) fn counts(value: &Value) -> BTreeMap<std::cmp::Reverse<u64>, String> {
    let members = value.as_object().into_iter().flatten();
    members.filter_map(|(name, count)| Some((std::cmp::Reverse(count.as_u64()?), name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo() -> Repo {
        Repo { endpoint: "https://hub.example".into(), id: "org/name".into(), revision: "main".into() }
    }

    #[test]
    fn the_next_page_stays_with_the_endpoint() {
        let page = "/api/models/org/name/tree/abc?recursive=true&expand=false&cursor=Zm9v%3D";
        for host in ["https://hub.example", "https://huggingface.co", "https://evil.example", ""] {
            assert_eq!(next_link(&format!("<{host}{page}>; rel=\"next\"")).as_deref(), Some(page), "{host}");
        }
        assert_eq!(next_link("<https://hub.example/elsewhere>; rel=\"next\""), None);
        assert_eq!(next_link("<https://hub.example/api/models/../../x>; rel=\"next\""), None);
        assert_eq!(next_link("<https://hub.example/api/models/a>; rel=\"prev\""), None);
        assert_eq!(next_link("rel=\"next\""), None);
    }

    #[test]
    fn files_are_known_by_their_sha256_or_by_their_object_id() {
        let oid = "A".repeat(64);
        let text = format!(r#"{{"type":"file","oid":"git","path":"a b/w.bin","size":3,"lfs":{{"oid":"{oid}","size":9}}}}"#);
        let entry: Entry = serde_json::from_str(&text).unwrap();
        let file = entry.into_file(&repo(), "c0ffee");
        assert_eq!(file.size, Some(9));
        assert_eq!(file.digest.unwrap().hex, "a".repeat(64));
        let Origin::Http(origin) = file.origin else { panic!("not http") };
        assert_eq!(origin.url, "https://hub.example/org/name/resolve/c0ffee/a%20b/w.bin");

        let oid = "b".repeat(40);
        let small = |oid: &str| format!(r#"{{"type":"file","oid":"{oid}","path":"config.json","size":3}}"#);
        let digest = |text: &str| serde_json::from_str::<Entry>(text).unwrap().into_file(&repo(), "c0ffee").digest;
        let known = Digest { algorithm: "gitoid:blob:sha1".into(), hex: oid.clone() };
        assert_eq!(digest(&small(&oid)), Some(known));
        for text in [&small("git"), &small(&"a".repeat(64)), r#"{"type":"file","path":"config.json","size":3}"#] {
            assert_eq!(digest(text), None);
        }
    }
}
