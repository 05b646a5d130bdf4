//! The author's way: what README.md tells people to type, typed; and that what they build is the same wherever it is built.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use kube::api::Api;
use serde_json::Value;
use substratus::plugin::package;
use substratus_crds::Plugin;
use substratus_tests::cluster::Cluster;
use substratus_tests::registry::Registry;
use substratus_tests::{guests, install, platform};

/// The commands below a heading of README.md.
fn commands(heading: &str) -> Result<String> {
    let readme = fs::read_to_string(guests::root().join("README.md"))?;
    let section = readme.split(heading).nth(1).with_context(|| format!("README.md has no `{heading}`"))?;
    let block = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    Ok(block.context("no commands")?.to_owned())
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\nset -eu\n{text}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The program by its name, with its own caches.
fn substratus(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(platform::program()?)
        .arg("plugin")
        .args(arguments)
        .current_dir(folder)
        .env("SUBSTRATUS_PLUGIN_CACHE", folder.join("cache"))
        .env("SUBSTRATUS_PLUGIN_SDK", guests::root().join("plugins/sdk"))
        // What was fetched for our own plugins is enough.
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

fn words(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn what_the_readme_says_leads_from_nothing_to_a_plugin_in_a_cluster() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async { install::apply(&cluster.client(), &install::objects(&guests::root().join("crds/yaml"))?).await })?;
    let (registry, folder) = (Registry::start()?, tempfile::tempdir()?);
    let bin = folder.path().join("bin");
    fs::create_dir(&bin)?;
    std::os::unix::fs::symlink(platform::program()?, bin.join("substratus"))?;
    // An editor that does what the remark beside it says, whichever files it is given.
    script(&bin.join("edit"), r#"exec sed -i 's|nvidia.com/gpu|acme.example/gpu|g' "$@""#)?;
    let kubectl = cluster.command("kubectl");
    let program = std::iter::once(kubectl.get_program()).chain(kubectl.get_args()).map(|part| format!("'{}'", part.display()));
    let program = program.collect::<Vec<_>>().join(" ");
    script(&bin.join("kubectl"), &format!("export KUBECONFIG='{}'\nexec {program} \"$@\"", cluster.kubeconfig().display()))?;
    let inherited = std::env::var_os("PATH").context("no PATH")?;
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&inherited)))?;
    let output = Command::new("sh")
        .args(["-e", "-u", "-x", "-c", &commands("## Write a plugin")?])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("EDITOR", "edit")
        .env("REGISTRY", &registry.host)
        .env("SUBSTRATUS_PLAIN_HTTP", &registry.host)
        .env("SUBSTRATUS_PLUGIN_SDK", guests::root().join("plugins/sdk"))
        .env("SUBSTRATUS_PLUGIN_CACHE", folder.path().join("cache"))
        .env("DOCKER_CONFIG", folder.path())
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .stdin(Stdio::null())
        .output()?;
    let said = words(&output);
    ensure!(output.status.success(), "{said}");
    for line in
        ["1 of 1 cases passed", "\"acme.example/gpu\"", "plugin.substratus.ai/gpu-acme created", "pluginsource.substratus.ai/"]
    {
        ensure!(said.contains(line), "`{line}` is not in: {said}");
    }
    let plugin = cluster.block_on(async { Ok(Api::<Plugin>::all(cluster.client()).get("gpu-acme").await?) })?;
    let image = plugin.spec.image.context("no image")?;
    ensure!(image.starts_with(&format!("{}/team/gpu-acme@sha256:", registry.host)), "{image}");
    ensure!(plugin.spec.grants.context("no grants")?.scheduling == ["acme.example/gpu"]);
    Ok(())
}

