//! `kind`, for machines with a container engine and without root: its command lines, and nothing of what runs on its cluster.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Name of the cluster; that of other clusters is never said.
const NAME: &str = "substratus";

/// The program.
#[derive(Debug, Clone)]
pub struct Kind {
    program: PathBuf,
}

impl Kind {
    /// `program` is its path.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Makes the cluster unless it exists; `kubeconfig` is a file of ours, so that the user's stays as it is.
    pub fn create(&self, kubeconfig: &Path) -> Result<()> {
        if !self.exists()? {
            self.run([
                OsStr::new("create"),
                "cluster".as_ref(),
                "--name".as_ref(),
                NAME.as_ref(),
                "--kubeconfig".as_ref(),
                kubeconfig.as_ref(),
                "--wait".as_ref(),
                "5m".as_ref(),
            ])?;
        }
        Ok(())
    }

    /// Whether the cluster exists.
    pub fn exists(&self) -> Result<bool> {
        Ok(self.run(["get", "clusters"])?.lines().any(|name| name.trim() == NAME))
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> Result<String> {
        self.run(["get", "kubeconfig", "--name", NAME])
    }

    /// Gives an image, an archive as container engines load it, to the nodes.
    pub fn load(&self, archive: &Path) -> Result<()> {
        self.run([OsStr::new("load"), "image-archive".as_ref(), archive.as_ref(), "--name".as_ref(), NAME.as_ref()]).map(drop)
    }

    /// Removes the cluster; one that does not exist is as good.
    pub fn delete(&self, kubeconfig: &Path) -> Result<()> {
        self.run([
            OsStr::new("delete"),
            "cluster".as_ref(),
            "--name".as_ref(),
            NAME.as_ref(),
            "--kubeconfig".as_ref(),
            kubeconfig.as_ref(),
        ])
        .map(drop)
    }

    fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().with_context(|| format!("running {}", self.program.display()))?;
        let line = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`kind {line}` failed: {}", words.trim());
        String::from_utf8(output.stdout).with_context(|| format!("reading what `kind {line}` printed"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A program that writes down how it was called, and answers as kind's documentation says.
    fn recorded(clusters: &str) -> (tempfile::TempDir, Kind) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("kind");
        let script = format!(
            "#!/bin/sh\necho \"$*\" >>'{0}/calls'\ncase \"$*\" in\n'get clusters') printf '{clusters}';;\n\
             'get kubeconfig --name substratus') echo 'apiVersion: v1';;\n\
             'delete cluster --name other'*) echo no >&2; exit 1;;\n'load image-archive /missing'*) echo 'ERROR: no such file' >&2; exit 1;;\nesac\n",
            folder.path().display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let kind = Kind::new(program);
        (folder, kind)
    }

    fn calls(folder: &tempfile::TempDir) -> Vec<String> {
        fs::read_to_string(folder.path().join("calls")).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_cluster_is_made_once_used_and_deleted_by_name() {
        let (folder, kind) = recorded("other\\n");
        kind.create(Path::new("/state/kind.kubeconfig")).unwrap();
        assert_eq!(kind.kubeconfig().unwrap(), "apiVersion: v1\n");
        kind.load(Path::new("/tmp/image.tar")).unwrap();
        kind.delete(Path::new("/state/kind.kubeconfig")).unwrap();
        assert_eq!(
            calls(&folder),
            [
                "get clusters",
                "create cluster --name substratus --kubeconfig /state/kind.kubeconfig --wait 5m",
                "get kubeconfig --name substratus",
                "load image-archive /tmp/image.tar --name substratus",
                "delete cluster --name substratus --kubeconfig /state/kind.kubeconfig",
            ]
        );
    }

    #[test]
    fn a_cluster_that_exists_is_used_again() {
        let (folder, kind) = recorded("other\\nsubstratus\\n");
        kind.create(Path::new("/state/kind.kubeconfig")).unwrap();
        assert_eq!(calls(&folder), ["get clusters"]);
    }

    #[test]
    fn a_failure_is_told_in_kinds_own_words() {
        let (_folder, kind) = recorded("");
        let error = kind.load(Path::new("/missing")).unwrap_err().to_string();
        assert!(error.contains("load image-archive /missing") && error.contains("no such file"), "{error}");
    }
}
