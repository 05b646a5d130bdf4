//! A repository as a test describes it. Must not know how it is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

use serde_json::{Map, Value};

use super::content::Content;

/// What a repository holds; decides its URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `/api/models/…`
    Model,
    /// `/api/datasets/…`, files under `/datasets/…`
    Dataset,
}

/// Whether access has to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gated {
    /// Anybody may read.
    No,
    /// Granted as soon as somebody asks.
    Auto,
    /// Granted by the owner.
    Manual,
}

/// A repository: files, revisions and who may read it.
#[derive(Debug, Clone)]
pub struct Repo {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) private: bool,
    pub(super) gated: Gated,
    pub(super) disabled: bool,
    pub(super) readers: BTreeSet<String>,
    pub(super) former: Vec<String>,
    pub(super) lfs_threshold: u64,
    pub(super) files: BTreeMap<String, Content>,
    pub(super) refs: Vec<(String, BTreeMap<String, Content>)>,
    pub(super) info: Map<String, Value>,
}

impl Repo {
    /// An empty, public model repository; `id` is `namespace/name`.
    pub fn model(id: &str) -> Self {
        Self::new(Kind::Model, id)
    }

    /// An empty, public dataset repository.
    pub fn dataset(id: &str) -> Self {
        Self::new(Kind::Dataset, id)
    }

    fn new(kind: Kind, id: &str) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            private: false,
            gated: Gated::No,
            disabled: false,
            readers: BTreeSet::new(),
            former: Vec::new(),
            lfs_threshold: 10 * 1024 * 1024,
            files: BTreeMap::new(),
            refs: Vec::new(),
            info: Map::new(),
        }
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Content>) -> Self {
        self.files.insert(path.to_owned(), content.into());
        self
    }

    /// Adds every file below `root`.
    pub fn directory(mut self, root: &Path) -> io::Result<Self> {
        self.add(root, "")?;
        Ok(self)
    }

    fn add(&mut self, directory: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if fs::metadata(entry.path())?.is_dir() {
                self.add(&entry.path(), &format!("{name}/"))?;
            } else {
                self.files.insert(name, Content::file(&entry.path())?);
            }
        }
        Ok(())
    }

    /// Removes a file.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.files.remove(path);
        self
    }

    /// Names the files as they are now: a branch, a tag or `refs/pr/2`. `main` is whatever is there at the end.
    #[must_use]
    pub fn revision(mut self, name: &str) -> Self {
        self.refs.push((name.to_owned(), self.files.clone()));
        self
    }

    /// Nobody but readers may know that it exists.
    #[must_use]
    pub fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Everybody sees it, readers may fetch files.
    #[must_use]
    pub fn gated(mut self, gated: Gated) -> Self {
        self.gated = gated;
        self
    }

    /// Taken down by the hub.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// A token that may read it although it is private or gated.
    #[must_use]
    pub fn reader(mut self, token: &str) -> Self {
        self.readers.insert(token.to_owned());
        self
    }

    /// An earlier name; requests for it are redirected.
    #[must_use]
    pub fn renamed_from(mut self, id: &str) -> Self {
        self.former.push(id.to_owned());
        self
    }

    /// From how many bytes on a file is large (served by the CDN) whatever it is called; 10 MiB unless told.
    #[must_use]
    pub fn lfs_threshold(mut self, bytes: u64) -> Self {
        self.lfs_threshold = bytes;
        self
    }

    /// Adds or replaces a field of the metadata, such as `tags`, `gguf` or `cardData`.
    #[must_use]
    pub fn info(mut self, field: &str, value: Value) -> Self {
        self.info.insert(field.to_owned(), value);
        self
    }

    /// Whether a file is large: by its size, or by its ending, as the hub's usual `.gitattributes` say.
    pub(super) fn is_large(&self, path: &str, size: u64) -> bool {
        const ENDINGS: [&str; 10] = ["safetensors", "gguf", "bin", "pt", "pth", "onnx", "parquet", "h5", "msgpack", "arrow"];
        size >= self.lfs_threshold || path.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
    }
}

impl Gated {
    pub(super) fn json(self) -> Value {
        match self {
            Self::No => Value::Bool(false),
            Self::Auto => "auto".into(),
            Self::Manual => "manual".into(),
        }
    }
}
