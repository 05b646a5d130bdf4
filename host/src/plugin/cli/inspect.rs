//! `substratus plugin inspect`: what a component is, asks for and may be told, without running it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::args::{CacheArgs, Format, RegistryArgs};
use crate::plugin::component;

/// `plugin inspect`
#[derive(Debug, Args)]
pub struct Inspect {
    /// A component's file, or a reference in a registry
    plugin: String,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    format: Format,
}

/// Shows it.
pub(super) async fn inspect(args: &Inspect) -> anyhow::Result<ExitCode> {
    let plugins = args.cache.open()?;
    let file = Path::new(&args.plugin);
    let (digest, source) = if file.exists() {
        (plugins.add_file(file)?.digest, args.plugin.clone())
    } else {
        let auth = args.registry.auth(&args.plugin)?;
        let pulled = plugins.pull(&args.plugin, auth, &args.registry.plain()).await?;
        (pulled.digest, pulled.reference_with_digest)
    };
    let bytes = plugins.bytes(&digest)?;
    let manifest = plugins.manifest(&digest)?;
    let outline = component::outline(&bytes)?;
    let value = json!({
        "source": source, "digest": digest, "bytes": bytes.len(), "manifest": manifest,
        "imports": outline.imports, "exports": outline.exports,
    });
    let mut text = format!(
        "{} {} ({:?}), for hosts {}\n{}\nsource   {source}\ndigest   {digest}\nsize     {} KiB\n",
        manifest.name,
        manifest.version,
        manifest.role,
        manifest.host,
        manifest.description,
        bytes.len().div_ceil(1024),
    );
    let secrets: Vec<String> =
        manifest.secrets.iter().map(|secret| format!("{} → {}", secret.name, secret.hosts.join(" "))).collect();
    let images: Vec<String> = manifest.claims.images.iter().map(|claim| claim.repository.clone()).collect();
    for (name, values) in [
        ("schemes", &manifest.claims.schemes),
        ("stands for", &images),
        ("engines", &manifest.claims.engines),
        ("clouds", &manifest.claims.clouds),
        ("hosts", &manifest.hosts),
        ("secrets", &secrets),
        ("images", &manifest.images),
        ("scheduling", &manifest.scheduling),
        ("imports", &outline.imports),
        ("exports", &outline.exports),
    ] {
        if !values.is_empty() {
            let values: Vec<&str> = values.iter().map(|value| if value.is_empty() { "\"\"" } else { value }).collect();
            writeln!(text, "{name:<11}{}", values.join(", "))?;
        }
    }
    args.format.print(text.trim_end(), &value)?;
    Ok(ExitCode::SUCCESS)
}
