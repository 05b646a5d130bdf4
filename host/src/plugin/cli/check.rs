//! `substratus plugin check`: everything the host would refuse a plugin for, before anybody pushes it. Runs no guest code.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::args::{CacheArgs, Format, TargetArgs};
use crate::plugin::{component, package};

/// `plugin check`
#[derive(Debug, Args)]
#[command(
    after_help = "Checked: size, format, the manifest and its JSON Schema, the host's version, imports and exports of the role, what it \
    needs to start,\nand that it compiles. Nothing of it is run. `plugin inspect` shows what it asks for.\n\nExit code 0: a host \
    would take it. 1: it would not, and why."
)]
pub struct Check {
    /// Component that `plugin build` wrote, or folder of a crate, which is compiled
    plugin: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    format: Format,
}

/// Checks it.
pub(super) async fn check(args: &Check) -> anyhow::Result<ExitCode> {
    let bytes = bytes(&args.plugin, args.target.folder())?;
    let plugins = args.cache.open()?;
    let loaded = plugins.add(&bytes)?;
    let began = Instant::now();
    plugins.prepare(&loaded.digest).await?;
    let (manifest, millis) = (&loaded.manifest, began.elapsed().as_millis());
    let tier = component::tier(manifest.role).name;
    let text = format!(
        "{} {} is a {:?} that this host takes\nsize     {} KiB\ntier     {tier}\ncompiled in {millis} ms, or found compiled",
        manifest.name,
        manifest.version,
        manifest.role,
        bytes.len().div_ceil(1024),
    );
    let value = json!({
        "name": manifest.name, "version": manifest.version, "role": manifest.role, "digest": loaded.digest, "bytes": bytes.len(),
        "tier": tier,
    });
    args.format.print(&text, &value)?;
    Ok(ExitCode::SUCCESS)
}

fn bytes(plugin: &Path, target: Option<&Path>) -> anyhow::Result<Vec<u8>> {
    if plugin.is_dir() {
        return Ok(package::build(plugin, target)?.bytes);
    }
    std::fs::read(plugin).with_context(|| format!("read {}", plugin.display()))
}
