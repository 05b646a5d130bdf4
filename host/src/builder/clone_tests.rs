//! Real repositories in real folders; servers are met by the tests that have a cluster.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_context_stays_inside_of_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir_all(source.join("app/deep")).unwrap();
    fs::create_dir(folder.path().join("secret")).unwrap();
    fs::write(source.join("file"), "").unwrap();
    symlink("../secret", source.join("out")).unwrap();
    symlink("app", source.join("in")).unwrap();
    for path in ["", "app", "app/deep", "./app", "in"] {
        assert!(context(&source, path).is_ok(), "{path}");
    }
    for path in ["..", "../secret", "app/../../secret", "/etc", "out", "none", "file"] {
        let failure = context(&source, path).unwrap_err();
        assert!(failure.reason == reason::INVALID && failure.message.contains("spec.build.git.path"), "{path}: {failure:?}");
    }
}

fn arguments(path: &str, to: &Path) -> CloneArgs {
    CloneArgs {
        inputs: "i".to_owned(),
        url: "https://git.test/x".to_owned(),
        branch: Some("main".to_owned()),
        tag: None,
        commit: None,
        path: path.to_owned(),
        submodules: false,
        depth: 1,
        secret: None,
        private: to.to_owned(),
        ca_file: None,
        to: to.to_owned(),
        termination_log: None,
    }
}

#[test]
fn a_dockerfile_must_be_there_and_inside() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source").canonicalize().unwrap_or_else(|_| folder.path().join("source"));
    fs::create_dir_all(source.join("with")).unwrap();
    fs::create_dir_all(source.join("linked")).unwrap();
    fs::write(source.join("with/Dockerfile"), "FROM scratch").unwrap();
    fs::write(folder.path().join("outside"), "FROM scratch").unwrap();
    symlink("../../outside", source.join("linked/Dockerfile")).unwrap();
    let source = source.canonicalize().unwrap();
    assert_eq!(arguments("with", folder.path()).check(&source), Ok(()));
    for path in ["", "linked"] {
        let failure = arguments(path, folder.path()).check(&source).unwrap_err();
        assert_eq!(failure.reason, reason::NO_DOCKERFILE, "{path}");
        assert!(failure.message.contains("at branch main of https://git.test/x"), "{}", failure.message);
    }
}

#[test]
fn nothing_of_git_is_left_in_a_context() {
    let folder = tempfile::tempdir().unwrap();
    for path in [".git/objects", "sub"] {
        fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    fs::write(folder.path().join("sub/.git"), "gitdir: ../.git/modules/sub").unwrap();
    fs::write(folder.path().join("sub/.gitignore"), "x").unwrap();
    forget_history(folder.path()).unwrap();
    assert!(!folder.path().join(".git").exists() && !folder.path().join("sub/.git").exists());
    assert!(folder.path().join("sub/.gitignore").exists());
    assert_eq!(bytes(folder.path()).unwrap(), 1);
}

#[test]
fn a_context_that_is_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().canonicalize().unwrap().join("source");
    fs::create_dir_all(source.join("app")).unwrap();
    fs::write(source.join("app/Dockerfile"), "FROM scratch").unwrap();
    // A file with nothing in it takes no room.
    fs::File::create(source.join("weights")).unwrap().set_len(BUILD_CONTEXT_BYTES + 1).unwrap();
    fs::write(source.join("Dockerfile"), "FROM scratch").unwrap();
    let failure = arguments("", folder.path()).check(&source).unwrap_err();
    assert_eq!(failure.reason, reason::TOO_LARGE);
    assert!(failure.message.contains("spec.build.git.path"), "{}", failure.message);
    assert_eq!(arguments("app", folder.path()).check(&source), Ok(()));
}
