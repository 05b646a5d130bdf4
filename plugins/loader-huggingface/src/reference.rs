//! Which repository the user means, and where the hub is. Pure; what the hub answers is not known here.

use serde::Deserialize;
use substratus_plugin::{Failure, config, http, invalid, loader::Request, params::Params};

const SCHEME: &str = "hf://";
const DEFAULT_REVISION: &str = "main";
const MAX_ID: usize = 96;
const MAX_REVISION: usize = 255;

/// `Plugin.spec.config`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    endpoint: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { endpoint: "https://huggingface.co".into() }
    }
}

/// A repository at a revision, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repo {
    /// Without a slash at the end.
    pub(crate) endpoint: String,
    /// `org/name`, or `name` alone for the hub's oldest repositories.
    pub(crate) id: String,
    /// A branch, a tag, a commit or `refs/pr/2`.
    pub(crate) revision: String,
}

impl Repo {
    /// Reads `spec.source`, or the parameters of the image that this plugin stands in for. A revision that an earlier answer
    /// resolved to wins: all pages of one load stay on it.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let endpoint = endpoint(&request.config)?;
        let params = Params::new(&request.params);
        let source = request.source.as_deref().filter(|source| !source.is_empty());
        let (id, field, asked) = if let Some(source) = source {
            let (id, revision) = parse_source(source)?;
            (id, "spec.source", revision)
        } else {
            let missing = || invalid("spec.params.name", "is missing: name a repository, such as facebook/opt-125m");
            (params.text("name")?.ok_or_else(missing)?, "spec.params.name", None)
        };
        check_id(&id, field)?;
        let by_param = params.text("revision")?;
        if let (Some(asked), Some(other)) = (&asked, &by_param)
            && asked != other
        {
            let reason = format!("is {other:?}, but spec.source says {asked:?}: give the revision once");
            return Err(invalid("spec.params.revision", reason));
        }
        let revision = request.revision.clone().or(asked).or(by_param).unwrap_or_else(|| DEFAULT_REVISION.into());
        check_revision(&revision, if field == "spec.source" { field } else { "spec.params.revision" })?;
        Ok(Self { endpoint, id, revision })
    }

    /// The repository's page, where access is asked for.
    pub(crate) fn page(&self) -> String {
        format!("{}/{}", self.endpoint, self.id)
    }
}

fn endpoint(json: &str) -> Result<String, Failure> {
    let Config { endpoint } = config::parse(json)?;
    let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
    let rest = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['?', '#', '@', ' ', '\\']) => Ok(endpoint),
        _ => Err(invalid(
            "Plugin.spec.config.endpoint",
            format!("is {endpoint:?}, must be a plain URL such as https://huggingface.co"),
        )),
    }
}

fn parse_source(source: &str) -> Result<(String, Option<String>), Failure> {
    let wrong = |why: &str| invalid("spec.source", format!("is {source:?}: {why}"));
    let rest = source.strip_prefix(SCHEME).ok_or_else(|| wrong("must start with hf://"))?;
    let (id, revision) = match rest.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (rest, None),
    };
    let id = http::decode(id).ok_or_else(|| wrong("its percent-encoding is broken"))?;
    if id.starts_with("datasets/") || id.starts_with("spaces/") {
        return Err(wrong("is not a model; name a model repository, such as hf://tiiuae/falcon-40b"));
    }
    if id.matches('/').count() > 1 {
        return Err(wrong("has too many parts; write hf://org/name, and choose files with spec.files.include"));
    }
    let revision = match revision.map(http::decode) {
        Some(None) => return Err(wrong("its percent-encoding is broken")),
        Some(Some(revision)) if revision.is_empty() => return Err(wrong("the revision after @ is empty")),
        Some(revision) => revision,
        None => None,
    };
    Ok((id, revision))
}

