//! The hub's HTTP API for data sets: the few members that we read, and what its refusals mean. It decides nothing about files.

use serde::Deserialize;
use serde_json::Value;
use substratus_plugin::{
    Digest, Failure,
    http::{Http, Response, encode_path, encode_segment, get, header, no_answer},
    importer::{File, HttpOrigin, Origin},
};

use crate::asked::Asked;

/// The manifest's name for the hub's token.
const AUTH: &str = "hf";
/// Files that are looked at.
const MAX_FILES: usize = 5000;

/// A repository's description.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Info {
    /// The commit.
    pub(crate) sha: String,
    #[serde(rename = "cardData")]
    card: Value,
    tags: Value,
}

impl Info {
    /// The card's licence; `other` is explained by `license_name`. Repositories without a card often have the tag.
    pub(crate) fn license(&self) -> Option<String> {
        let card = |name: &str| {
            let value = self.card.get(name)?;
            value.as_str().or_else(|| value.get(0)?.as_str()).map(str::to_owned)
        };
        let tags = || self.tags.as_array().into_iter().flatten().filter_map(Value::as_str);
        let tag = || tags().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned);
        match card("license").or_else(tag) {
            Some(license) if license == "other" => Some(card("license_name").unwrap_or(license)),
            license => license,
        }
    }
}

/// A file of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct Entry {
    #[serde(rename = "type")]
    kind: String,
    pub(crate) path: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    /// The sha256 of the content.
    oid: String,
    size: Option<u64>,
}

impl Entry {
    /// As an input. Small files lie in git and have no sha256.
    pub(crate) fn input(&self, asked: &Asked, commit: &str) -> File {
        let digest = self.lfs.as_ref().map(|lfs| lfs.oid.trim_start_matches("sha256:").to_ascii_lowercase());
        let digest = digest.filter(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        File {
            path: self.path.clone(),
            size: self.lfs.as_ref().and_then(|lfs| lfs.size).or(self.size),
            digest: digest.map(|hex| Digest { algorithm: "sha256".into(), hex }),
            origin: origin(asked, commit, &self.path),
        }
    }
}

/// Where a file's bytes are. The hub redirects large ones to a signed URL; asking again gives a fresh one.
pub(crate) fn origin(asked: &Asked, commit: &str, path: &str) -> Origin {
    Origin::Http(HttpOrigin {
        url: format!("{}/datasets/{}/resolve/{}/{}", asked.endpoint, asked.id, encode_segment(commit), encode_path(path)),
        headers: Vec::new(),
        auth: Some(AUTH.into()),
        expires: None,
    })
}

/// The repository at a revision.
pub(crate) fn info(http: &dyn Http, asked: &Asked, revision: &str) -> Result<Info, Failure> {
    let url = format!("{}/api/datasets/{}/revision/{}", asked.endpoint, asked.id, encode_segment(revision));
    let info: Info = read(asked, &ask(http, asked, &url, revision)?)?;
    if (7..=64).contains(&info.sha.len()) && info.sha.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(info);
    }
    Err(Failure::Unsupported(format!("{} names no commit for {}: it does not speak the hub's API", asked.endpoint, asked.id)))
}

/// Every file at a commit, page by page. The pages stay with the endpoint, for the token goes with us.
pub(crate) fn files(http: &dyn Http, asked: &Asked, commit: &str) -> Result<Vec<Entry>, Failure> {
    let base = format!("/api/datasets/{}/tree/", asked.id);
    let mut page = Some(format!("{base}{}?recursive=true&expand=false", encode_segment(commit)));
    let mut files: Vec<Entry> = Vec::new();
    while let Some(path) = page {
        let response = ask(http, asked, &format!("{}{path}", asked.endpoint), commit)?;
        let entries: Vec<Entry> = read(asked, &response)?;
        files.extend(entries.into_iter().filter(|entry| entry.kind == "file"));
        if files.len() > MAX_FILES {
            return Err(Failure::Unsupported(format!("{} has more than {MAX_FILES} files", asked.id)));
        }
        page = header(&response, "link").and_then(|link| next(link, &base));
    }
    Ok(files)
}

