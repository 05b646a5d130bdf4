//! Which `PluginSource` an image is under, and what that says of it. Pure: what a source names is fetched elsewhere.

use std::sync::Arc;

use kube::ResourceExt;
use substratus_crds::conditions::plugin as said;
use substratus_crds::{PluginSource, Unverified};

use super::failure::Failure;
use crate::plugin::{ImageName, SignaturePolicy};

/// An image, and the source that it is under.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// The source.
    pub source: Arc<PluginSource>,
    /// The image, taken apart.
    pub image: ImageName,
    /// Registry and repository that it is pulled from.
    pub pulled: String,
}

/// Who must have signed what comes from a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// One of these keys.
    Keys(SignaturePolicy),
    /// Nobody, as the source says explicitly.
    Nobody,
}

impl Trusted {
    /// What is asked of the registry.
    pub fn reference(&self) -> String {
        self.image.at(&self.pulled)
    }

    /// Name of the source.
    pub fn name(&self) -> String {
        self.source.name_any()
    }

    /// Who must have signed.
    pub fn policy(&self) -> Result<Policy, Failure> {
        let spec = &self.source.spec;
        match (&spec.verify, spec.unverified) {
            (Some(verify), _) if !verify.keys.is_empty() => {
                Ok(Policy::Keys(SignaturePolicy { keys: verify.keys.clone(), minimum: 1 }))
            }
            (None, Some(Unverified::Allow)) => Ok(Policy::Nobody),
            _ => Err(Failure::new(
                said::VERIFIED,
                said::UNVERIFIED,
                format!(
                    "PluginSource `{}` names no keys; name those who sign in spec.verify.keys, or write `unverified: Allow` into its spec",
                    self.name()
                ),
            )),
        }
    }
}

/// The source of an image: the one with the longest prefix that fits, and of two with the same the older.
pub fn find(sources: &[Arc<PluginSource>], image: &str) -> Result<Trusted, Failure> {
    let parsed = ImageName::parse(image).map_err(|error| Failure::of(&error.into()))?;
    let fitting = sources.iter().filter_map(|source| {
        let prefix = normal(&source.spec.prefix)?;
        rest(&parsed.name, &prefix).map(|_| (prefix, source))
    });
    let age = |source: &PluginSource| (source.creation_timestamp().map(|time| time.0), source.name_any());
    let best = fitting.max_by(|(prefix, one), (other_prefix, other)| {
        prefix.len().cmp(&other_prefix.len()).then_with(|| age(other).cmp(&age(one)))
    });
    let Some((prefix, source)) = best else { return Err(nobody(&parsed)) };
    let pulled = match &source.spec.mirror {
        None => parsed.name.clone(),
        Some(mirror) => {
            let name = || Some(format!("{}{}", normal(mirror)?, rest(&parsed.name, &prefix)?));
            let name = name().filter(|name| ImageName::parse(name).is_ok());
            name.ok_or_else(|| invalid(source, &format!("spec.mirror `{mirror}` is no beginning of an image's name")))?
        }
    };
    Ok(Trusted { source: Arc::clone(source), image: parsed, pulled })
}

/// Refuses a tag where the source takes digests only.
pub fn check_digest(trusted: &Trusted) -> Result<(), Failure> {
    if !trusted.source.spec.require_digest || trusted.image.digest.is_some() {
        return Ok(());
    }
    let message = format!(
        "PluginSource `{}` takes images by digest only; write {}@sha256:… into spec.image",
        trusted.name(),
        trusted.image.name
    );
    Err(Failure::new(said::RESOLVED, said::DIGEST_REQUIRED, message))
}

fn invalid(source: &PluginSource, why: &str) -> Failure {
    Failure::new(said::RESOLVED, said::SOURCE_INVALID, format!("PluginSource `{}`: {why}", source.name_any()))
}

/// A prefix with its registry and without a slash at its end; nothing where it is no beginning of a name.
fn normal(prefix: &str) -> Option<String> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let (host, path) = prefix.split_once('/').map_or((prefix, None), |(host, path)| (host, Some(path)));
    let is_registry = host.contains(['.', ':']) || host == "localhost";
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]/".contains(c);
    let whole = !prefix.is_empty() && prefix.chars().all(fits) && !prefix.split('/').any(|part| part.is_empty() || part == "..");
    // A colon behind the registry would be a tag.
    if !whole || path.is_some_and(|path| path.contains(':')) {
        return None;
    }
    Some(if is_registry { prefix.to_owned() } else { format!("docker.io/{prefix}") })
}