fn check_id(id: &str, field: &str) -> Result<(), Failure> {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(['-', '.'])
            && !name.ends_with(['-', '.'])
            && !name.contains("..")
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let is_id = id.len() <= MAX_ID && id.split('/').count() <= 2 && id.split('/').all(is_name);
    if is_id {
        return Ok(());
    }
    let expected = "must be org/name of letters, digits, `-`, `_` and `.`, such as facebook/opt-125m";
    Err(invalid(field, format!("names the repository {id:?}, {expected}")))
}

fn check_revision(revision: &str, field: &str) -> Result<(), Failure> {
    let is_odd = |c: char| c.is_control() || c.is_whitespace();
    let has_dots = revision.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    if revision.len() > MAX_REVISION || has_dots || revision.contains(is_odd) {
        return Err(invalid(field, format!("names the revision {revision:?}, must be a branch, a tag or a commit")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use substratus_plugin::testing;

    use super::*;

    fn repo(members: Value) -> Result<Repo, Failure> {
        Repo::of(&testing::request("Model", members))
    }

    fn field(result: Result<Repo, Failure>) -> String {
        match result {
            Err(Failure::Invalid(problems)) => problems[0].field.clone(),
            other => panic!("expected invalid, got {other:?}"),
        }
    }

    #[test]
    fn sources() {
        for (source, id, revision) in [
            ("hf://tiiuae/falcon-40b", "tiiuae/falcon-40b", "main"),
            ("hf://gpt2", "gpt2", "main"),
            ("hf://a/b@v1.0", "a/b", "v1.0"),
            ("hf://a/b@refs%2Fpr%2F2", "a/b", "refs/pr/2"),
            ("hf://a/b@refs/pr/2", "a/b", "refs/pr/2"),
            ("hf://a%2Fb", "a/b", "main"),
        ] {
            let repo = repo(json!({"source": source})).unwrap();
            assert_eq!((repo.id.as_str(), repo.revision.as_str()), (id, revision), "{source}");
        }
    }

    #[test]
    fn bad_sources_name_their_field() {
        for source in [
            "hf://",
            "hf:///b",
            "hf://a/",
            "hf://a/b/c",
            "hf://a/b@",
            "hf://a/..",
            "hf://../b",
            "hf://a/b%",
            "hf://a/b@..",
            "hf://datasets/a/b",
            "hf://a b/c",
            "https://huggingface.co/a/b",
            "hf://a/b@x%0d%0ay",
            "hf://a/b?x",
            "hf://a/%2e%2e",
        ] {
            assert_eq!(field(repo(json!({"source": source}))), "spec.source", "{source}");
        }
    }

    #[test]
    fn parameters_of_the_stock_image() {
        let params = json!([["name", "\"facebook/opt-125m\""], ["revision", "\"v1\""]]);
        let found = repo(json!({"params": params})).unwrap();
        assert_eq!((found.id.as_str(), found.revision.as_str()), ("facebook/opt-125m", "v1"));
        assert_eq!(field(repo(json!({}))), "spec.params.name");
        assert_eq!(field(repo(json!({"params": [["name", "\"a/../b\""]]}))), "spec.params.name");
        let twice = json!({"source": "hf://a/b@v2", "params": [["revision", "\"v1\""]]});
        assert_eq!(field(repo(twice)), "spec.params.revision");
    }

    #[test]
    fn an_earlier_answer_pins_the_revision() {
        assert_eq!(repo(json!({"source": "hf://a/b@main", "revision": "abc"})).unwrap().revision, "abc");
    }

    #[test]
    fn endpoints() {
        let of = |endpoint: &str| endpoint_of(&json!({ "endpoint": endpoint }).to_string());
        assert_eq!(of("https://hub.example/"), Ok("https://hub.example".into()));
        assert_eq!(of("http://10.0.0.1:8080/hub"), Ok("http://10.0.0.1:8080/hub".into()));
        for wrong in ["", "hub.example", "ftp://hub", "https://", "https://u:p@hub", "https://hub?x=1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    fn endpoint_of(json: &str) -> Result<String, Failure> {
        endpoint(json)
    }

    #[test]
    fn the_manifest_tells_the_same_defaults() {
        let manifest = testing::manifest_defaults(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(manifest, json!({"endpoint": Config::default().endpoint}));
    }
}
