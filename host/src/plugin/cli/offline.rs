//! `substratus plugin export` and `import`: plugins and their signatures across a gap without a network.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::args::{Format, RegistryArgs};
use crate::plugin::Origin;

/// `plugin export`
#[derive(Debug, Args)]
#[command(after_help = "Manifests keep their digests, so signatures still hold after an import.\n\n\
    Example:\n  substratus plugin export registry.example/team/plugin:1.0.0 --to plugins.tar")]
pub struct Export {
    /// Plugins in registries, by tag or digest; or files that `plugin build` wrote
    #[arg(required = true, value_name = "REFERENCE|FILE")]
    plugins: Vec<String>,
    /// New folder, or file whose name ends in .tar
    #[arg(long, value_name = "DIR|FILE.tar")]
    to: PathBuf,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    format: Format,
}

/// `plugin import`
#[derive(Debug, Args)]
#[command(after_help = "A plugin keeps its repository's name behind the prefix, as the mirror of a PluginSource expects it.\n\n\
    Example:\n  substratus plugin import plugins.tar --to registry.internal/mirror\n  \
    substratus plugin verify registry.internal/mirror/team/plugin:1.0.0 --key cosign.pub")]
pub struct Import {
    /// What `plugin export` wrote
    #[arg(value_name = "DIR|FILE.tar")]
    from: PathBuf,
    /// Registry, and folder in it: registry.internal/mirror
    #[arg(long, value_name = "PREFIX")]
    to: String,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    format: Format,
}

/// Exports.
pub(super) async fn export(args: &Export) -> anyhow::Result<ExitCode> {
    let origin = |plugin: &String| -> anyhow::Result<Origin> {
        let file = PathBuf::from(plugin);
        let is_file = file.is_file();
        Ok(if is_file { Origin::File(file) } else { Origin::Registry(plugin.clone(), args.registry.auth(plugin)?) })
    };
    let origins = args.plugins.iter().map(origin).collect::<anyhow::Result<Vec<_>>>()?;
    let exported = crate::plugin::export(&origins, &args.registry.plain(), &args.to).await?;
    let lines = exported.iter().map(|one| {
        let left_out = if one.left_out == 0 { String::new() } else { format!(", {} of an unknown form left out", one.left_out) };
        format!("{} with {} attachments{left_out}", one.reference_with_digest, one.attachments)
    });
    let value: Vec<Value> = exported
        .iter()
        .map(|one| json!({"reference": one.reference_with_digest, "attachments": one.attachments, "leftOut": one.left_out}))
        .collect();
    args.format.print(&lines.collect::<Vec<_>>().join("\n"), &value.into())?;
    Ok(ExitCode::SUCCESS)
}

/// Imports.
pub(super) async fn import(args: &Import) -> anyhow::Result<ExitCode> {
    let auth = args.registry.auth(&format!("{}/any", args.to.trim_end_matches('/')))?;
    let imported = crate::plugin::import(&args.from, &args.to, &auth, &args.registry.plain()).await?;
    let lines = imported
        .iter()
        .map(|one| format!("{} is now {} with {} attachments", one.from, one.reference_with_digest, one.attachments));
    let value: Vec<Value> = imported
        .iter()
        .map(|one| json!({"from": one.from, "reference": one.reference_with_digest, "attachments": one.attachments}))
        .collect();
    args.format.print(&lines.collect::<Vec<_>>().join("\n"), &value.into())?;
    Ok(ExitCode::SUCCESS)
}
