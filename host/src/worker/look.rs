//! `substratus plan`: what a load or an import would fetch, asked of the plugin as they would ask it. Fetches no byte of a file.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use substratus_crds::PluginRole;

use super::access::{Access, Kind};
use super::args::{EffortArgs, Output, PluginArgs};
use super::by_hand::{AskArgs, Wanted, invalid};
use super::failure::LoadError;
use super::listing::Listing;
use super::load::Effort;
use super::progress::human;
use super::report::{self, Outcome};
use super::{import, load};
use crate::telemetry;

const AFTER: &str = "\
Examples:
  substratus plan hf://org/name
      the files of a model that `substratus load` would fetch, their sizes, revision, license and format
  substratus plan hf://datasets/org/name -o json
      the same of a data set that `substratus import` would import, for programs
  HF_TOKEN=… substratus plan hf://org/gated
      whether this token may read it

HF_TOKEN (or HUGGING_FACE_HUB_TOKEN) opens what is private or gated; HF_ENDPOINT names a mirror. What whoever asks may not read is
listed as far as the source tells, and the exit code is the one that a load would end with.";

/// Show what would be fetched: files, bytes, license, gated or not; fetches none of it
#[derive(Debug, Args)]
#[command(after_long_help = report::help(AFTER))]
pub struct PlanArgs {
    /// What to look at, such as `hf://org/name[@revision]` or `hf://datasets/org/name`
    source: String,
    /// Format of the weights, where a source has several
    #[arg(long)]
    format: Option<String>,
    /// What to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    ask: AskArgs,
    #[command(flatten)]
    plugins: PluginArgs,
    #[command(flatten)]
    effort: EffortArgs,
}

/// What was found, as it is printed for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "outcome", rename = "planned")]
struct Planned {
    #[serde(flatten)]
    listing: Listing,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Kind>,
    /// Why a load would fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

impl PlanArgs {
    /// Looks and prints; the exit code is a load's.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        telemetry::init(telemetry::Format::Human, "warn")?;
        let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
        let (listing, access) = match self.look().await {
            Ok(found) => found,
            Err(error) => {
                let outcome = Outcome::failed(String::new(), error.clone());
                match self.output {
                    Output::Json => writeln!(out, "{}", serde_json::to_string(&outcome)?)?,
                    Output::Text => writeln!(err, "error: {error} ({})", error.reason)?,
                }
                return Ok(outcome.exit_code().into());
            }
        };
        let (kind, refused) = access.map_or((None, None), |access| (Some(access.kind), access.refused));
        match self.output {
            Output::Json => {
                let refused = refused.as_ref().map(ToString::to_string);
                writeln!(out, "{}", serde_json::to_string(&Planned { listing, access: kind, refused })?)?;
            }
            Output::Text => describe(&mut out, &self.source, &listing, kind, refused.as_ref())?,
        }
        Ok(refused.map_or(0, |error| Outcome::failed(String::new(), error).exit_code()).into())
    }

    async fn look(&self) -> Result<(Listing, Option<Access>), LoadError> {
        let env = self.effort.environment();
        let effort = Effort { accounts: self.ask.accounts(Some(&self.source))?, ..self.effort.effort(&env)? };
        let plugins = self.plugins.open(&env).map_err(|error| invalid(format!("{error:#}")))?;
        let wanted = Wanted {
            source: Some(&self.source),
            image: None,
            roles: roles(&self.source),
            format: self.format.clone(),
            // Nothing is written.
            target: String::new(),
        };
        let (role, request) = self.ask.request(&plugins, &env, wanted).await?;
        if role == PluginRole::DatasetImporter {
            let plan = import::look(&plugins, &request, env, &effort).await?;
            return Ok((Listing::of_import(&plan), None));
        }
        let plan = load::look(&plugins, &request, env, &effort, true).await?;
        Ok((Listing::of(&plan), plan.access))
    }
}

/// Sources of data sets are written `scheme://datasets/…` where a scheme has both.
fn roles(source: &str) -> &'static [PluginRole] {
    let is_dataset = source.split_once("://").is_some_and(|(_, rest)| rest.starts_with("datasets/"));
    if is_dataset {
        &[PluginRole::DatasetImporter, PluginRole::ModelLoader]
    } else {
        &[PluginRole::ModelLoader, PluginRole::DatasetImporter]
    }
}

/// For people.
fn describe(
    out: &mut impl Write,
    source: &str,
    listing: &Listing,
    access: Option<Kind>,
    refused: Option<&LoadError>,
) -> std::io::Result<()> {
    let facts = &listing.facts;
    writeln!(out, "{source} at revision {}", facts.revision.as_deref().unwrap_or("unknown"))?;
    let unsized_files = listing.list.iter().filter(|file| file.size.is_none()).count();
    let rest = if unsized_files == 0 { String::new() } else { format!(" and {unsized_files} of unknown size") };
    let total = format!("{} files, {}{rest}", facts.files, human(facts.bytes));
    let access = access.map(|kind| said_of(kind, refused));
    let splits = Some(facts.splits.join(", ")).filter(|splits| !splits.is_empty());
    let rows = [
        ("license", facts.license.as_ref()),
        ("format", facts.format.as_ref()),
        ("splits", splits.as_ref()),
        ("partial", facts.partial.as_ref()),
        ("access", access.as_ref()),
        ("total", Some(&total)),
    ];
    for (name, value) in rows {
        if let Some(value) = value {
            writeln!(out, "{name:<8} {value}")?;
        }
    }
    for file in &listing.list {
        let size = file.size.map_or_else(|| "?".to_owned(), |size| human(i64::try_from(size).unwrap_or(i64::MAX)));
        writeln!(out, "{size:>11}  {}", file.path)?;
    }
    facts.warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))
}

/// What an access means for whoever asked.
fn said_of(kind: Kind, refused: Option<&LoadError>) -> String {
    match (kind, refused) {
        (Kind::Public, None) => "anybody may read it".to_owned(),
        (Kind::Gated, None) => "gated; the token given may read it".to_owned(),
        (Kind::Private, None) => "private; the token given may read it".to_owned(),
        (Kind::Gated, Some(error)) => format!("gated, and a load would fail: {error} ({})", error.reason),
        (_, Some(error)) => format!("a load would fail: {error} ({})", error.reason),
    }
}
