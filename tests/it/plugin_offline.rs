//! Plugins and their signatures across a gap: out of one registry, through a file, into another. Knows nothing of clusters.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use substratus::plugin::{PlainHttp, PluginOptions, Plugins, RegistryAuth, push};
use substratus_tests::platform;
use substratus_tests::registry::Registry;
use substratus_tests::registry::referrers::Referrers;
use substratus_tests::signatures::{self, REPOSITORY};

fn plugin(hosts: &[&str], arguments: &[&str]) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(platform::program()?)
        .arg("plugin")
        .args(arguments)
        .env("SUBSTRATUS_PLAIN_HTTP", hosts.join(","))
        .env("DOCKER_CONFIG", folder.path())
        .env("SUBSTRATUS_PLUGIN_CACHE", folder.path().join("cache"))
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

fn done(hosts: &[&str], arguments: &[&str]) -> Result<Value> {
    let output = plugin(hosts, &[arguments, &["-o", "json"]].concat())?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn failed(hosts: &[&str], arguments: &[&str]) -> Result<String> {
    let output = plugin(hosts, arguments)?;
    ensure!(output.status.code() == Some(1), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of letters")
}

/// Whether the release key signed a plugin, as the operator would see it.
async fn verified(reference: &str, host: &str) -> Result<bool> {
    let (_cache, plugins) = signatures::plugins()?;
    let policy = signatures::policy(&signatures::fixtures(), &["release"], 1)?;
    let plain = PlainHttp(vec![host.to_owned()]);
    Ok(plugins.verify(reference, RegistryAuth::Anonymous, &plain, &policy).await.is_ok())
}

/// Out of `from`, through `file`, into `to`: digests and signatures are what they were.
async fn across(from: &str, file: &Path, to: &str) -> Result<()> {
    signatures::publish(&signatures::fixtures(), from).await?;
    let both = [from, to];
    let names = ["bundle", "legacy", "unsigned"].map(|tag| format!("{from}/{REPOSITORY}:{tag}"));
    let file = text(file)?;
    let exported = done(&both, &["export", &names[0], &names[1], &names[2], "--to", file])?;
    let exported = exported.as_array().context("a list")?;
    ensure!(exported.iter().map(|one| &one["attachments"]).eq(&[1, 1, 0]), "{exported:?}");

    let imported = done(&both, &["import", file, "--to", &format!("{to}/mirror")])?;
    let imported = imported.as_array().context("a list")?;
    ensure!(imported.len() == 3, "{imported:?}");
    for ((old, new), signed) in exported.iter().zip(imported).zip([true, true, false]) {
        let (old, new) = (old["reference"].as_str().context("a name")?, new["reference"].as_str().context("a name")?);
        ensure!(new == old.replace(&format!("{from}/"), &format!("{to}/mirror/")), "{old} became {new}");
        ensure!(verified(new, to).await? == signed, "{new}");
        // And it is a plugin that can be pulled.
        let inspected = done(&both, &["inspect", new])?;
        ensure!(inspected["manifest"]["name"] == "hostile", "{inspected}");
    }
    Ok(())
}

#[tokio::test]
async fn signatures_hold_after_a_way_through_a_tar_file_into_another_registry() -> Result<()> {
    let (from, to, folder) = (Registry::start()?, Registry::start()?, tempfile::tempdir()?);
    across(&from.host, &folder.path().join("plugins.tar"), &to.host).await
}

// The registry runs in this process, while commands are waited for.
#[tokio::test(flavor = "multi_thread")]
async fn signatures_hold_after_a_way_through_a_folder_into_a_registry_with_the_referrers_api() -> Result<()> {
    let (from, upstream, folder) = (Registry::start()?, Registry::start()?, tempfile::tempdir()?);
    let to = Referrers::start(&upstream.host, 100)?;
    let layout = folder.path().join("layout");
    across(&from.host, &layout, &to.host).await?;
    // Such a registry lists attachments itself; nobody keeps a list by hand.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let tags = client.get(format!("http://{}/v2/mirror/{REPOSITORY}/tags/list", upstream.host)).send().await?.text().await?;
    let tags: Value = serde_json::from_str(&tags)?;
    let tags = tags["tags"].as_array().context("no tags")?;
    ensure!(
        tags.iter().all(|tag| tag.as_str().is_some_and(|tag| !tag.starts_with("sha256-") || tag.contains(".sig"))),
        "{tags:?}"
    );
    // And back again into one that does not.
    let again = folder.path().join("again");
    let name = format!("{}/mirror/{REPOSITORY}:bundle", to.host);
    done(&[&to.host], &["export", &name, "--to", text(&again)?])?;
    let last = Registry::start()?;
    let imported = done(&[&last.host], &["import", text(&again)?, "--to", &last.host])?;
    ensure!(verified(imported[0]["reference"].as_str().context("a name")?, &last.host).await?, "{imported}");
    Ok(())
}

#[tokio::test]
async fn importing_twice_changes_nothing_and_adds_to_what_others_attached() -> Result<()> {
    let registry = Registry::start()?;
    let first = signatures::publish(&signatures::fixtures(), &registry.host).await?;
    let tags = async || -> Result<Vec<Vec<u8>>> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut found = Vec::new();
        for (tag, reference) in &first {
            let fallback = reference.split_once('@').context("a digest")?.1.replace(':', "-");
            for name in [tag, &fallback, &format!("{fallback}.sig")] {
                let url = format!("http://{}/v2/{REPOSITORY}/manifests/{name}", registry.host);
                let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
                found.push(client.get(url).header("accept", accept).send().await?.bytes().await?.to_vec());
            }
        }
        Ok(found)
    };
    let before = tags().await?;
    ensure!(signatures::publish(&signatures::fixtures(), &registry.host).await? == first);
    ensure!(tags().await? == before, "a second import changed what the first one made");
    Ok(())
}

#[tokio::test]
async fn what_is_exported_twice_is_the_same_file() -> Result<()> {
    let (registry, folder) = (Registry::start()?, tempfile::tempdir()?);
    signatures::publish(&signatures::fixtures(), &registry.host).await?;
    let name = format!("{}/{REPOSITORY}:mixed", registry.host);
    let files = ["one.tar", "two.tar"].map(|name| folder.path().join(name));
    for file in &files {
        done(&[&registry.host], &["export", &name, "--to", text(file)?])?;
    }
    ensure!(fs::read(&files[0])? == fs::read(&files[1])?);
    let words = failed(&[&registry.host], &["export", &name, "--to", text(folder.path())?])?;
    ensure!(words.contains("is not empty"), "{words}");
    Ok(())
}

#[tokio::test]
async fn a_layout_that_lies_pushes_nothing_with_a_name() -> Result<()> {
    let (from, to, folder) = (Registry::start()?, Registry::start()?, tempfile::tempdir()?);
    signatures::publish(&signatures::fixtures(), &from.host).await?;
    let layout = folder.path().join("layout");
    let name = format!("{}/{REPOSITORY}:bundle", from.host);
    done(&[&from.host], &["export", &name, "--to", text(&layout)?])?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let attachment = index["manifests"][1]["digest"].as_str().context("an attachment")?.replace(':', "/");
    let path = layout.join("blobs").join(attachment);
    let mut bytes = fs::read(&path)?;
    *bytes.last_mut().context("an empty manifest")? = b' ';
    fs::write(&path, bytes)?;
    let words = failed(&[&to.host], &["import", text(&layout)?, "--to", &to.host])?;
    ensure!(words.contains("holds other bytes than its name says"), "{words}");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let catalog = client.get(format!("http://{}/v2/_catalog", to.host)).send().await?.text().await?;
    ensure!(serde_json::from_str::<Value>(&catalog)?["repositories"] == serde_json::json!([]), "{catalog}");
    let words = failed(&[&to.host], &["import", text(&folder.path().join("nowhere"))?, "--to", &to.host])?;
    ensure!(words.contains("read "), "{words}");
    Ok(())
}

#[tokio::test]
async fn plugins_of_a_layout_are_bundled_without_any_registry_and_hashed_before_they_are_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let component = text(&signatures::fixtures().join("component.wasm"))?.to_owned();
    let layout = folder.path().join("plugins");
    let exported = done(&[], &["export", &component, "--to", text(&layout)?])?;
    ensure!(exported[0]["reference"].as_str().is_some_and(|name| name.starts_with("substratus/hostile@sha256:")), "{exported}");
    let bundled = || -> Result<Vec<String>> {
        let options = PluginOptions { cache: folder.path().join("cache"), bundled: vec![layout.clone()] };
        Ok(Plugins::open(options)?.bundled().into_iter().map(|loaded| loaded.manifest.name).collect())
    };
    ensure!(bundled()? == ["hostile"]);
    // The same names and digests as a push into a registry has.
    let registry = Registry::start()?;
    let imported = done(&[&registry.host], &["import", text(&layout)?, "--to", &registry.host])?;
    let plain = PlainHttp(vec![registry.host.clone()]);
    let name = format!("{}/substratus/hostile:0.1.0", registry.host);
    let pushed = push(&name, &fs::read(&component)?, RegistryAuth::Anonymous, &plain).await?;
    ensure!(imported[0]["reference"] == pushed, "{imported} and {pushed}");
    // One changed byte, and it is left out.
    for blob in fs::read_dir(layout.join("blobs/sha256"))? {
        let path = blob?.path();
        let mut bytes = fs::read(&path)?;
        if bytes.starts_with(b"\0asm") {
            *bytes.last_mut().context("an empty component")? ^= 1;
            fs::write(&path, bytes)?;
        }
    }
    ensure!(bundled()?.is_empty());
    Ok(())
}
