//! The plan of a load: every file, checked before the first byte. Pure: a plan is what a plugin said, and hostile until here.

use std::collections::HashSet;

use http::HeaderMap;
use substratus_crds::SourceStatus;
use thiserror::Error;
use url::Url;

use super::access::Access;
use super::verify::Hashed;
use crate::plugin::check_file_path;

/// Most files of one load.
pub const MAX_FILES: usize = 1_000_000;

/// What to fetch.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Immutable revision.
    pub revision: String,
    /// Every file.
    pub files: Vec<PlanFile>,
    /// What the loader said of the model, and the sums.
    pub source: SourceStatus,
    /// Who may read the files, where the loader was asked.
    pub access: Option<Access>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFile {
    /// Relative, checked.
    pub path: String,
    /// Bytes, where the source says so.
    pub size: Option<u64>,
    /// SHA-256, where the source says so.
    pub sha256: Option<[u8; 32]>,
    /// Object id of the bytes as a Git blob, where the source knows the file by that.
    pub gitoid: Option<[u8; 20]>,
    /// Where it is.
    pub origin: Origin,
}

impl PlanFile {
    /// Whether these are the bytes that the source speaks of, as far as it says which.
    pub fn is(&self, hashed: &Hashed) -> bool {
        let differs = self.gitoid.zip(hashed.gitoid).is_some_and(|(planned, found)| planned != found);
        !differs && self.sha256.is_none_or(|planned| planned == hashed.verified.sha256)
    }
}

/// Where a file is, and how to ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Checked against the grant.
    pub url: Url,
    /// Checked: none of ours.
    pub headers: HeaderMap,
    /// A secret use.
    pub auth: Option<String>,
    /// Seconds since the epoch after which to ask the loader again.
    pub expires: Option<u64>,
}

/// What is wrong with the paths of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// A path that no target may have.
    #[error("file {0}")]
    Bad(String),
    /// Two files of one name, on a file system that ignores case at least.
    #[error("file path `{0}` comes twice, or differs from another only in case")]
    Twice(String),
    /// A file where another file needs a folder.
    #[error("file path `{0}` is a file and a folder at the same time")]
    FileAndFolder(String),
}

/// Refuses paths that leave the target or cannot lie beside each other.
pub fn check_paths<'a>(paths: impl Iterator<Item = &'a str> + Clone) -> Result<(), PathError> {
    let mut names = HashSet::new();
    for path in paths.clone() {
        check_file_path(path).map_err(PathError::Bad)?;
        if !names.insert(path.to_lowercase()) {
            return Err(PathError::Twice(path.to_owned()));
        }
    }
    for path in paths {
        let lower = path.to_lowercase();
        let parents = lower.match_indices('/').filter_map(|(at, _)| lower.get(..at));
        let partial = lower.strip_suffix(crate::bucket::local::PARTIAL);
        if parents.chain(partial).any(|other| names.contains(other)) {
            return Err(PathError::FileAndFolder(path.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(paths: &[&str]) -> Result<(), PathError> {
        check_paths(paths.iter().copied())
    }

    #[test]
    fn ordinary_repositories_pass() {
        check(&[
            "config.json",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "a/b/c.bin",
            ".gitattributes",
            "übung.txt",
            "x.partial",
        ])
        .unwrap();
    }

    #[test]
    fn paths_that_leave_the_target_are_refused() {
        for path in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", "a\\b", "a\nb", "a\0b"] {
            assert!(matches!(check(&[path]), Err(PathError::Bad(..))), "{path:?}");
        }
    }

    #[test]
    fn files_that_cannot_lie_beside_each_other_are_refused() {
        assert!(matches!(check(&["README.md", "readme.MD"]), Err(PathError::Twice(_))));
        assert!(matches!(check(&["a/b/c", "A/B"]), Err(PathError::FileAndFolder(_))));
        assert!(matches!(check(&["x", "x.partial"]), Err(PathError::FileAndFolder(_))));
    }

    proptest! {
        #[test]
        fn whatever_passes_stays_below(path in "[a./\\\\]{0,12}") {
            if check(&[&path]).is_ok() {
                let joined = std::path::Path::new("/target").join(&path);
                prop_assert!(joined.components().all(|part| part != std::path::Component::ParentDir));
                prop_assert!(joined.starts_with("/target") && joined != std::path::Path::new("/target"));
            }
        }
    }
}
