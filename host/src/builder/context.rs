//! The folder that an image is built from, wherever it came from: it is inside of the sources, has a Dockerfile, and is not data.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, ensure};
use substratus_crds::conditions::reason;

use super::failure::Failure;
use crate::limits::BUILD_CONTEXT_BYTES;

/// Folder of the sources below the one that is handed from step to step.
pub(super) const SOURCE: &str = "source";
/// What is built, in the folder of the context.
const DOCKERFILE: &str = "Dockerfile";

/// The folder that is the context: a folder of the repository, wherever its symbolic links lead.
pub(super) fn find(source: &Path, path: &str) -> Result<PathBuf, Failure> {
    let wrong = |why: &str| Failure::new(reason::INVALID, format!("spec.build.git.path: `{path}` {why}"));
    if Path::new(path).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(wrong("leads out of the repository"));
    }
    let found = source.join(path).canonicalize().map_err(|_| wrong("is no folder of the repository"))?;
    let root = source.canonicalize().map_err(|_| wrong("is no folder of the repository"))?;
    match (found.starts_with(&root), found.is_dir()) {
        (false, _) => Err(wrong("leads out of the repository")),
        (true, false) => Err(wrong("is no folder of the repository")),
        (true, true) => Ok(found),
    }
}

/// There is a Dockerfile where it is looked for, inside of the sources, and the context is no larger than one may be. `place` says
/// where that is, `remedy` what to do.
pub(super) fn check(source: &Path, path: &str, place: &str, remedy: &str) -> Result<(), Failure> {
    let context = find(source, path)?;
    let named = if path.is_empty() { String::new() } else { format!("`{path}` of ") };
    let root = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let dockerfile = context.join(DOCKERFILE).canonicalize().ok();
    if dockerfile.is_none_or(|file| !file.starts_with(root) || !file.is_file()) {
        let message = format!("there is no file {DOCKERFILE} in {named}{place}; {remedy}");
        return Err(Failure::new(reason::NO_DOCKERFILE, message));
    }
    let bytes = bytes(&context).map_err(|error| Failure::passing(reason::BUILDER_FAILED, format!("{error:#}")))?;
    if bytes > BUILD_CONTEXT_BYTES {
        let message = format!(
            "{named}{place} has {bytes} bytes, and a build may have {BUILD_CONTEXT_BYTES}; data belongs into a Dataset; {remedy}"
        );
        return Err(Failure::new(reason::TOO_LARGE, message));
    }
    Ok(())
}

fn bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut all = 0_u64;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let facts = entry.metadata().context("look at a file")?;
        all = all.saturating_add(if facts.is_dir() { bytes(&entry.path())? } else { facts.len() });
        ensure!(all < u64::MAX, "too many bytes to count");
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn seen(source: &Path, path: &str) -> Result<(), Failure> {
        check(source, path, "branch main of https://git.test/x", "name another folder")
    }

    #[test]
    fn a_context_stays_inside_of_its_sources() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("app/deep")).unwrap();
        fs::create_dir(folder.path().join("secret")).unwrap();
        fs::write(source.join("file"), "").unwrap();
        symlink("../secret", source.join("out")).unwrap();
        symlink("app", source.join("in")).unwrap();
        for path in ["", "app", "app/deep", "./app", "in"] {
            assert!(find(&source, path).is_ok(), "{path}");
        }
        for path in ["..", "../secret", "app/../../secret", "/etc", "out", "none", "file"] {
            let failure = find(&source, path).unwrap_err();
            assert!(failure.reason == reason::INVALID && failure.message.contains("spec.build.git.path"), "{path}: {failure:?}");
        }
    }

    #[test]
    fn a_dockerfile_must_be_there_and_inside() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("with")).unwrap();
        fs::create_dir_all(source.join("linked")).unwrap();
        fs::write(source.join("with/Dockerfile"), "FROM scratch").unwrap();
        fs::write(folder.path().join("outside"), "FROM scratch").unwrap();
        symlink("../../outside", source.join("linked/Dockerfile")).unwrap();
        assert_eq!(seen(&source, "with"), Ok(()));
        for path in ["", "linked"] {
            let failure = seen(&source, path).unwrap_err();
            assert_eq!(failure.reason, reason::NO_DOCKERFILE, "{path}");
            let told = failure.message.contains("branch main of https://git.test/x; name another folder");
            assert!(told, "{}", failure.message);
        }
    }

    #[test]
    fn a_context_that_is_data_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path();
        fs::create_dir_all(source.join("app")).unwrap();
        fs::write(source.join("app/Dockerfile"), "FROM scratch").unwrap();
        // A file with nothing in it takes no room.
        fs::File::create(source.join("weights")).unwrap().set_len(BUILD_CONTEXT_BYTES + 1).unwrap();
        fs::write(source.join("Dockerfile"), "FROM scratch").unwrap();
        assert_eq!(seen(source, "").unwrap_err().reason, reason::TOO_LARGE);
        assert_eq!(seen(source, "app"), Ok(()));
    }
}
