//! Images packed without a container engine: same files, same digest, and a layout whose parts fit. No cluster needed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use substratus::plugin::{PluginOptions, Plugins};
use substratus_tests::image::{self, Image, Layer};
use substratus_tests::{guests, install, operator};

fn image(layer: Layer) -> Image {
    Image { layers: vec![layer], entrypoint: vec!["/bin/program".to_owned()], ..Image::default() }
}

#[test]
fn the_digest_depends_on_files_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("bin"))?;
    fs::write(folder.path().join("bin/program"), "one")?;
    symlink("program", folder.path().join("bin/alias"))?;
    let build = || image(Layer::default().tree("", folder.path())?).build();
    let first = build()?.digest().to_owned();

    // Written again: another inode, another time.
    fs::remove_file(folder.path().join("bin/program"))?;
    fs::write(folder.path().join("bin/program"), "one")?;
    ensure!(build()?.digest() == first, "the same content has another digest");
    fs::write(folder.path().join("bin/program"), "two")?;
    ensure!(build()?.digest() != first, "other content has the same digest");
    Ok(())
}

#[test]
fn entries_may_come_in_any_order() -> Result<()> {
    let one = Layer::default().bytes("a/b", "1", 0o644).link("c", "a/b").dir("d", 0o700);
    let other = Layer::default().dir("d", 0o700).link("c", "a/b").bytes("a/b", "1", 0o644);
    ensure!(image(one).build()?.digest() == image(other).build()?.digest());
    Ok(())
}

#[test]
fn a_layout_leads_from_its_index_to_every_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("image.tar");
    let built = image(Layer::default().bytes("bin/program", "content", 0o755)).build()?;
    built.write_layout(&path, "example.org/team/program:v1")?;

    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(File::open(&path)?).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        files.insert(name, bytes);
    }
    let blob = |descriptor: &Value| -> Result<&Vec<u8>> {
        let digest = descriptor["digest"].as_str().context("no digest")?;
        let hex = digest.strip_prefix("sha256:").context("not sha256")?;
        let bytes = files.get(&format!("blobs/sha256/{hex}")).with_context(|| format!("no blob {hex}"))?;
        let actual = hex::encode(Sha256::digest(bytes));
        ensure!(actual == hex, "a blob's content is not what its name says");
        ensure!(descriptor["size"] == bytes.len(), "a blob's size is not what its descriptor says");
        Ok(bytes)
    };
    let index: Value = serde_json::from_slice(&files["index.json"])?;
    ensure!(index["manifests"][0]["annotations"]["io.containerd.image.name"] == "example.org/team/program:v1");
    let manifest: Value = serde_json::from_slice(blob(&index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(blob(&manifest["config"])?)?;
    ensure!(config["config"]["Entrypoint"][0] == "/bin/program");
    ensure!(config["rootfs"]["diff_ids"][0] == manifest["layers"][0]["digest"]);

    let mut layer = tar::Archive::new(blob(&manifest["layers"][0])?.as_slice());
    let names = layer.entries()?.map(|entry| Ok(entry?.path()?.display().to_string()));
    let names: Vec<String> = names.collect::<Result<_>>()?;
    ensure!(names == ["bin/", "bin/program"], "the layer holds {names:?}");
    Ok(())
}

/// Unpacks the layers of a layout in order.
fn unpacked(path: &std::path::Path, into: &std::path::Path) -> Result<Value> {
    let layout = tempfile::tempdir()?;
    tar::Archive::new(File::open(path)?).unpack(layout.path())?;
    let blob = |descriptor: &Value| -> Result<Vec<u8>> {
        let digest = descriptor["digest"].as_str().context("no digest")?;
        Ok(fs::read(layout.path().join("blobs").join(digest.replace(':', "/")))?)
    };
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json"))?)?;
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])?)?;
    for layer in manifest["layers"].as_array().context("no layers")? {
        tar::Archive::new(blob(layer)?.as_slice()).unpack(into)?;
    }
    Ok(serde_json::from_slice(&blob(&manifest["config"])?)?)
}

#[test]
fn the_operators_image_brings_plugins_as_a_layout_which_its_program_reads() -> Result<()> {
    let (folder, root) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let bundled = ["gpu-generic", "loader-oci"];
    for name in bundled {
        fs::copy(guests::component(&format!("plugins/{name}"))?, folder.path().join(format!("{name}.wasm")))?;
    }
    let path = folder.path().join("image.tar");
    let program = operator::program()?;
    let built = image::operator(&program, Some(folder.path()))?.build()?;
    ensure!(
        image::operator(&program, Some(folder.path()))?.build()?.digest() == built.digest(),
        "the same files, another digest"
    );
    built.write_layout(&path, "example.org/substratus:v1")?;
    let config = unpacked(&path, root.path())?;

    let plugins = root.path().join("plugins");
    for file in ["index.json", "oci-layout", "blobs/sha256"] {
        ensure!(plugins.join(file).exists(), "no {file}");
    }
    let open = || -> Result<Vec<String>> {
        let cache = tempfile::tempdir()?;
        let options = PluginOptions { cache: cache.path().to_owned(), bundled: vec![plugins.clone()] };
        Ok(Plugins::open(options)?.bundled().into_iter().map(|loaded| loaded.manifest.name).collect())
    };
    ensure!(open()? == bundled, "{:?}", open()?);
    // By digest: a component that is another one is left out, and the others are there.
    let component = fs::read(guests::component("plugins/loader-oci")?)?;
    let blob = plugins.join("blobs/sha256").join(hex::encode(Sha256::digest(&component)));
    fs::write(&blob, fs::read(guests::component("plugins/gpu-gke")?)?)?;
    ensure!(open()? == ["gpu-generic"], "{:?}", open()?);

    // What the Dockerfile makes is made the same way, and manifests mean the same program.
    let entrypoint = config["config"]["Entrypoint"].clone();
    ensure!(fs::metadata(root.path().join(entrypoint[0].as_str().context("no program")?.trim_start_matches('/')))?.len() > 0);
    let dockerfile = fs::read_to_string(guests::root().join("Dockerfile"))?;
    ensure!(dockerfile.contains(&format!("ENTRYPOINT {entrypoint}")), "{entrypoint}");
    ensure!(dockerfile.contains("/out/substratus plugin export /tmp/plugins/*.wasm --to /out/plugins"));
    let deployment = fs::read_to_string(install::deploy("base").join("deployment.yaml"))?;
    let probes = deployment.lines().filter(|line| line.contains("exec:")).collect::<Vec<_>>();
    let program = format!("[{}, ", entrypoint[0].as_str().unwrap_or_default());
    ensure!(probes.len() == 2 && probes.iter().all(|probe| probe.contains(&program)), "{probes:?}");
    Ok(())
}
