//! What a user says of the sources of an image, checked: everything of it becomes an argument of a program. Pure.

use substratus_crds::conditions::reason;
use substratus_crds::{Build, GitSource, UploadSource};
use url::Url;

use crate::builder::build::CACHE_TAG;
use crate::kinds::shared::environment::Environment;
use crate::kinds::shared::hash;
use crate::kinds::shared::verdict::Verdict;

/// Longest name of a branch, tag or folder.
const MAX_NAME: usize = 250;
/// Longest tag of an image.
const MAX_TAG: usize = 128;

/// What an image is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A repository.
    Git(GitSource),
    /// What a user sends.
    Upload(UploadSource),
}

impl Source {
    /// The context's folder, without slashes at its ends; empty for the top.
    pub fn path(&self) -> &str {
        match self {
            Self::Git(git) => git.path.as_deref().unwrap_or_default().trim_matches('/'),
            Self::Upload(_) => "",
        }
    }

    /// The tag of the image, before it is made one that registries take.
    fn tag(&self) -> &str {
        match self {
            Self::Git(git) => {
                let names = [&git.tag, &git.branch, &git.commit];
                names.into_iter().find_map(|name| name.as_deref().filter(|name| !name.is_empty())).unwrap_or("latest")
            }
            Self::Upload(upload) => &upload.md5_checksum,
        }
    }
}

/// What is to be built, where everything about it can be used.
pub fn of(build: &Build) -> Result<Source, Verdict> {
    match (&build.git, &build.upload) {
        (Some(_), Some(_)) => Err(Verdict::invalid("spec.build", "git and upload are both set; name one of them")),
        (None, None) => Err(Verdict::invalid("spec.build", "name git or upload, or name a finished image as spec.image instead")),
        (None, Some(source)) => upload(source).map(|()| Source::Upload(source.clone())),
        (Some(source), None) => git(source).map(|()| Source::Git(source.clone())),
    }
}

/// Whether a text is that many hexadecimal digits.
pub fn is_sum(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn upload(upload: &UploadSource) -> Result<(), Verdict> {
    let field = |field: &str, why: &str| Err(Verdict::invalid(&format!("spec.build.upload.{field}"), why));
    if !is_sum(&upload.md5_checksum, 32) {
        return field("md5Checksum", "write the MD5 of the tarball as 32 hexadecimal digits");
    }
    if upload.sha256_checksum.as_deref().is_some_and(|sum| !is_sum(sum, 64)) {
        return field("sha256Checksum", "write the SHA-256 of the tarball as 64 hexadecimal digits");
    }
    if upload.size_bytes.is_some_and(|size| size < 1) {
        return field("sizeBytes", "write how many bytes the tarball has");
    }
    let odd =
        upload.request_id.is_empty() || upload.request_id.len() > MAX_NAME || upload.request_id.chars().any(char::is_control);
    if odd { field("requestID", "write some word that is another one for each request, such as a UUID") } else { Ok(()) }
}

fn git(git: &GitSource) -> Result<(), Verdict> {
    url(&git.url).map_err(|why| Verdict::invalid("spec.build.git.url", why))?;
    let names = [("branch", &git.branch), ("tag", &git.tag)];
    for (field, name) in names.into_iter().filter_map(|(field, name)| Some((field, name.as_deref()?))) {
        reference(name).map_err(|why| Verdict::invalid(&format!("spec.build.git.{field}"), format!("`{name}` {why}")))?;
    }
    if let Some(commit) = git.commit.as_deref() {
        let is_name = matches!(commit.len(), 40 | 64) && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_name {
            let why = format!("`{commit}` is no commit in full: 40 or 64 hexadecimal digits");
            return Err(Verdict::invalid("spec.build.git.commit", why));
        }
    }
    if let Some(path) = git.path.as_deref() {
        folder(path).map_err(|why| Verdict::invalid("spec.build.git.path", format!("`{path}` {why}")))?;
    }
    if git.depth.is_some_and(|depth| depth < 0) {
        return Err(Verdict::invalid("spec.build.git.depth", "write how many commits of the history are fetched, or 0 for all"));
    }
    Ok(())
}

fn url(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > 2000 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("name the repository, such as https://github.com/org/repository");
    }
    if !text.contains("://") {
        return scp(text).ok_or("write https://host/path, ssh://user@host/path or user@host:path");
    }
    let url = Url::parse(text).map_err(|_| "is no URL; write https://host/path")?;
    let secret = "has a password in it, which everybody could read; put it into a Secret and name that as spec.build.git.secret";
    match url.scheme() {
        "http" | "https" if !url.username().is_empty() || url.password().is_some() => Err(secret),
        "ssh" if url.password().is_some() => Err(secret),
        "http" | "https" | "ssh" if url.host_str().is_some_and(|host| !host.starts_with('-')) => Ok(()),
        _ => Err("write https://host/path, ssh://user@host/path or user@host:path"),
    }
}