fn next(link: &str, base: &str) -> Option<String> {
    let next = link.split(',').find(|one| one.contains("rel=\"next\""))?;
    let url = next.split_once('<')?.1.split_once('>')?.0;
    let (_, rest) = url.split_once(base)?;
    let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '#' | '\\');
    (!rest.contains("..") && !rest.contains(odd)).then(|| format!("{base}{rest}"))
}

fn ask(http: &dyn Http, asked: &Asked, url: &str, revision: &str) -> Result<Response, Failure> {
    let (id, endpoint) = (&asked.id, &asked.endpoint);
    let response = http.send(&get(url, Some(AUTH))).map_err(|error| no_answer(error, &format!("asking {endpoint} for {id}")))?;
    if response.status == 200 { Ok(response) } else { Err(refused(asked, &response, revision)) }
}

/// The status alone misleads: the headers decide.
fn refused(asked: &Asked, response: &Response, revision: &str) -> Failure {
    let (id, endpoint) = (&asked.id, &asked.endpoint);
    let code = header(response, "x-error-code").unwrap_or_default();
    let message = header(response, "x-error-message").unwrap_or_default();
    match (response.status, code) {
        _ if message.contains("is disabled") => Failure::Disabled(format!("{id} was disabled by {endpoint}: choose another")),
        // 401 to who shows no token, 403 to who shows one and was not let in.
        (401, "GatedRepo") => {
            Failure::NeedsAuth(format!("{id} is gated: ask for access at {endpoint}/datasets/{id}, and show a token"))
        }
        (403, "GatedRepo") => Failure::Gated(format!("{endpoint}/datasets/{id}")),
        (401, _) if message.contains("Invalid credentials") => Failure::NeedsAuth(format!(
            "the token given as HF_TOKEN is not valid at {endpoint}: make a new one at {endpoint}/settings/tokens"
        )),
        (401, _) | (404, "RepoNotFound") => Failure::NotFound(format!(
            "{id} does not exist at {endpoint}, or is private and the token may not read it: check the name, or give the env \
             HF_TOKEN from a Secret with a token of {endpoint}/settings/tokens"
        )),
        (404, _) => Failure::NotFound(format!("{id} has no revision {revision:?} at {endpoint}")),
        (403, _) => Failure::Forbidden(format!(
            "the token given as HF_TOKEN may not read {id}: give it read access to this repository at {endpoint}/settings/tokens"
        )),
        (429, _) => Failure::RateLimited(header(response, "retry-after").and_then(|seconds| seconds.trim().parse().ok())),
        (status @ (408 | 425 | 500..=599), _) => Failure::Unavailable(format!("{endpoint} answered {status} to {id}")),
        (status, _) => Failure::Internal(format!("{endpoint} answered {status} to {id}")),
    }
}

fn read<T: for<'a> Deserialize<'a>>(asked: &Asked, response: &Response) -> Result<T, Failure> {
    serde_json::from_slice(&response.body)
        .map_err(|error| Failure::Unavailable(format!("reading what {} says of {}: {error}", asked.endpoint, asked.id)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_licence_is_on_the_card_or_a_tag() {
        let license = |info: Value| serde_json::from_value::<Info>(info).unwrap().license();
        for (info, expected) in [
            (json!({"cardData": {"license": "mit"}, "tags": ["license:apache-2.0"]}), Some("mit")),
            (json!({"cardData": {"license": ["mit", "bsd"]}}), Some("mit")),
            (json!({"cardData": {"license": "other", "license_name": "own"}}), Some("own")),
            (json!({"tags": ["text", "license:apache-2.0"]}), Some("apache-2.0")),
            (json!({"tags": null}), None),
        ] {
            assert_eq!(license(info).as_deref(), expected);
        }
    }

    #[test]
    fn the_next_page_stays_with_the_repository() {
        let base = "/api/datasets/a/b/tree/";
        let link = |path: &str| next(&format!("<https://evil.example{path}>; rel=\"next\""), base);
        assert_eq!(link("/api/datasets/a/b/tree/c?cursor=x").as_deref(), Some("/api/datasets/a/b/tree/c?cursor=x"));
        assert_eq!(link("/api/datasets/a/b/tree/../x"), None);
        assert_eq!(link("/elsewhere"), None);
    }
}
