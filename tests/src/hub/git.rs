//! Git's and Git LFS's names for content. Must not know repositories, nor HTTP.

use std::io;

use sha1::{Digest as _, Sha1};

use super::content::Content;

/// The name git gives to a blob.
pub(super) fn blob(content: &Content) -> io::Result<String> {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", content.size()));
    content.each_chunk(|chunk| hasher.update(chunk))?;
    Ok(hex::encode(hasher.finalize()))
}

/// The small text that stands in git for a large file.
pub(super) fn pointer(sha256: &str, size: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n")
}

/// A name for a tree or a commit: the same parts give the same name. Not git's own, which nobody can check from outside.
pub(super) fn name<'a>(kind: &str, parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut hasher = Sha1::new();
    hasher.update(kind);
    for part in parts {
        hasher.update([0]);
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_named_as_git_names_them() {
        // `printf 'hello\n' | git hash-object --stdin`
        assert_eq!(blob(&Content::from("hello\n")).unwrap(), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
