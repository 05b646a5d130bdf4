//! Judges every answer before anybody uses it: well-typed is not yet sensible. Knows nothing about buckets or Kubernetes; the
//! worker and the guard check again what concerns them.

use std::collections::BTreeSet;

use url::Url;

use super::ImageName;
use super::text::{clip, sentence};
use super::types::{
    Container, Digest, Failure, File, Fitness, GITOID, ModelFacts, Origin, Placement, PlanPage, Probe, Problem, ResolveRequest,
    SHA256,
};
use crate::limits::{PATH_BYTES, PATH_NAME_BYTES};

/// Longest name, label value, revision, … that anybody needs.
const NAME_BYTES: usize = 512;
/// Longest URL or cursor.
const URL_BYTES: usize = 16 * 1024;
/// Longest cursor of a plan.
pub(super) const PLAN_CURSOR_BYTES: usize = URL_BYTES;
/// Most bytes of memory, and of scratch space, that any node has: a pebibyte is a mistake.
const MAX_BYTES: u64 = 1 << 50;
/// The same of cores.
const MAX_CORES: u32 = 1 << 16;
/// The same of devices.
const MAX_DEVICES: u64 = 1 << 16;
/// Headers that the host alone sets.
const FORBIDDEN_HEADERS: [&str; 3] = ["authorization", "cookie", "host"];

/// Whether a path of a plan may be used below a folder.
///
/// Relative, `/`-separated, at most [`PATH_BYTES`] bytes; no `..` or `.`, no empty segment, no backslash, no control character.
/// Two paths that are one file on some file system are the worker's to find.
pub fn check_file_path(path: &str) -> Result<(), String> {
    let reason = if path.is_empty() {
        "it is empty".to_owned()
    } else if path.len() > PATH_BYTES {
        format!("it has {} bytes, and at most {PATH_BYTES} are possible", path.len())
    } else if path.starts_with('/') {
        "it is absolute".to_owned()
    } else if path.contains('\\') {
        "it has a backslash".to_owned()
    } else if path.chars().any(char::is_control) {
        "it has a control character".to_owned()
    } else if path.split('/').any(|segment| matches!(segment, ".." | ".")) {
        "it has a segment `.` or `..`".to_owned()
    } else if path.split('/').any(str::is_empty) {
        "it has an empty segment".to_owned()
    } else if path.split('/').any(|segment| segment.len() > PATH_NAME_BYTES) {
        format!("it has a name of more than {PATH_NAME_BYTES} bytes")
    } else {
        return Ok(());
    };
    Err(format!("path `{}`: {reason}", clip(path, 200)))
}

/// A page of a plan, made fit to use.
pub(super) fn plan_page(mut page: PlanPage, asked: &ResolveRequest, cursor: Option<&str>) -> Result<PlanPage, String> {
    name("revision", &page.revision)?;
    if let Some(revision) = asked.revision.as_ref().filter(|revision| **revision != page.revision) {
        return Err(format!(
            "the revision was `{}` and is now `{}`: all pages of a plan have one",
            sentence(revision),
            page.revision
        ));
    }
    page.files.iter().try_for_each(check_file)?;
    if let Some(facts) = &page.facts {
        check_facts(facts)?;
    }
    if let Some(next) = &page.next {
        bounded("the cursor", next, URL_BYTES)?;
        if next.is_empty() || Some(next.as_str()) == cursor {
            return Err("the cursor of the next page is empty or the one of this page: the plan would never end".to_owned());
        }
    }
    sentences(&mut page.warnings);
    Ok(page)
}

/// One file whose place was asked for.
pub(super) fn file(file: File, path: &str) -> Result<File, String> {
    check_file(&file)?;
    if file.path == path { Ok(file) } else { Err(format!("asked for `{}`, it tells of `{}`", clip(path, 200), file.path)) }
}

