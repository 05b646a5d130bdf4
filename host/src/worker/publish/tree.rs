//! What there is to publish: the files of a folder that somebody else wrote, and who must not choose files of ours.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::HeaderMap;
use sha2::{Digest, Sha256};
use substratus_crds::SourceStatus;
use substratus_crds::conditions::reason;
use url::Url;

use crate::bucket::SinkError;
use crate::worker::failure::LoadError;
use crate::worker::plan::{MAX_FILES, Origin, Plan, PlanFile, check_paths};

/// Most warnings that are kept.
const MAX_WARNINGS: usize = 20;

/// A file that was written, and where.
pub(in crate::worker) struct Found {
    /// Below the folder.
    pub path: String,
    /// Where it is read from.
    pub place: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Changes when the file does.
    pub stamp: String,
}

/// The files of a folder, in order of their paths.
#[derive(Default)]
pub(in crate::worker) struct Tree {
    /// What is published.
    pub files: Vec<Found>,
    /// What is not, and why.
    pub warnings: Vec<String>,
}

impl Tree {
    fn warn(&mut self, path: &str, why: &str) {
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(format!("`{path}` is not published: {why}"));
        }
    }

    /// What a link leads to counts where it is a file below `root`: whoever wrote the folder must not choose files of ours.
    fn add(&mut self, root: &Path, path: String, place: &Path) -> io::Result<()> {
        let real = match place.canonicalize() {
            Ok(real) if real.starts_with(root) => real,
            Ok(_) => {
                self.warn(&path, "it is a link that leads out of the folder");
                return Ok(());
            }
            Err(_) => {
                self.warn(&path, "it is a link that leads nowhere");
                return Ok(());
            }
        };
        let metadata = fs::metadata(&real)?;
        if !metadata.is_file() {
            self.warn(&path, "it is neither a file nor a folder");
            return Ok(());
        }
        let stamp = format!("{}.{}.{}", metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        self.files.push(Found { path, place: real, size: metadata.len(), stamp });
        Ok(())
    }

    fn walk(&mut self, root: &Path) -> io::Result<()> {
        let mut folders = vec![(root.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let Some(name) = name.to_str() else {
                    self.warn(&format!("{prefix}{}", name.to_string_lossy()), "its name is no UTF-8");
                    continue;
                };
                let path = format!("{prefix}{name}");
                if entry.file_type()?.is_dir() {
                    folders.push((entry.path(), format!("{path}/")));
                } else {
                    self.add(root, path, &entry.path())?;
                }
            }
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }
}

/// Looks through the folder.
pub(in crate::worker) fn find(from: &Path) -> Result<Tree, LoadError> {
    let name = from.display().to_string();
    let root = from.canonicalize().map_err(SinkError::io("open folder", &name))?;
    let mut tree = Tree::default();
    tree.walk(&root).map_err(SinkError::io("look into", &name))?;
    Ok(tree)
}

/// The plan of an upload of it.
pub(in crate::worker) fn plan(found: &Tree, from: &Path) -> Result<Plan, LoadError> {
    if found.files.len() > MAX_FILES {
        let message = format!("`{}` has more than {MAX_FILES} files; pack them together", from.display());
        return Err(LoadError::new(reason::TOO_LARGE, message));
    }
    check_paths(found.files.iter().map(|file| file.path.as_str()))
        .map_err(|error| LoadError::new(reason::REFUSED, format!("`{}`: {error}", from.display())))?;
    let here = Url::parse("file:///").map_err(|error| LoadError::new(reason::JOB_FAILED, error.to_string()))?;
    let mut revision = Sha256::new();
    let mut files = Vec::with_capacity(found.files.len());
    for Found { path, size, stamp, .. } in &found.files {
        revision.update(format!("{path}\0{size}\0{stamp}\n"));
        let origin = Origin { url: here.clone(), headers: HeaderMap::new(), auth: None, expires: None };
        files.push(PlanFile { path: path.clone(), size: Some(*size), sha256: None, gitoid: None, origin });
    }
    let bytes = found.files.iter().map(|file| file.size).fold(0, u64::saturating_add);
    let source = SourceStatus {
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        files: i64::try_from(files.len()).unwrap_or(i64::MAX),
        warnings: found.warnings.clone(),
        ..SourceStatus::default()
    };
    Ok(Plan { revision: format!("written-{}", hex::encode(revision.finalize())), files, source, ..Plan::default() })
}
