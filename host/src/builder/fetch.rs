//! `substratus builder fetch`: what a user sent, as a build context. It trusts neither the operator's store nor the archive.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use flate2::read::MultiGzDecoder;
use md5::Md5;
use sha2::{Digest as _, Sha256};
use substratus_crds::conditions::reason;
use url::Url;

use super::context::{self, SOURCE};
use super::failure::Failure;
use super::report::Report;
use crate::limits::{BUILD_CONTEXT_BYTES, BUILD_CONTEXT_FILES};
use crate::worker::progress::Store;

/// How often the store is asked.
const ATTEMPTS: u32 = 6;
/// Between the first two questions; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);
/// A store that sends nothing for so long is asked again.
const STALLED: Duration = Duration::from_secs(30);

/// Arguments of the step.
#[derive(Args, Debug)]
pub struct FetchArgs {
    /// The build that this belongs to
    #[arg(long)]
    inputs: String,
    /// Where the operator has it
    #[arg(long)]
    url: Url,
    /// File with the pod's token for the operator's store
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// MD5 of the archive, hexadecimal
    #[arg(long)]
    md5: String,
    /// SHA-256 of the archive, hexadecimal
    #[arg(long)]
    sha256: Option<String>,
    /// Folder to write to
    #[arg(long)]
    to: PathBuf,
    /// File for the outcome of a failure [default: /dev/termination-log where it exists]
    #[arg(long)]
    termination_log: Option<PathBuf>,
}

impl FetchArgs {
    /// Fetches, and leaves an outcome where that fails: the next step has the last word.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.fetch().await {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(failure) => {
                let report = Report::failed(&self.inputs, failure);
                report.leave(self.termination_log.as_deref())?;
                Ok(report.exit_code())
            }
        }
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let source = self.to.join(SOURCE);
        // What an earlier container of this pod left is not whole.
        drop(fs::remove_dir_all(&source));
        let archive = self.to.join("upload.tar.gz");
        self.download(&archive).await?;
        unpack(&archive, &source)?;
        drop(fs::remove_file(&archive));
        context::check(&source, "", "the folder that was uploaded", "upload the folder that has it at its top")
    }

    /// Has the store asked until it answers.
    async fn download(&self, archive: &Path) -> Result<(), Failure> {
        let broken = |error: anyhow::Error| {
            Failure::passing(reason::BUILDER_FAILED, format!("the operator does not hand out what was uploaded: {error:#}"))
        };
        let store = Store::new(self.token_file.clone()).map_err(|error| broken(error.into()))?;
        let (mut attempt, mut pause) = (1, PAUSE);
        loop {
            match self.attempt(&store, archive).await {
                Ok(Some(sums)) => return self.check(&sums),
                Ok(None) => {
                    let message = "the upload is not there any more: newer ones took its room (setting UPLOADS_MIB), or the operator \
                                   moved to another disk; upload it again";
                    return Err(Failure::new(reason::UPLOAD_LOST, message));
                }
                Err(error) if attempt == ATTEMPTS => return Err(broken(error)),
                Err(error) => tracing::warn!(%error, ?pause, "the operator's store is asked again"),
            }
            tokio::time::sleep(pause).await;
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }

    async fn attempt(&self, store: &Store, archive: &Path) -> anyhow::Result<Option<(String, String)>> {
        let asked = store.request(http::Method::GET, self.url.clone()).send();
        let mut response = tokio::time::timeout(STALLED, asked).await.context("no answer")??;
        if response.status() == http::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        anyhow::ensure!(response.status().is_success(), "it answers {}", response.status());
        let mut file = File::create(archive).with_context(|| format!("write {}", archive.display()))?;
        let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
        while let Some(part) = tokio::time::timeout(STALLED, response.chunk()).await.context("nothing came")?? {
            md5.update(&part);
            sha256.update(&part);
            file.write_all(&part).with_context(|| format!("write {}", archive.display()))?;
        }
        Ok(Some((hex::encode(md5.finalize()), hex::encode(sha256.finalize()))))
    }

    fn check(&self, (md5, sha256): &(String, String)) -> Result<(), Failure> {
        let same = |said: &str, is: &str| said.eq_ignore_ascii_case(is);
        if same(&self.md5, md5) && self.sha256.as_deref().is_none_or(|said| same(said, sha256)) {
            return Ok(());
        }
        let message = format!("what was uploaded has MD5 {md5} and SHA-256 {sha256}, and spec.build.upload says otherwise");
        Err(Failure::new(reason::UPLOAD_REFUSED, message))
    }
}

fn bad(why: impl std::fmt::Display) -> Failure {
    Failure::new(reason::INVALID, format!("spec.build.upload: what was uploaded is no gzipped tarball of a folder: {why}"))
}

/// Unpacks files, folders and symbolic links, and nothing that lies or leads elsewhere.
fn unpack(archive: &Path, source: &Path) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::passing(reason::BUILDER_FAILED, format!("unpack what was uploaded: {error}"));
    let file = File::open(archive).map_err(broken)?;
    fs::create_dir_all(source).map_err(broken)?;
    let mut tar = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
    let (mut room, mut links) = (BUILD_CONTEXT_BYTES, Vec::new());
    for (count, entry) in tar.entries().map_err(bad)?.enumerate() {
        if count >= BUILD_CONTEXT_FILES {
            return Err(Failure::new(reason::TOO_LARGE, format!("what was uploaded has more than {BUILD_CONTEXT_FILES} files")));
        }
        let mut entry = entry.map_err(bad)?;
        let name = entry.path().map_err(bad)?.into_owned();
        let path = source.join(inside(&name)?);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&path).map_err(bad)?;
        } else if kind.is_file() {
            parent(&path)?;
            let mode = if entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0) { 0o755 } else { 0o644 };
            let mut to = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&path).map_err(bad)?;
            // One byte more than there is room for shows that it is too much.
            let written = io::copy(&mut entry.by_ref().take(room.saturating_add(1)), &mut to).map_err(bad)?;
            room = room.checked_sub(written).ok_or_else(|| {
                let message = format!("what was uploaded has more than {BUILD_CONTEXT_BYTES} bytes; data belongs into a Dataset");
                Failure::new(reason::TOO_LARGE, message)
            })?;
        } else if kind.is_symlink() {
            let to = entry.link_name().map_err(bad)?.ok_or_else(|| bad("a link leads nowhere"))?.into_owned();
            links.push((path, to));
        } else if !matches!(kind, tar::EntryType::XGlobalHeader) {
            return Err(bad(format!("`{}` is no file, folder or symbolic link", name.display())));
        }
    }
    // After all files, so that none is written through one. Where they lead is for the builder, which follows none out of its context.
    for (path, to) in links {
        if path.ancestors().skip(1).take_while(|above| *above != source).any(Path::is_symlink) {
            return Err(bad(format!("`{}` lies behind a link", path.display())));
        }
        parent(&path)?;
        symlink(to, path).map_err(bad)?;
    }
    Ok(())
}

fn parent(path: &Path) -> Result<(), Failure> {
    path.parent().map_or(Ok(()), |folder| fs::create_dir_all(folder).map_err(bad))
}

/// A path of the archive, where it leads nowhere else.
fn inside(name: &Path) -> Result<PathBuf, Failure> {
    let mut path = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(bad(format!("`{}` leads out of it", name.display()))),
        }
    }
    Ok(path)
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
