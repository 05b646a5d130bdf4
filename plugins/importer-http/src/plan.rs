//! From URLs to shards. The servers are asked for sizes and versions; the bytes stay where they are.

use substratus_plugin::{
    Failure,
    http::{Http, Method, Request as Ask, Response, header, no_answer},
    importer::{File, HttpOrigin, Origin, PlanPage, Request, Shard},
};

use crate::asked::{Asked, Make, Url};

/// The manifest's name for the token that hosts of Hugging Face get.
const AUTH: &str = "hf";
/// Servers are asked about so many files; more are imported without a look before.
const MAX_ASKED: usize = 40;

/// One shard per URL, all on one page.
pub fn plan(http: &dyn Http, request: &Request, _: Option<&str>) -> Result<PlanPage, Failure> {
    let asked = Asked::of(request)?;
    let mut version = Version::default();
    let mut shards = Vec::with_capacity(asked.urls.len());
    for url in &asked.urls {
        version.take(&url.url);
        let mut size = None;
        if asked.urls.len() <= MAX_ASKED
            && let Some(response) = look(http, url)?
        {
            for name in ["etag", "last-modified", "content-length", "x-linked-etag"] {
                version.take(header(&response, name).unwrap_or_default());
            }
            // What is sent compressed has another size.
            let encoded = header(&response, "content-encoding").is_some_and(|encoding| encoding != "identity");
            size = header(&response, "content-length").and_then(|size| size.parse().ok()).filter(|_| !encoded);
        }
        shards.push(Shard {
            name: url.name.clone(),
            inputs: vec![File { path: url.name.clone(), size, digest: None, origin: origin(url) }],
            decoding: asked.make.decoding(),
            mapped: false,
            output: output(&url.name, &asked.make),
            split: None,
            context: "{}".into(),
            extensions: Vec::new(),
        });
    }
    Ok(PlanPage { revision: version.text(), shards, facts: None, warnings: Vec::new(), next: None, extensions: Vec::new() })
}

/// A URL stays what it is.
pub fn refresh(request: &Request, path: &str) -> Result<File, Failure> {
    let asked = Asked::of(request)?;
    match asked.urls.iter().find(|url| url.name == path) {
        Some(url) => Ok(File { path: path.into(), size: None, digest: None, origin: origin(url) }),
        None => Err(Failure::Internal(format!("refreshing {path:?}: no URL of the plan"))),
    }
}

/// The head of an answer; nothing where the server does not tell without sending the file.
fn look(http: &dyn Http, url: &Url) -> Result<Option<Response>, Failure> {
    let ask = Ask {
        method: Method::Head,
        url: url.url.clone(),
        headers: vec![("accept-encoding".into(), "identity".into())],
        body: None,
        auth: Some(AUTH.into()),
        follow: true,
    };
    let response = http.send(&ask).map_err(|error| no_answer(error, &format!("asking for {}", shown(&url.url))))?;
    let shown = shown(&url.url);
    match response.status {
        200 => Ok(Some(response)),
        404 | 410 => Err(Failure::NotFound(format!("{shown}: the server answered {}", response.status))),
        401 | 403 => Err(Failure::NeedsAuth(format!(
            "{shown}: the server answered {}; give the env HF_TOKEN from a Secret where it is a host of Hugging Face, else a URL that needs none",
            response.status
        ))),
        429 => Err(Failure::RateLimited(header(&response, "retry-after").and_then(|seconds| seconds.trim().parse().ok()))),
        500..=599 => Err(Failure::Unavailable(format!("{shown}: the server answered {}", response.status))),
        _ => Ok(None),
    }
}

/// A URL without what may be secret in it.
fn shown(url: &str) -> &str {
    url.split_once(['?', '#']).map_or(url, |(url, _)| url)
}

fn origin(url: &Url) -> Origin {
    Origin::Http(HttpOrigin { url: url.url.clone(), headers: Vec::new(), auth: Some(AUTH.into()), expires: None })
}

/// Files keep their names; a compressed one loses the ending; the members of an archive lie in a folder of its name.
fn output(name: &str, make: &Make) -> String {
    let stem = |name: &str, endings: &[&str]| {
        let found = endings.iter().find_map(|ending| name.strip_suffix(ending)).filter(|stem| !stem.is_empty());
        found.map(str::to_owned)
    };
    let archives = [".tar.gz", ".tgz", ".tar.zst", ".tar", ".zip"];
    let compressed = [".gz", ".zst", ".zstd"];
    match make {
        Make::Copy => name.to_owned(),
        Make::Unpacked => {
            stem(name, &archives).or_else(|| stem(name, &compressed)).unwrap_or_else(|| name.to_owned())
        }
        Make::Rows { .. } => {
            let name = stem(name, &archives).or_else(|| stem(name, &compressed)).unwrap_or_else(|| name.to_owned());
            let formats = [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"];
            format!("{}.jsonl", stem(&name, &formats).unwrap_or(name))
        }
    }
}

/// A name for what the servers say now: FNV-1a over 128 bits.
struct Version(u128);

impl Default for Version {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Version {
    fn take(&mut self, text: &str) {
        for byte in text.bytes().chain([0]) {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }

    fn text(&self) -> String {
        format!("{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use substratus_plugin::testing;

    use super::*;

    #[test]
    fn cases() {
        testing::importer_cases(env!("CARGO_MANIFEST_DIR"), plan, refresh, crate::transform);
    }

    #[test]
    fn outputs_are_what_is_inside() {
        let rows = Make::Rows { format: None, member: None };
        for (name, files, jsonl) in [
            ("a.jsonl", "a.jsonl", "a.jsonl"),
            ("a.csv.gz", "a.csv", "a.jsonl"),
            ("a.tar.gz", "a", "a.jsonl"),
            ("a.zip", "a", "a.jsonl"),
            (".gz", ".gz", ".gz.jsonl"),
            ("data", "data", "data.jsonl"),
        ] {
            assert_eq!(output(name, &Make::Unpacked), files);
            assert_eq!(output(name, &rows), jsonl);
            assert_eq!(output(name, &Make::Copy), name);
        }
    }

    #[test]
    fn versions_differ_where_a_text_ends() {
        let version = |texts: &[&str]| {
            let mut version = Version::default();
            texts.iter().for_each(|text| version.take(text));
            version.text()
        };
        assert_ne!(version(&["ab", "c"]), version(&["a", "bc"]));
        assert_eq!(version(&["ab", "c"]).len(), 32);
    }
}
