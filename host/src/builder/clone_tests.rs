//! Real folders; servers are met by the tests that have a cluster.

use super::*;

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
}
