//! What is printed about one object: the same facts for people, as YAML and as JSON. Pure.

use std::fmt::Write;

use kube::Resource;
use serde::Serialize;
use serde_json::Value;
use substratus_crds::Candidate;

use crate::kinds::shared::child::Owner;
use crate::kinds::shared::verdict::Verdict;
use crate::worker::listing::Listing;

/// Most files that are listed for people.
const SHOWN_FILES: usize = 20;

/// One object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    kind: String,
    namespace: String,
    name: String,
    /// Why it could not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stopped: Option<String>,
    /// What cannot be said with what is at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unknown: Option<String>,
    /// Which plugin and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<Listing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) engine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) placement: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) candidates: Vec<Candidate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifacts: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) publish: Option<String>,
    pub(super) children: Vec<Value>,
}

impl Report {
    pub(super) fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        let owner = Owner::of(object);
        Self {
            kind: owner.reference.kind,
            namespace: owner.namespace,
            name: owner.reference.name,
            stopped: None,
            unknown: None,
            route: None,
            source: None,
            engine: None,
            reason: None,
            placement: None,
            candidates: Vec::new(),
            artifacts: None,
            publish: None,
            children: Vec::new(),
        }
    }

    pub(super) fn stop(&mut self, verdict: &Verdict) {
        self.stopped = Some(format!("{}: {}", verdict.reason, verdict.message));
    }

    fn write(&self, out: &mut String) -> anyhow::Result<()> {
        writeln!(out, "{} {}/{}", self.kind, self.namespace, self.name)?;
        let rows = [
            ("stopped", &self.stopped),
            ("who", &self.route),
            ("engine", &self.engine),
            ("why", &self.reason),
            ("placement", &self.placement),
            ("artifacts", &self.artifacts),
            ("publish", &self.publish),
            ("unknown", &self.unknown),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                writeln!(out, "  {name:<10} {value}")?;
            }
        }
        for candidate in &self.candidates {
            writeln!(out, "  fit {:>3}    {}: {}", candidate.score, candidate.engine, candidate.reason)?;
        }
        if let Some(source) = &self.source {
            write_source(source, out)?;
        }
        for child in &self.children {
            writeln!(out, "---\n{}", serde_saphyr::to_string(child)?.trim_end())?;
        }
        writeln!(out)?;
        Ok(())
    }
}

fn write_source(source: &Listing, out: &mut String) -> anyhow::Result<()> {
    let facts = &source.facts;
    writeln!(
        out,
        "  files      {} files, {} bytes at revision {}",
        facts.files,
        facts.bytes,
        facts.revision.as_deref().unwrap_or("-")
    )?;
    for file in source.list.iter().take(SHOWN_FILES) {
        let size = file.size.map_or_else(|| "?".to_owned(), |size| size.to_string());
        writeln!(
            out,
            "    {size:>14}  {}  {}",
            file.sha256.as_deref().map_or("-", |hex| hex.get(..12).unwrap_or(hex)),
            file.path
        )?;
    }
    if source.list.len() > SHOWN_FILES {
        writeln!(out, "    … and {} more (-o yaml lists all)", source.list.len() - SHOWN_FILES)?;
    }
    for warning in &facts.warnings {
        writeln!(out, "  note       {warning}")?;
    }
    Ok(())
}

/// All reports as text.
pub(super) fn print(reports: &[Report], json: bool, yaml: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(reports)? + "\n");
    }
    let mut out = String::new();
    for report in reports {
        if yaml {
            write!(out, "---\n{}", serde_saphyr::to_string(report)?)?;
        } else {
            report.write(&mut out)?;
        }
    }
    Ok(out)
}
