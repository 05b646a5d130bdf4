//! Installs what `examples/deploy/base` says, file by file and without kustomize. It must not know what the operator does.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::{await_condition, conditions};
use serde::Deserialize;

/// The folder of a base or overlay: `deploy("base")`.
pub fn deploy(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/deploy").join(part)
}

/// What a kustomization lists.
#[derive(Debug, Deserialize)]
pub struct Kustomization {
    /// Files and folders, in order.
    pub resources: Vec<String>,
}

/// Every object that a folder with a kustomization lists, in order. Patches and replacements are not applied.
pub fn objects(folder: &Path) -> Result<Vec<DynamicObject>> {
    let text = read(&folder.join("kustomization.yaml"))?;
    let kustomization: Kustomization = serde_saphyr::from_str(&text).context("reading a kustomization")?;
    let mut found = Vec::new();
    for resource in kustomization.resources {
        let path = folder.join(resource);
        if path.is_dir() {
            found.extend(objects(&path)?);
            continue;
        }
        let documents: Vec<DynamicObject> =
            serde_saphyr::from_multiple(&read(&path)?).with_context(|| format!("reading {}", path.display()))?;
        ensure!(!documents.is_empty(), "{} holds no object", path.display());
        found.extend(documents);
    }
    Ok(found)
}

/// Applies objects in order; a definition is waited for before what follows it.
pub async fn apply(client: &kube::Client, objects: &[DynamicObject]) -> Result<()> {
    for object in objects {
        let Named { api, kind, name } = named(client, object)?;
        let parameters = PatchParams::apply("install").force();
        api.patch(name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("applying {kind} {name}"))?;
        if kind == "CustomResourceDefinition" {
            let established = await_condition(Api::all(client.clone()), name, conditions::is_crd_established());
            tokio::time::timeout(Duration::from_secs(30), established).await.with_context(|| format!("waiting for {name}"))??;
        }
    }
    Ok(())
}

/// What a cluster has under an object's kind and name; a kind that it does not know has no objects.
pub async fn find(client: &kube::Client, object: &DynamicObject) -> Result<Option<DynamicObject>> {
    let Named { api, kind, name } = named(client, object)?;
    api.get_opt(name).await.with_context(|| format!("looking for {kind} {name}"))
}

/// Deletes what a cluster has under an object's kind and name, with all that belongs to it.
pub async fn delete(client: &kube::Client, object: &DynamicObject) -> Result<()> {
    let Named { api, kind, name } = named(client, object)?;
    api.delete(name, &DeleteParams::foreground()).await.with_context(|| format!("deleting {kind} {name}"))?;
    Ok(())
}

/// Where an object is.
struct Named<'a> {
    api: Api<DynamicObject>,
    kind: &'a str,
    name: &'a str,
}

fn named<'a>(client: &kube::Client, object: &'a DynamicObject) -> Result<Named<'a>> {
    let types = object.types.as_ref().context("an object without kind")?;
    let name = object.metadata.name.as_deref().context("an object without name")?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
    let api = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    Ok(Named { api, kind: &types.kind, name })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
