//! `substratus plugin verify`: whether a plugin of a registry is signed by given keys, as the operator would decide it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::args::{Format, RegistryArgs};
use crate::plugin::{SignaturePolicy, signature};

/// `plugin verify`
#[derive(Debug, Args)]
#[command(after_help = "Both forms that `cosign sign --key` writes count: Sigstore bundles and the older signature tag.\n\
    Exit code 0: signed as asked for. 1: not, and why.\n\n\
    Example:\n  substratus plugin verify registry.example/team/plugin:1.0.0 --key cosign.pub")]
pub struct Verify {
    /// Plugin in a registry, by tag or digest
    reference: String,
    /// File with a public key (PEM, ECDSA P-256): `cosign.pub` of `cosign generate-key-pair`; may be given several times
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// How many different keys must have signed
    #[arg(long, value_name = "N", default_value_t = 1)]
    minimum: usize,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    format: Format,
}

/// Verifies it.
pub(super) async fn verify(args: &Verify) -> anyhow::Result<ExitCode> {
    let read = |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()));
    let keys = args.key.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let policy = SignaturePolicy { keys, minimum: args.minimum };
    let auth = args.registry.auth(&args.reference)?;
    let (reference, signed) = signature::verify(&args.reference, auth, &args.registry.plain(), &policy).await?;
    let mut text = reference.clone();
    for key in &signed.by {
        write!(text, "\nsigned by {key}")?;
    }
    args.format.print(&text, &json!({"reference": reference, "signedBy": signed.by}))?;
    Ok(ExitCode::SUCCESS)
}