#[test]
fn a_new_crate_of_every_role_is_a_plugin_that_passes_its_case() -> Result<()> {
    // One folder for what Cargo compiles: four crates stand on the same ones.
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("target");
    let target = target.to_str().context("a path of letters")?;
    for (role, named) in [
        ("model-loader", "ModelLoader"),
        ("dataset-importer", "DatasetImporter"),
        ("gpu-policy", "GpuPolicy"),
        ("server-adapter", "ServerAdapter"),
    ] {
        let name = format!("new-{role}");
        let new = substratus(folder.path(), &["new", &name, "--role", role])?;
        ensure!(new.status.success(), "{role}: {}", words(&new));
        let test = substratus(folder.path(), &["test", &name, "--target-dir", target])?;
        ensure!(test.status.success() && words(&test).contains("1 of 1 cases passed"), "{role}: {}", words(&test));
        let check = substratus(folder.path(), &["check", &name, "--target-dir", target, "-o", "json"])?;
        let said: Value = serde_json::from_slice(&check.stdout).with_context(|| format!("{role}: {}", words(&check)))?;
        ensure!(check.status.success() && said["role"] == named && said["name"] == name.as_str(), "{said}");
    }
    // The native half, once: the others differ in nothing that it needs.
    let native = Command::new("cargo")
        .args(["test", "--quiet"])
        .current_dir(folder.path().join("new-model-loader"))
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_NET_OFFLINE", "true")
        .output()?;
    ensure!(native.status.success(), "{}", words(&native));
    Ok(())
}

#[test]
fn check_refuses_what_a_host_would_refuse() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("text.wasm"), "no wasm at all")?;
    let text = substratus(folder.path(), &["check", "text.wasm"])?;
    ensure!(text.status.code() == Some(1) && words(&text).contains("is not WebAssembly"), "{}", words(&text));
    fs::create_dir(folder.path().join("crate"))?;
    let manifest = "{name: a, version: 0.1.0, role: GpuPolicy, host: '>=9'}";
    fs::write(folder.path().join("crate/plugin.yaml"), manifest)?;
    let host = substratus(folder.path(), &["check", "crate"])?;
    ensure!(host.status.code() == Some(1) && words(&host).contains("runs on hosts >=9"), "{}", words(&host));
    Ok(())
}

/// Everything below a folder but what Cargo made.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() && name != "target" {
            copy(&path, &to.join(name))?;
        } else if path.is_file() {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

#[test]
fn a_plugin_built_in_another_place_has_the_same_digest() -> Result<()> {
    let here = fs::read(guests::component("plugins/gpu-generic")?)?;
    let folder = tempfile::tempdir()?;
    let elsewhere: PathBuf = folder.path().join("a longer name/with a blank");
    for part in ["plugins", "wit"] {
        copy(&guests::root().join(part), &elsewhere.join(part))?;
    }
    fs::copy(guests::root().join("rust-toolchain.toml"), elsewhere.join("rust-toolchain.toml"))?;
    let there = package::build(&elsewhere.join("plugins/gpu-generic"), Some(&folder.path().join("target")))?.bytes;
    ensure!(here == there, "{} bytes here and {} there, or others", here.len(), there.len());
    let place = elsewhere.to_string_lossy();
    ensure!(!there.windows(place.len()).any(|bytes| bytes == place.as_bytes()), "the folder's name is in it");
    Ok(())
}

#[test]
fn commands_of_the_readme_are_commands_of_the_program() -> Result<()> {
    let help = substratus(Path::new("/"), &["--help"])?;
    let help = words(&help);
    let mut used = BTreeSet::new();
    for line in commands("## Write a plugin")?.lines() {
        if let Some(rest) = line.strip_prefix("substratus plugin ") {
            used.insert(rest.split(' ').next().unwrap_or_default().to_owned());
        }
    }
    ensure!(used.len() == 6, "{used:?}");
    for command in &used {
        ensure!(help.lines().any(|line| line.trim_start().starts_with(&format!("{command} "))), "{command} is not in: {help}");
        let own = words(&substratus(Path::new("/"), &[command, "--help"])?);
        ensure!(own.contains("Usage:"), "{own}");
    }
    Ok(())
}