/// A placement, made fit to use. Whether its keys are granted is the guard's to say.
pub(super) fn placement(mut placement: Placement) -> Result<Placement, String> {
    for (key, value) in &placement.node_selector {
        check_key("a node selector's key", key)?;
        check_label_value("a node selector's value", value)?;
    }
    distinct("node selector", placement.node_selector.iter().map(|(key, _)| key.as_str()))?;
    for (resource, count) in &placement.limits {
        check_key("a resource", resource)?;
        if *count > MAX_DEVICES {
            return Err(format!("{count} of `{resource}`: {MAX_DEVICES} is the most"));
        }
    }
    distinct("resource", placement.limits.iter().map(|(resource, _)| resource.as_str()))?;
    for toleration in &placement.tolerations {
        if let Some(value) = &toleration.value {
            check_label_value("a toleration's value", value)?;
        }
        one_of("a toleration's operator", &toleration.operator, &["Exists", "Equal"])?;
        if let Some(effect) = &toleration.effect {
            one_of("a toleration's effect", effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"])?;
        }
        if toleration.key.is_empty() {
            return Err("a toleration without a key tolerates every taint".to_owned());
        }
        check_key("a toleration's key", &toleration.key)?;
        if toleration.operator == "Exists" && toleration.value.as_ref().is_some_and(|value| !value.is_empty()) {
            return Err(format!("toleration `{}` has a value, which its operator Exists does not compare", toleration.key));
        }
    }
    if let Some(class) = &placement.runtime_class {
        check_dns_label("a runtime class", class)?;
    }
    for claim in &placement.claims {
        name("a device claim's name", &claim.name)?;
        name("a device class", &claim.device_class)?;
        if claim.count == 0 {
            return Err(format!("device claim `{}` asks for no device", claim.name));
        }
    }
    placement.reason = sentence(&placement.reason);
    sentences(&mut placement.alternatives);
    Ok(placement)
}

/// How well an engine fits, made fit to use.
pub(super) fn fitness(mut fitness: Fitness) -> Result<Fitness, String> {
    if fitness.score > 100 {
        return Err(format!("a score of {}: 100 is the most", fitness.score));
    }
    fitness.reason = sentence(&fitness.reason);
    Ok(fitness)
}

/// A container, made fit to use. Whether its image is granted is the guard's to say.
pub(super) fn container(mut container: Container) -> Result<Container, String> {
    name("the image", &container.image)?;
    ImageName::parse(&container.image).map_err(|_| format!("image `{}` is no image's name", sentence(&container.image)))?;
    if container.port == 0 {
        return Err("the port is 0".to_owned());
    }
    for (name, _) in &container.env {
        check_env_name(name)?;
    }
    distinct("environment variable", container.env.iter().map(|(name, _)| name.as_str()))?;
    let sizes = container.caches.iter().map(|cache| cache.size).chain([container.shm, container.memory]);
    if let Some(size) = sizes.flatten().find(|size| *size > MAX_BYTES) {
        return Err(format!("{size} bytes of memory or scratch space: {MAX_BYTES} is the most"));
    }
    if let Some(cores) = container.cpu.filter(|cores| *cores > MAX_CORES) {
        return Err(format!("{cores} cores: {MAX_CORES} is the most"));
    }
    for text in container.command.iter().chain(&container.args).chain(container.env.iter().map(|(_, value)| value)) {
        if text.contains('\0') {
            return Err("a text of the command, the arguments or the environment has a NUL character".to_owned());
        }
    }
    for probe in [Some(&container.readiness), container.startup.as_ref(), container.liveness.as_ref()].into_iter().flatten() {
        check_probe(probe)?;
    }
    for cache in &container.caches {
        name("a cache's name", &cache.name)?;
        check_mount_path(&cache.mount_path)?;
    }
    distinct("name of a cache", container.caches.iter().map(|cache| cache.name.as_str()))?;
    distinct("mount path", container.caches.iter().map(|cache| cache.mount_path.trim_end_matches('/')))?;
    if let Some(metrics) = &container.metrics {
        check_url_path("the path of the metrics", &metrics.path)?;
    }
    container.reason = sentence(&container.reason);
    sentences(&mut container.warnings);
    Ok(container)
}

/// A failure whose texts can be shown.
pub(super) fn failure(failure: Failure) -> Failure {
    match failure {
        Failure::Invalid(problems) => {
            let problems = problems.into_iter().take(20);
            Failure::Invalid(problems.map(|p| Problem { field: sentence(&p.field), reason: sentence(&p.reason) }).collect())
        }
        Failure::NotFound(text) => Failure::NotFound(sentence(&text)),
        Failure::NeedsAuth(text) => Failure::NeedsAuth(sentence(&text)),
        Failure::Gated(text) => Failure::Gated(sentence(&text)),
        Failure::Forbidden(text) => Failure::Forbidden(sentence(&text)),
        Failure::Disabled(text) => Failure::Disabled(sentence(&text)),
        Failure::RateLimited(seconds) => Failure::RateLimited(seconds),
        Failure::Unavailable(text) => Failure::Unavailable(sentence(&text)),
        Failure::Unsupported(text) => Failure::Unsupported(sentence(&text)),
        Failure::Internal(text) => Failure::Internal(sentence(&text)),
    }
}

pub(super) fn check_file(file: &File) -> Result<(), String> {
    check_file_path(&file.path)?;
    if let Some(digest) = &file.digest {
        check_digest(digest).map_err(|reason| format!("file `{}`: {reason}", file.path))?;
    }
    check_origin(&file.origin).map_err(|reason| format!("file `{}`: {reason}", file.path))
}

fn check_digest(digest: &Digest) -> Result<(), String> {
    let length = match digest.algorithm.as_str() {
        SHA256 => 64,
        GITOID => 40,
        other => {
            let message = "only sha256 and gitoid:blob:sha1 count, leave out any other";
            return Err(format!("digest algorithm `{}`: {message}", sentence(other)));
        }
    };
    let is_one = digest.hex.len() == length && digest.hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_one { Ok(()) } else { Err(format!("its digest is no {} in lower-case hexadecimal", digest.algorithm)) }
}

fn check_origin(origin: &Origin) -> Result<(), String> {
    match origin {
        Origin::Http(http) => {
            check_url(&http.url, &["http", "https"])?;
            for (header, value) in &http.headers {
                check_header(header, value)?;
            }
            Ok(())
        }
        Origin::Object(url) => check_url(url, &["s3", "gs", "az"]),
        Origin::Oci(oci) if oci.digest.algorithm != SHA256 => Err("the digest of a blob is its sha256".to_owned()),
        Origin::Oci(oci) => name("the repository", &oci.repository).and_then(|()| check_digest(&oci.digest)),
        Origin::Xet(xet) => name("the hash", &xet.hash).and_then(|()| check_url(&xet.token_url, &["https"])),
    }
}

fn check_url(text: &str, schemes: &[&str]) -> Result<(), String> {
    bounded("a URL", text, URL_BYTES)?;
    let url = Url::parse(text).map_err(|error| format!("URL `{}`: {error}", clip(text, 200)))?;
    if !schemes.contains(&url.scheme()) {
        return Err(format!("URL `{}`: its scheme is none of {}", clip(text, 200), schemes.join(", ")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "a URL of host `{}` holds a credential: name a secret use in `auth` instead",
            url.host_str().unwrap_or_default()
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("URL `{}` has no host", clip(text, 200)));
    }
    Ok(())
}

fn check_header(header: &str, value: &str) -> Result<(), String> {
    let lower = header.to_ascii_lowercase();
    if FORBIDDEN_HEADERS.contains(&lower.as_str()) || lower.starts_with("proxy-") {
        return Err(format!("header `{}` is the host's to set", sentence(header)));
    }
    let good = http::HeaderName::try_from(header).is_ok() && http::HeaderValue::try_from(value).is_ok();
    if good { Ok(()) } else { Err(format!("header `{}` is malformed", sentence(header))) }
}

fn check_facts(facts: &ModelFacts) -> Result<(), String> {
    let texts = [&facts.format, &facts.architecture, &facts.dtype, &facts.quantization, &facts.license];
    for text in texts.into_iter().flatten() {
        name("a fact", text)?;
    }
    facts.entrypoint.as_deref().map_or(Ok(()), check_file_path)
}

fn check_env_name(name: &str) -> Result<(), String> {
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= NAME_BYTES;
    if good { Ok(()) } else { Err(format!("`{}` is no name of an environment variable", sentence(name))) }
}

fn check_probe(probe: &Probe) -> Result<(), String> {
    check_url_path("a probe's path", &probe.path)?;
    if probe.period_seconds == 0 || probe.timeout_seconds == 0 || probe.failure_threshold == 0 {
        return Err("a probe's period, timeout and threshold are at least 1".to_owned());
    }
    Ok(())
}

fn check_url_path(what: &str, path: &str) -> Result<(), String> {
    name(what, path)?;
    if path.starts_with('/') { Ok(()) } else { Err(format!("{what} `{path}` does not start with `/`")) }
}

fn check_mount_path(path: &str) -> Result<(), String> {
    let below = path.strip_prefix('/').ok_or_else(|| format!("mount path `{}` is not absolute", clip(path, 200)))?;
    check_file_path(below)?;
    if path.contains(':') { Err(format!("mount path `{path}` has a colon")) } else { Ok(()) }
}

pub(super) fn name(what: &str, text: &str) -> Result<(), String> {
    bounded(what, text, NAME_BYTES)?;
    if text.is_empty() { Err(format!("{what} is empty")) } else { Ok(()) }
}

pub(super) fn bounded(what: &str, text: &str, max: usize) -> Result<(), String> {
    if text.len() > max {
        Err(format!("{what} has {} bytes, and at most {max} are possible", text.len()))
    } else if text.chars().any(char::is_control) {
        Err(format!("{what} has a control character"))
    } else {
        Ok(())
    }
}

/// A key as Kubernetes has them: an optional domain, a slash, a name.
fn check_key(what: &str, key: &str) -> Result<(), String> {
    let (domain, own) = key.split_once('/').map_or((None, key), |(domain, own)| (Some(domain), own));
    let domain_fits = domain.is_none_or(|domain| domain.len() <= 253 && domain.split('.').all(is_dns_label));
    if domain_fits && !own.is_empty() && is_label_value(own) {
        Ok(())
    } else {
        Err(format!("{what} `{}` is none that Kubernetes takes", sentence(key)))
    }
}

fn check_label_value(what: &str, value: &str) -> Result<(), String> {
    bounded(what, value, NAME_BYTES)?;
    if is_label_value(value) { Ok(()) } else { Err(format!("{what} `{}` is none that Kubernetes takes", sentence(value))) }
}

fn check_dns_label(what: &str, text: &str) -> Result<(), String> {
    if is_dns_label(text) { Ok(()) } else { Err(format!("{what} `{}` is none that Kubernetes takes", sentence(text))) }
}

/// What the value of a label may be: up to 63 characters, which may be none.
fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().next_back())
}