/// `user@host:path`, as ssh's own copies are written.
fn scp(text: &str) -> Option<()> {
    let (host, path) = text.split_once(':')?;
    let (user, host) = host.split_once('@')?;
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let good = word(user) && word(host) && !user.starts_with('-') && !host.starts_with('-') && !path.is_empty();
    (good && !path.starts_with('-')).then_some(())
}

/// What git takes for a name of a branch or a tag, and for nothing else.
fn reference(name: &str) -> Result<(), &'static str> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let broken = name.contains("..") || name.contains("@{") || name.contains("//") || name.ends_with(['/', '.']);
    let dotted = name.split('/').any(|part| part.starts_with('.') || part.strip_suffix(".lock").is_some());
    if name.is_empty() || name.len() > MAX_NAME || name.starts_with(['-', '/']) || name.contains(odd) || broken || dotted {
        return Err("is no name of a branch or tag");
    }
    Ok(())
}

fn folder(path: &str) -> Result<(), &'static str> {
    let path = path.trim_matches('/');
    if path.len() > MAX_NAME || path.chars().any(char::is_control) || path.starts_with('-') {
        return Err("is no folder");
    }
    if path.split('/').any(|part| part == "..") {
        return Err("leads out of the repository");
    }
    Ok(())
}

/// The name of the image to be: `{registry}/{cluster}-{kind}-{namespace}-{name}:{tag}`, as the first operator called it.
pub fn image(environment: &Environment, kind: &str, namespace: &str, name: &str, source: &Source) -> Result<String, Verdict> {
    let Some(registry) = &environment.building.registry else {
        let message = "spec.build: this cluster has no registry for images that it builds; an administrator sets REGISTRY_URL, or \
                       name a finished image as spec.image";
        return Err(Verdict::new(reason::BUILD_UNSUPPORTED, message));
    };
    let repository = format!("{registry}/{}-{kind}-{namespace}-{name}", environment.cluster);
    let (host, path) = repository.split_once('/').unwrap_or_default();
    let host_is_good = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if !host_is_good || !path.split('/').all(component) {
        let message = format!(
            "`{repository}` can be no name of an image, which has lower-case letters, digits and single separators alone; it is made \
             from the settings REGISTRY_URL and CLUSTER_NAME, the namespace and the name of this object"
        );
        return Err(Verdict::new(reason::BUILD_UNSUPPORTED, message));
    }
    Ok(format!("{repository}:{}", tag(source.tag())))
}

/// Where steps of an object's builds are kept, beside its image. Objects of several namespaces may share the repository, which is
/// called after the first operator's rule; what they take steps from they do not share.
pub fn cache_tag(kind: &str, namespace: &str, name: &str) -> String {
    format!("{CACHE_TAG}{}", hash::of(&(kind, namespace, name)))
}

/// One part of a repository's name, as registries take it.
fn component(part: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(alphanumeric) && part.bytes().next_back().is_some_and(alphanumeric);
    let separators = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let good = |text: &str| matches!(text, "" | "." | "_" | "__") || text.bytes().all(|b| b == b'-');
    ends && separators.into_iter().all(good)
}

