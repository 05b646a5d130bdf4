//! Reads manifests: many files, many documents, kinds of ours and of others.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;
use substratus_crds::{Dataset, Model, Notebook, Plugin, Server};

/// What was found.
#[derive(Default)]
pub(super) struct Manifests {
    pub(super) datasets: Vec<Dataset>,
    pub(super) models: Vec<Model>,
    pub(super) notebooks: Vec<Notebook>,
    pub(super) servers: Vec<Server>,
    pub(super) plugins: Vec<Plugin>,
}

impl Manifests {
    /// Reads every document; objects of other groups are passed over.
    pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for file in files {
            let text = text(file)?;
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).with_context(|| format!("read `{}`", file.display()))?;
            for document in documents.into_iter().filter(|document| !document.is_null()) {
                found.add(document).with_context(|| format!("read `{}`", file.display()))?;
            }
        }
        let objects = found.datasets.len() + found.models.len() + found.notebooks.len() + found.servers.len();
        if objects == 0 {
            bail!("no Dataset, Model, Server or Notebook of substratus.ai in the manifests");
        }
        Ok(found)
    }

    fn add(&mut self, mut document: Value) -> anyhow::Result<()> {
        let api = document.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if !api.starts_with("substratus.ai/") {
            return Ok(());
        }
        if let Some(object) = document.as_object_mut() {
            object.entry("spec").or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        match document.get("kind").and_then(Value::as_str) {
            Some("Dataset") => self.datasets.push(parse(document)?),
            Some("Notebook") => self.notebooks.push(parse(document)?),
            Some("Model") => self.models.push(parse(document)?),
            Some("Server") => self.servers.push(parse(document)?),
            Some("Plugin") => self.plugins.push(parse(document)?),
            // It says nothing of what is bundled.
            Some("PluginSource") => {}
            Some(other) => bail!("kind `{other}` is not explained; Dataset, Model, Server and Notebook are"),
            None => bail!("a document has no kind"),
        }
        Ok(())
    }
}

fn parse<T: DeserializeOwned + kube::Resource>(document: Value) -> anyhow::Result<T> {
    let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("(no name)").to_owned();
    let mut object: T = serde_json::from_value(document).with_context(|| format!("object `{name}`"))?;
    let meta = object.meta_mut();
    // What the API server would add.
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    meta.uid.get_or_insert_with(|| "00000000-0000-0000-0000-000000000000".to_owned());
    Ok(object)
}

fn text(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))
}