fn is_dns_label(text: &str) -> bool {
    !text.is_empty() && is_label_value(text) && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn distinct<'a>(what: &str, texts: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for text in texts {
        if !seen.insert(text) {
            return Err(format!("{what} `{}` is there twice", sentence(text)));
        }
    }
    Ok(())
}

fn one_of(what: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) {
        Ok(())
    } else {
        Err(format!("{what} is `{}`, and is one of {}", sentence(value), allowed.join(", ")))
    }
}

pub(super) fn sentences(texts: &mut Vec<String>) {
    texts.truncate(20);
    for text in texts {
        *text = sentence(text);
    }
}

#[cfg(test)]
#[path = "answers/guard_tests.rs"]
mod guard_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plugin::types::{FileFilter, HttpOrigin, Subject};

    fn request(revision: Option<&str>) -> ResolveRequest {
        ResolveRequest {
            subject: Subject { kind: "Model".into(), namespace: "default".into(), name: "m".into() },
            source: None,
            params: vec![],
            files: FileFilter { include: vec![], exclude: vec![], format: None },
            config: "{}".into(),
            revision: revision.map(str::to_owned),
            extensions: vec![],
        }
    }

    fn http(url: &str, headers: &[(&str, &str)]) -> Origin {
        let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Origin::Http(HttpOrigin { url: url.into(), headers, auth: None, expires: None })
    }

    fn a_file(path: &str) -> File {
        File { path: path.into(), size: None, digest: None, origin: http("https://hub.example/x", &[]) }
    }

    fn page(files: Vec<File>) -> PlanPage {
        PlanPage { revision: "r1".into(), files, facts: None, warnings: vec![], next: None, extensions: vec![] }
    }

    #[test]
    fn paths_stay_inside_their_folder() {
        for good in ["a", "a/b.c", "…/ä", "..a", "a..b", ".gitattributes", &"a".repeat(PATH_NAME_BYTES)] {
            assert_eq!(check_file_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/a",
            "a//b",
            "a/",
            "..",
            "a/../b",
            "./a",
            "a\\b",
            "a\0b",
            "a\nb",
            &"a/".repeat(600),
            &"a".repeat(PATH_NAME_BYTES + 1),
        ] {
            assert!(check_file_path(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_good_path_never_leaves_its_folder(path in "[a./\\\\\u{0}é]{0,12}") {
            if check_file_path(&path).is_ok() {
                let joined = std::path::Path::new("/t").join(&path);
                prop_assert!(joined.components().all(|c| !matches!(c, std::path::Component::ParentDir)));
                prop_assert!(joined.starts_with("/t") && joined != std::path::Path::new("/t"));
            }
        }
    }

    #[test]
    fn a_plan_keeps_its_revision_and_ends() {
        assert!(plan_page(page(vec![a_file("a")]), &request(None), None).is_ok());
        assert!(plan_page(page(vec![]), &request(Some("r2")), None).unwrap_err().contains("all pages of a plan"));
        let mut empty = page(vec![]);
        empty.revision.clear();
        assert_eq!(plan_page(empty, &request(None), None).unwrap_err(), "revision is empty");
        let mut endless = page(vec![]);
        endless.next = Some("c".into());
        assert!(plan_page(endless.clone(), &request(None), None).is_ok());
        assert!(plan_page(endless, &request(None), Some("c")).unwrap_err().contains("never end"));
    }

    #[test]
    fn origins_hold_no_credential_and_no_foreign_scheme() {
        for (origin, word) in [
            (http("https://user:pass@hub.example/x", &[]), "credential"),
            (http("file:///etc/passwd", &[]), "scheme"),
            (http("https://hub.example", &[("Authorization", "x")]), "host's to set"),
            (http("https://hub.example", &[("Proxy-Connection", "x")]), "host's to set"),
            (http("https://hub.example", &[("x", "a\r\nb")]), "malformed"),
            (Origin::Object("https://hub.example".into()), "scheme"),
        ] {
            let mut file = a_file("a");
            file.origin = origin;
            let error = check_file(&file).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn digests_are_sha256_or_absent() {
        let digest = |algorithm: &str, hex: &str| check_digest(&Digest { algorithm: algorithm.into(), hex: hex.into() });
        assert!(digest("sha256", &"0a".repeat(32)).is_ok());
        assert!(digest("sha256", &"0A".repeat(32)).is_err());
        assert!(digest("sha256", "0a").is_err());
        assert!(digest("sha1", &"0a".repeat(20)).unwrap_err().contains("only sha256"));
        assert!(digest(GITOID, &"0a".repeat(20)).is_ok() && digest(GITOID, &"0a".repeat(32)).is_err());
    }

    #[test]
    fn a_refreshed_file_is_the_one_asked_for() {
        assert!(file(a_file("a"), "a").is_ok());
        assert!(file(a_file("b"), "a").is_err());
    }
}