/// The name as a tag of an image can have it; two names that become one are told apart by the digest.
fn tag(name: &str) -> String {
    let taken = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut tag: String = name.chars().map(|c| if taken(c) { c } else { '-' }).take(MAX_TAG).collect();
    if tag.starts_with(['.', '-']) || tag.starts_with(CACHE_TAG) {
        tag.replace_range(..1, "x");
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::shared::environment::{self, Building};

    fn of(url: &str) -> GitSource {
        GitSource { url: url.to_owned(), ..GitSource::default() }
    }

    fn check(git: GitSource) -> Result<(), String> {
        super::of(&Build { git: Some(git), upload: None }).map(drop).map_err(|verdict| verdict.message)
    }

    #[test]
    fn urls_lead_to_servers_and_nowhere_else() {
        for url in ["https://github.com/org/x", "http://git.svc:3000/x.git", "ssh://git@h.test:22/x", "git@github.com:org/x.git"]
        {
            assert_eq!(check(of(url)), Ok(()), "{url}");
        }
        for url in [
            "",
            "x",
            "/etc",
            "file:///etc",
            "ext::sh -c touch% /tmp/x",
            "--upload-pack=x",
            "ssh://-oProxyCommand=x/y",
            "-x@h:p",
            "u@-h:p",
            "https://user:pass@h.test/x",
            "https://token@h.test/x",
            "git://h.test/x",
            "https://h.test/a b",
            "u@h:-x",
            "https://h.test/\n",
        ] {
            assert!(check(of(url)).is_err(), "{url}");
        }
        let said = check(of("https://user:s3cret@h.test/x")).unwrap_err();
        assert!(said.contains("spec.build.git.secret") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn names_are_names_and_no_options() {
        let git = of("https://h.test/x");
        for name in ["main", "feature/x", "v1.2.3", "a-b_c"] {
            assert_eq!(check(GitSource { branch: Some(name.to_owned()), ..git.clone() }), Ok(()), "{name}");
        }
        for name in ["", "-x", "--upload-pack=x", "a b", "a..b", "a:b", "refs/heads/*", "a~1", "x.lock", ".x", "x/", "a@{1}"] {
            assert!(check(GitSource { tag: Some(name.to_owned()), ..git.clone() }).is_err(), "{name}");
        }
        for commit in ["main", "abc", &"g".repeat(40)] {
            assert!(check(GitSource { commit: Some(commit.to_owned()), ..git.clone() }).is_err(), "{commit}");
        }
        assert_eq!(check(GitSource { commit: Some("a".repeat(40)), ..git.clone() }), Ok(()));
        for path in ["..", "a/../../b", "-x", "a\nb"] {
            assert!(check(GitSource { path: Some(path.to_owned()), ..git.clone() }).is_err(), "{path}");
        }
        // The first operator took slashes at the ends.
        let slashes = GitSource { path: Some("/dataset-loader/".to_owned()), ..git };
        assert_eq!((check(slashes.clone()), Source::Git(slashes).path()), (Ok(()), "dataset-loader"));
    }

    #[test]
    fn exactly_one_source_is_named() {
        let both = Build { git: Some(of("https://h.test/x")), upload: Some(sent()) };
        assert!(super::of(&both).unwrap_err().message.contains("both"));
        assert_eq!(super::of(&Build::default()).unwrap_err().reason, reason::INVALID);
    }

    fn sent() -> UploadSource {
        UploadSource { md5_checksum: "Ab".repeat(16), request_id: "1".to_owned(), ..UploadSource::default() }
    }

    #[test]
    fn uploads_that_cannot_be_are_refused_by_the_field() {
        let checked =
            |upload: UploadSource| super::of(&Build { git: None, upload: Some(upload) }).map_err(|verdict| verdict.message);
        assert_eq!(checked(sent()), Ok(Source::Upload(sent())));
        for (field, upload) in [
            ("md5Checksum", UploadSource { md5_checksum: "../../x".to_owned(), ..sent() }),
            ("sha256Checksum", UploadSource { sha256_checksum: Some("x".repeat(64)), ..sent() }),
            ("sizeBytes", UploadSource { size_bytes: Some(-1), ..sent() }),
            ("requestID", UploadSource { request_id: "x".repeat(MAX_NAME + 1), ..sent() }),
            ("requestID", UploadSource { request_id: "a\nb".to_owned(), ..sent() }),
        ] {
            assert!(checked(upload).unwrap_err().contains(field), "{field}");
        }
    }

    #[test]
    fn images_have_the_names_of_the_first_operator() {
        let registry = |registry: &str, cluster: &str| environment::Environment {
            cluster: cluster.to_owned(),
            building: Building { registry: Some(registry.to_owned()), ..Building::default() },
            ..environment::of("gcp")
        };
        let gcr = registry("gcr.io/my-project", "my-cluster");
        let name = |git: &GitSource| image(&gcr, "model", "my-ns", "my-model", &Source::Git(git.clone())).unwrap();
        let tagged = GitSource { tag: Some("v1.2.3".to_owned()), branch: Some("main".to_owned()), ..of("x") };
        assert_eq!(name(&tagged), "gcr.io/my-project/my-cluster-model-my-ns-my-model:v1.2.3");
        assert!(name(&GitSource { branch: Some("main".to_owned()), ..of("x") }).ends_with(":main"));
        assert!(name(&of("x")).ends_with("-my-model:latest"));
        // What a tag cannot have the first operator failed at.
        assert!(name(&GitSource { branch: Some("feature/x".to_owned()), ..of("x") }).ends_with(":feature-x"));
        let uploaded = image(&gcr, "model", "my-ns", "my-model", &Source::Upload(sent())).unwrap();
        assert!(uploaded.ends_with(&format!("-my-model:{}", "Ab".repeat(16))), "{uploaded}");
        let cache = cache_tag("model", "my-ns", "my-model");
        assert!(name(&GitSource { branch: Some(cache.clone()), ..of("x") }).ends_with(&cache.replacen('_', "x", 1)));
        assert_ne!(cache_tag("model", "a", "b-c"), cache_tag("model", "a-b", "c"));
        for (place, cluster) in [("r.test/Team", "c"), ("r.test", "My Cluster"), ("https://r.test", "c"), ("r.test,x=y", "c")] {
            let refused = image(&registry(place, cluster), "model", "ns", "m", &Source::Git(of("x"))).unwrap_err();
            assert_eq!(refused.reason, reason::BUILD_UNSUPPORTED, "{place} {cluster}");
        }
        assert!(
            image(&environment::of("gcp"), "model", "ns", "m", &Source::Git(of("x")))
                .unwrap_err()
                .message
                .contains("REGISTRY_URL")
        );
    }
}
