//! A repository as the hub serves it: commits, each a sorted listing with every file's names. Pure but for reading
//! the content once to hash it; must not know HTTP.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, Result};

use super::{
    content::Content,
    git,
    repo::{Gated, Kind, Repo},
};

/// What lies under a path.
#[derive(Debug, Clone)]
pub(super) enum What {
    Directory,
    Small(Content),
    Large { sha256: String, pointer_size: usize, content: Content },
}

/// One line of a listing.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) oid: String,
    pub(super) what: What,
}

impl Entry {
    pub(super) fn size(&self) -> u64 {
        match &self.what {
            What::Directory => 0,
            What::Small(content) | What::Large { content, .. } => content.size(),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.what, What::Directory)
    }
}

/// A state of the repository: entries sorted by path, each directory before what it holds.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) sha: String,
    pub(super) entries: Vec<Entry>,
}

impl Commit {
    pub(super) fn entry(&self, path: &str) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok()?;
        self.entries.get(index)
    }

    /// Everything below `directory` ("" is the root) whose path comes after `after`, or only direct children.
    pub(super) fn below<'a>(&'a self, directory: &str, recursive: bool, after: &str) -> impl Iterator<Item = &'a Entry> {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let after = after.max(&prefix);
        let start = self.entries.partition_point(|entry| entry.path.as_str() <= after);
        let rest = self.entries.get(start..).unwrap_or_default().iter();
        rest.map_while(move |entry| entry.path.strip_prefix(&prefix).map(|name| (name, entry)))
            .filter(move |(name, _)| recursive || !name.contains('/'))
            .map(|(_, entry)| entry)
    }
}

/// A repository with its revisions.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) private: bool,
    pub(super) gated: Gated,
    pub(super) disabled: bool,
    pub(super) readers: BTreeSet<String>,
    pub(super) info: serde_json::Map<String, serde_json::Value>,
    refs: BTreeMap<String, String>,
    commits: BTreeMap<String, Commit>,
}

impl Published {
    /// Hashes what `repo` describes.
    pub(super) fn new(repo: Repo) -> Result<Self> {
        let (mut refs, mut commits) = (BTreeMap::new(), BTreeMap::new());
        let mut known = HashMap::new();
        let revisions = repo.refs.iter().map(|(name, files)| (name.as_str(), files));
        for (name, files) in revisions.chain([("main", &repo.files)]) {
            let commit = commit(&repo, files, &mut known)?;
            refs.insert(name.to_owned(), commit.sha.clone());
            commits.insert(commit.sha.clone(), commit);
        }
        let Repo { kind, id, private, gated, disabled, readers, info, .. } = repo;
        Ok(Self { kind, id, private, gated, disabled, readers, info, refs, commits })
    }

    /// Keeps the commits of what was published under this name before.
    pub(super) fn keep(&mut self, earlier: Self) {
        for (sha, commit) in earlier.commits {
            self.commits.entry(sha).or_insert(commit);
        }
    }

    /// The commit that a branch, a tag or a full hash names.
    pub(super) fn commit(&self, revision: &str) -> Option<&Commit> {
        let sha = self.refs.get(revision).map_or(revision, String::as_str);
        self.commits.get(sha)
    }

    /// Every branch and tag, with its commit.
    pub(super) fn refs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.refs.iter().map(|(name, sha)| (name.as_str(), sha.as_str()))
    }

    /// Every large file, by its sha256.
    pub(super) fn blobs(&self) -> impl Iterator<Item = (&str, &Content)> {
        self.commits.values().flat_map(|commit| &commit.entries).filter_map(|entry| match &entry.what {
            What::Large { sha256, content, .. } => Some((sha256.as_str(), content)),
            What::Directory | What::Small(_) => None,
        })
    }
}

/// `known` saves hashing a file again that is the same object in two revisions.
fn commit(repo: &Repo, files: &BTreeMap<String, Content>, known: &mut HashMap<(String, usize), Entry>) -> Result<Commit> {
    let mut entries = BTreeMap::new();
    for (path, content) in files {
        for (end, _) in path.match_indices('/') {
            let directory = path.get(..end).unwrap_or_default();
            let oid = git::name("tree", [directory]);
            let entry = Entry { path: directory.to_owned(), oid, what: What::Directory };
            entries.entry(directory.to_owned()).or_insert(entry);
        }
        let key = (path.clone(), content.identity());
        let entry = if let Some(entry) = known.get(&key) {
            entry.clone()
        } else {
            let entry = file(repo, path, content).with_context(|| format!("hash {path:?} of {:?}", repo.id))?;
            known.insert(key, entry.clone());
            entry
        };
        entries.insert(path.clone(), entry);
    }
    let names = entries.values().flat_map(|entry| [entry.path.as_str(), entry.oid.as_str()]);
    let sha = git::name("commit", [repo.id.as_str()].into_iter().chain(names));
    Ok(Commit { sha, entries: entries.into_values().collect() })
}

fn file(repo: &Repo, path: &str, content: &Content) -> std::io::Result<Entry> {
    let (path, content) = (path.to_owned(), content.clone());
    if !repo.is_large(&path, content.size()) {
        return Ok(Entry { oid: git::blob(&content)?, path, what: What::Small(content) });
    }
    let sha256 = content.sha256()?;
    let pointer = git::pointer(&sha256, content.size());
    let oid = git::blob(&Content::from(pointer.as_str()))?;
    Ok(Entry { path, oid, what: What::Large { sha256, pointer_size: pointer.len(), content } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_snapshots_and_main_is_the_last() {
        let repo = Repo::model("a/b").file("x/y.txt", "1").revision("v1").file("x/z.txt", "2");
        let published = Published::new(repo).unwrap();
        let paths = |revision| -> Vec<String> {
            published.commit(revision).unwrap().entries.iter().map(|entry| entry.path.clone()).collect()
        };
        assert_eq!(paths("v1"), ["x", "x/y.txt"]);
        assert_eq!(paths("main"), ["x", "x/y.txt", "x/z.txt"]);
        let main = published.commit("main").unwrap();
        assert_eq!(published.commit(&main.sha).unwrap().sha, main.sha);
        assert_eq!(main.below("", false, "").count(), 1);
        assert_eq!(main.below("x", false, "").count(), 2);
        assert_eq!(main.below("", true, "x/y.txt").count(), 1);
        assert!(published.commit("v2").is_none());
    }
}
