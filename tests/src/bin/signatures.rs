//! `substratus-signatures`: has the real cosign sign plugins anew, and compares what a host makes of them with what is expected.
//! Must not hold anything that tests need; that is `substratus_tests::signatures`.
#![expect(clippy::print_stdout, reason = "a command's output")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use substratus_tests::cluster::settings::Settings;
use substratus_tests::registry::Registry;
use substratus_tests::registry::referrers::Referrers;
use substratus_tests::signatures;

/// Signs plugins with cosign, moves them to other registries, and holds host and cosign at what is expected of both.
#[derive(Debug, Parser)]
#[command(name = "substratus-signatures")]
struct Arguments {
    /// Keep what was made in this new folder, to be committed as tests/fixtures/signatures
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cosign = Settings::from_environment()?.find("cosign").context("cosign is missing; tests/cosign/build.sh builds it")?;
    let temporary = tempfile::tempdir()?;
    let folder = arguments.keep.unwrap_or_else(|| temporary.path().join("signatures"));
    signatures::make(&cosign, &folder).await?;
    println!("cosign signed anew in {}", folder.display());
    check(&cosign, &folder).await
}

async fn check(cosign: &Path, folder: &Path) -> Result<()> {
    let registry = Registry::start()?;
    signatures::hold(folder, &registry.host).await.context("a registry without the referrers API")?;
    let upstream = Registry::start()?;
    let modern = Referrers::start(&upstream.host, 100)?;
    signatures::hold(folder, &modern.host).await.context("a registry with the referrers API")?;
    println!("the host makes of them what is expected, with the referrers API and without");
    for (tag, reference) in signatures::publish(folder, &registry.host).await? {
        // To cosign an attestation is as good as a signature; the host is stricter.
        let verified = signatures::cosign_verifies(cosign, folder, "release", &reference);
        let expected = !matches!(tag.as_str(), "foreign" | "unsigned");
        ensure!(verified.is_ok() == expected, "cosign on {tag}: {verified:?}");
    }
    println!("cosign finds the same in a registry that they were moved to");
    Ok(())
}
