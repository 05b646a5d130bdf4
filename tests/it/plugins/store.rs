//! The operator's plugin store under somebody who can write to its disk, and in the course of time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use substratus_tests::cluster::eventually;
use substratus_tests::guests;

use super::super::badinput::registry::{HOST, Registry};
use super::super::badinput::{LIMIT, Turn, alone};
use super::{INSECURE, POLICY, answers, history, tracked, version};

/// Changes the last byte of a file.
fn spoil(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    *bytes.last_mut().context("an empty file")? ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn blob(cache: &Path, digest: &str) -> PathBuf {
    cache.join("blobs/sha256").join(digest.replace("sha256:", ""))
}

/// Native code of a component, where there is some.
fn code(cache: &Path, digest: &str) -> Result<Option<PathBuf>> {
    for engine in fs::read_dir(cache.join("aot"))? {
        let path = engine?.path().join(format!("{}.cwasm", digest.replace("sha256:", "")));
        if path.exists() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Notes of Events about an object that its plugin store was changed, waited for until there are so many.
async fn told(turn: &Turn, namespace: &str, name: &str, count: usize) -> Result<Vec<String>> {
    let events = Api::<Event>::namespaced(turn.cluster.client(), namespace);
    eventually(&format!("{count} Events about {name}"), LIMIT, async || {
        let all = events.list(&ListParams::default()).await?.items;
        let about = |event: &&Event| {
            let regarding = event.regarding.as_ref().and_then(|object| object.name.as_deref());
            event.reason.as_deref() == Some("StoreTampered") && regarding == Some(name)
        };
        let notes: Vec<String> = all.iter().filter(about).filter_map(|event| event.note.clone()).collect();
        ensure!(notes.len() >= count, "now: {notes:?}");
        Ok(Some(notes))
    })
    .await
}

#[test]
fn what_somebody_changed_in_the_store_is_replaced_and_told_where_it_is_of_concern() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        version(POLICY, "plugins/stored:1", "0.1.0").await?;
        let name = format!("stored-{}", turn.namespace);
        turn.create(
            "Plugin",
            &name,
            json!({"image": format!("{HOST}/plugins/stored:1"), "grants": {"scheduling": ["nvidia.com/gpu"]}}),
        )
        .await?;
        let (namespace, scope) = (format!("--namespace={}", turn.namespace), turn.scope());
        let arguments = [&[scope.as_str(), namespace.as_str(), "--pod-name=operator-0"], INSECURE].concat();
        let running = turn.operator(arguments.get(1..).unwrap_or_default()).await?;
        let plugin = answers(turn, &name, "0.1.0").await?;
        let digest = plugin["status"]["active"].as_str().context("no digest")?.to_owned();

        let stopped = running.pause().await?;
        let cache = stopped.cache();
        let native = code(&cache, &digest)?.context("it was not compiled")?;
        let component = fs::read(blob(&cache, &digest))?;
        // Not a Plugin's: it came with the operator.
        let bundled = fs::read(guests::component("plugins/loader-oci")?)?;
        let of_bundle = format!("sha256:{}", hex::encode(Sha256::digest(&bundled)));
        spoil(&native)?;
        spoil(&blob(&cache, &digest))?;
        spoil(&blob(&cache, &of_bundle))?;
        let running = stopped.resume(turn.cluster, &arguments).await?;

        // Events of what lies in no namespace lie in this one.
        let notes = told(turn, "default", &name, 2).await?;
        for words in [format!("a component of {digest}"), format!("a native code of {digest}")] {
            ensure!(notes.iter().any(|note| note.starts_with(&words)), "`{words}` is not in {notes:?}");
        }
        ensure!(notes.iter().all(|note| note.contains("was not used") && note.contains("PLUGIN_CACHE_DIR")), "{notes:?}");
        let notes = told(turn, &turn.namespace, "operator-0", 1).await?;
        ensure!(notes.len() == 1 && notes.iter().all(|note| note.contains(&of_bundle)), "{notes:?}");
        answers(turn, &name, "0.1.0").await?;
        eventually("whole files", LIMIT, async || {
            let whole = fs::read(blob(&cache, &digest)).ok() == Some(component.clone());
            Ok((whole && code(&cache, &digest)?.is_some()).then_some(()))
        })
        .await?;
        ensure!(fs::read(blob(&cache, &of_bundle))? == bundled, "a bundled one is replaced");
        let count = async |what: &str| running.count(&format!("substratus_plugin_store_tampered_total{{what=\"{what}\"}}")).await;
        ensure!(count("component").await? == 2 && count("code").await? == 1, "{}", running.metrics().await?);

        // Once it is replaced, nothing is left to be told.
        let stopped = running.pause().await?;
        let running = stopped.resume(turn.cluster, &arguments).await?;
        answers(turn, &name, "0.1.0").await?;
        ensure!(running.count("substratus_plugin_store_tampered_total").await? == 0, "nothing is left: {}", running.tail());
        Ok(())
    })
}

#[test]
fn revisions_that_no_history_has_any_more_leave_the_store_in_time_and_the_others_never() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        let mut spec = tracked("plugins/aging:1");
        spec["revisionHistoryLimit"] = json!(1);
        let mut digests = Vec::new();
        let mut running = None;
        for number in 1..=3 {
            let tag = format!("0.{number}.0");
            version(POLICY, "plugins/aging:1", &tag).await?;
            if running.is_none() {
                turn.create("Plugin", "aging", spec.clone()).await?;
                running = Some(turn.operator(INSECURE).await?);
            }
            let plugin = answers(turn, "aging", &tag).await?;
            digests.push(plugin["status"]["active"].as_str().context("no digest")?.to_owned());
        }
        let plugin = answers(turn, "aging", "0.3.0").await?;
        ensure!(history(&plugin) == [("0.3.0", "Active"), ("0.2.0", "Retired")], "{plugin}");

        let stopped = running.context("no operator")?.pause().await?;
        let cache = stopped.cache();
        // A week goes by, and the disk is as good as full.
        let folders = fs::read_dir(cache.join("aot"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        for folder in folders.into_iter().chain([cache.join("blobs/sha256")]) {
            for file in fs::read_dir(folder)? {
                File::open(file?.path())?.set_modified(SystemTime::now() - Duration::from_hours(8 * 24))?;
            }
        }
        let scope = turn.scope();
        let arguments = [&[scope.as_str(), "--plugin-cache-mib=1"], INSECURE].concat();
        let running = stopped.resume(turn.cluster, &arguments).await?;
        let first = digests.first().context("no first")?;
        eventually("room in the store", LIMIT, async || Ok((!blob(&cache, first).exists()).then_some(()))).await?;
        ensure!(code(&cache, first)?.is_none(), "its code is left");
        // Components, and for each revision on record the manifest of its image.
        let expected = guests::plugins()?.len() + 4;
        eventually("what is needed and no more", LIMIT, async || {
            let left = fs::read_dir(cache.join("blobs/sha256"))?.count();
            ensure!(left == expected, "{left} files where {expected} are needed");
            Ok(Some(()))
        })
        .await?;
        for kept in digests.get(1..).unwrap_or_default() {
            ensure!(blob(&cache, kept).exists() && code(&cache, kept)?.is_some(), "{kept} is on record and gone");
        }
        answers(turn, "aging", "0.3.0").await?;
        ensure!(running.count("substratus_plugin_store_bytes").await? > 0, "{}", running.metrics().await?);
        Ok(())
    })
}