/// What is behind the prefix, where it ends where a name ends.
fn rest<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Nothing fits: the object that would make it fit, ready to be completed.
fn nobody(image: &ImageName) -> Failure {
    let prefix = image.name.rsplit_once('/').map_or(image.name.as_str(), |(folder, _)| folder);
    let name: String = prefix.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let message = format!(
        "no PluginSource fits {}, and what nobody vouches for is not pulled; add one: {{apiVersion: substratus.ai/v1alpha1, kind: \
         PluginSource, metadata: {{name: {}}}, spec: {{prefix: {prefix}/, verify: {{keys: [\"-----BEGIN PUBLIC KEY-----…\"]}}}}}}",
        image.name,
        name.trim_matches('-')
    );
    Failure::new(said::RESOLVED, said::NO_SOURCE, message)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source(name: &str, created: &str, spec: &Value) -> Arc<PluginSource> {
        let object = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "PluginSource", "spec": spec,
            "metadata": {"name": name, "creationTimestamp": created}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn sources(prefixes: &[&str]) -> Vec<Arc<PluginSource>> {
        let made = |(number, prefix): (usize, &&str)| {
            source(prefix, &format!("2026-01-01T00:00:{number:02}Z"), &json!({"prefix": prefix}))
        };
        prefixes.iter().enumerate().map(made).collect()
    }

    fn name(sources: &[Arc<PluginSource>], image: &str) -> Result<String, &'static str> {
        find(sources, image).map(|trusted| trusted.name()).map_err(|failure| failure.reason)
    }

    #[test]
    fn the_longest_prefix_counts_and_ends_where_a_name_ends() {
        let sources =
            sources(&["registry.example", "registry.example/acme/", "registry.example/acme/loader", "acme/", "localhost:5000/"]);
        for (image, expected) in [
            ("registry.example/other/loader:1", Ok("registry.example")),
            ("registry.example/acme/other", Ok("registry.example/acme/")),
            ("registry.example/acme/loader:1", Ok("registry.example/acme/loader")),
            ("registry.example/acme/loader/more:1", Ok("registry.example/acme/loader")),
            ("registry.example/acme/loader-evil:1", Ok("registry.example/acme/")),
            ("registry.example/acme-evil/loader:1", Ok("registry.example")),
            ("acme/loader", Ok("acme/")),
            ("docker.io/acme/loader", Ok("acme/")),
            ("localhost:5000/a", Ok("localhost:5000/")),
            ("registry.example.evil/acme/loader", Err(said::NO_SOURCE)),
            ("registry.example:5000/acme/loader", Err(said::NO_SOURCE)),
            ("evil/registry.example/acme", Err(said::NO_SOURCE)),
            ("registry.example/acme/../other/x", Err(said::IMAGE_NOT_FOUND)),
        ] {
            assert_eq!(name(&sources, image), expected.map(str::to_owned), "{image}");
        }
    }

    #[test]
    fn of_two_equal_prefixes_the_older_counts() {
        let spec = json!({"prefix": "registry.example/a/"});
        let (old, new) = (source("z", "2026-01-01T00:00:00Z", &spec), source("a", "2026-01-02T00:00:00Z", &spec));
        for order in [[&old, &new], [&new, &old]] {
            assert_eq!(name(&order.map(Arc::clone), "registry.example/a/b").unwrap(), "z");
        }
    }

    #[test]
    fn what_is_no_beginning_of_a_name_fits_nothing() {
        for prefix in
            ["", "/", "*", "https://registry.example/", "registry.example/a:1", "registry.example/a@b", "a//b", "a/../b", " "]
        {
            assert_eq!(normal(prefix), None, "{prefix}");
        }
    }

    #[test]
    fn a_mirror_stands_in_place_of_the_prefix() {
        let pulled = |prefix: &str, mirror: &str, image: &str| {
            let spec = json!({"prefix": prefix, "mirror": mirror});
            find(&[source("s", "2026-01-01T00:00:00Z", &spec)], image).map(|trusted| trusted.reference())
        };
        for (prefix, mirror) in
            [("registry.example/acme/", "mirror.internal:5000/x/"), ("registry.example/acme", "mirror.internal:5000/x")]
        {
            assert_eq!(pulled(prefix, mirror, "registry.example/acme/a/b:1").unwrap(), "mirror.internal:5000/x/a/b:1");
        }
        let digest = format!("sha256:{}", "0".repeat(64));
        let found = pulled("registry.example/", "mirror.internal", &format!("registry.example/a@{digest}"));
        assert_eq!(found.unwrap(), format!("mirror.internal/a@{digest}"));
        let failure = pulled("registry.example/", "https://mirror", "registry.example/a:1").unwrap_err();
        assert_eq!(failure.reason, said::SOURCE_INVALID);
    }

    #[test]
    fn without_a_source_the_answer_is_the_one_to_add() {
        let failure = find(&[], "registry.example:5000/acme/loader:1").unwrap_err();
        let (_, yaml) = failure.message.split_once("add one: ").unwrap();
        let object: PluginSource = serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(
            (object.name_any().as_str(), object.spec.prefix.as_str()),
            ("registry-example-5000-acme", "registry.example:5000/acme/")
        );
        let sources = [Arc::new(object)];
        assert!(find(&sources, "registry.example:5000/acme/loader:1").is_ok(), "{}", failure.message);
    }

    #[test]
    fn nobody_verifies_only_where_that_is_said() {
        let policy = |spec: Value| {
            let found = find(&[source("s", "2026-01-01T00:00:00Z", &spec)], "registry.example/a/b").unwrap();
            found.policy().map_err(|failure| failure.reason)
        };
        let keys = SignaturePolicy { keys: vec!["k".to_owned()], minimum: 1 };
        for (spec, expected) in [
            (json!({"prefix": "registry.example/"}), Err(said::UNVERIFIED)),
            (json!({"prefix": "registry.example/", "verify": {"keys": []}, "unverified": "Allow"}), Err(said::UNVERIFIED)),
            (json!({"prefix": "registry.example/", "unverified": "Allow"}), Ok(Policy::Nobody)),
            (json!({"prefix": "registry.example/", "verify": {"keys": ["k"]}, "unverified": "Allow"}), Ok(Policy::Keys(keys))),
        ] {
            assert_eq!(policy(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn a_tag_is_refused_where_digests_are_required() {
        let spec = json!({"prefix": "registry.example/", "requireDigest": true});
        let check = |image: &str| check_digest(&find(&[source("s", "2026-01-01T00:00:00Z", &spec)], image).unwrap());
        assert_eq!(check("registry.example/a:1").unwrap_err().reason, said::DIGEST_REQUIRED);
        assert_eq!(check(&format!("registry.example/a:1@sha256:{}", "0".repeat(64))), Ok(()));
    }
}
