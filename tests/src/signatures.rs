//! Plugins that the real cosign signed: the committed ones, how they are made anew, and what a host must make of each. It must not
//! know how a host finds out.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use substratus::plugin::{
    Origin, PlainHttp, PluginOptions, Plugins, RegistryAuth, SignaturePolicy, Signed, export, import, push,
};
use wasm_encoder::{ComponentSection as _, CustomSection};

use crate::guests;
use crate::registry::Registry;

/// The repository of all of them; a tag says what was done to one.
pub const REPOSITORY: &str = "signed/plugin";

/// Key pairs; only the public halves are kept.
pub const KEYS: [&str; 3] = ["release", "second", "foreign"];

/// What cosign does with a plugin.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Signs with this key, as cosign does now.
    Bundle(&'static str),
    /// Signs with this key, as it did before.
    Legacy(&'static str),
    /// Attests something with this key.
    Attest(&'static str),
}

/// Tags, and what is done to the plugin behind each.
const PLUGINS: [(&str, &[Act]); 9] = [
    ("bundle", &[Act::Bundle("release")]),
    ("legacy", &[Act::Legacy("release")]),
    ("two-bundles", &[Act::Bundle("release"), Act::Bundle("second")]),
    ("two-legacy", &[Act::Legacy("release"), Act::Legacy("second")]),
    ("mixed", &[Act::Bundle("release"), Act::Legacy("second")]),
    ("twice", &[Act::Bundle("release"), Act::Bundle("release"), Act::Legacy("release")]),
    ("foreign", &[Act::Bundle("foreign"), Act::Legacy("foreign")]),
    ("attested", &[Act::Attest("release")]),
    ("unsigned", &[]),
];

/// What must come of a plugin under a policy.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// Tag.
    pub tag: &'static str,
    /// Keys of the policy.
    pub keys: &'static [&'static str],
    /// How many of them must have signed.
    pub minimum: usize,
    /// Who did; else a part of the error's text.
    pub outcome: Result<&'static [&'static str], &'static str>,
}

const fn expect(
    tag: &'static str,
    keys: &'static [&'static str],
    minimum: usize,
    outcome: Result<&'static [&'static str], &'static str>,
) -> Expectation {
    Expectation { tag, keys, minimum, outcome }
}

/// The key part of the signature matrix.
pub const EXPECTED: [Expectation; 19] = [
    expect("bundle", &["release"], 1, Ok(&["release"])),
    expect("bundle", &["release", "second"], 1, Ok(&["release"])),
    expect("bundle", &["release", "second"], 2, Err("2 keys must have signed and 1 did")),
    expect("bundle", &["second"], 1, Err("1 signature by another key")),
    expect("legacy", &["release"], 1, Ok(&["release"])),
    expect("legacy", &["foreign", "second"], 1, Err("no signature by any of the keys")),
    expect("legacy", &["release", "second"], 2, Err("2 keys must have signed and 1 did")),
    expect("two-bundles", &["release", "second"], 2, Ok(&["release", "second"])),
    expect("two-bundles", &["second"], 1, Ok(&["second"])),
    expect("two-legacy", &["release", "second"], 2, Ok(&["release", "second"])),
    expect("mixed", &["release", "second"], 2, Ok(&["release", "second"])),
    expect("mixed", &["release", "second", "foreign"], 3, Err("3 keys must have signed and 2 did")),
    expect("twice", &["release"], 1, Ok(&["release"])),
    expect("twice", &["release", "second"], 2, Err("2 keys must have signed and 1 did")),
    expect("foreign", &["release"], 1, Err("2 signatures by other keys")),
    expect("foreign", &["foreign"], 1, Ok(&["foreign"])),
    expect("attested", &["release"], 1, Err("a bundle is an attestation and no signature")),
    expect("unsigned", &["release"], 1, Err("is not signed: neither a Sigstore bundle nor the tag sha256-")),
    expect("unsigned", &["release", "second"], 2, Err("is not signed: neither")),
];

/// The committed ones: `layout/`, a public key `NAME.pub` for each of [`KEYS`], and the component that all are made of.
pub fn fixtures() -> PathBuf {
    guests::root().join("tests/fixtures/signatures")
}

/// A policy with keys of a folder like [`fixtures`].
pub fn policy(folder: &Path, keys: &[&str], minimum: usize) -> Result<SignaturePolicy> {
    let read =
        |key: &&str| std::fs::read_to_string(folder.join(format!("{key}.pub"))).with_context(|| format!("reading {key}.pub"));
    Ok(SignaturePolicy { keys: keys.iter().map(read).collect::<Result<_>>()?, minimum })
}

/// Puts the signed plugins of a folder into a registry; gives their references by digest, by tag.
pub async fn publish(folder: &Path, host: &str) -> Result<Vec<(String, String)>> {
    let plain = PlainHttp(vec![host.to_owned()]);
    let imported = import(&folder.join("layout"), host, &RegistryAuth::Anonymous, &plain).await?;
    let tagged = imported.into_iter().map(|one| {
        let tag = one.from.rsplit_once(':').map(|(_, tag)| tag.to_owned()).unwrap_or_default();
        (tag, one.reference_with_digest)
    });
    Ok(tagged.collect())
}

/// A plugin host that has verified nothing yet.
pub fn plugins() -> Result<(tempfile::TempDir, Plugins)> {
    let cache = tempfile::tempdir()?;
    let plugins = Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() })?;
    Ok((cache, plugins))
}

/// Holds the host at every expectation, with the plugins of `folder` in the registry at `host`.
pub async fn hold(folder: &Path, host: &str) -> Result<()> {
    let published = publish(folder, host).await?;
    let (_cache, plugins) = plugins()?;
    let plain = PlainHttp(vec![host.to_owned()]);
    for expected in &EXPECTED {
        let (_, reference) = published.iter().find(|(tag, _)| tag == expected.tag).context("a tag is missing")?;
        let policy = policy(folder, expected.keys, expected.minimum)?;
        let found = plugins.verify(reference, RegistryAuth::Anonymous, &plain, &policy).await;
        match (found, expected.outcome) {
            (Ok(signed), Ok(names)) => {
                let wanted = fingerprints(folder, names).await?;
                ensure!(signed == wanted, "{expected:?}: signed by {:?}, not {:?}", signed.by, wanted.by);
            }
            (Err(error), Err(part)) => ensure!(error.to_string().contains(part), "{expected:?}: {error}"),
            (found, _) => bail!("{expected:?}: {found:?}"),
        }
    }
    Ok(())
}

/// The keys' fingerprints, worked out without the host.
async fn fingerprints(folder: &Path, keys: &[&str]) -> Result<Signed> {
    use sha2::{Digest as _, Sha256};
    let mut by = Vec::new();
    for key in keys {
        let text = tokio::fs::read_to_string(folder.join(format!("{key}.pub"))).await?;
        let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, base64)?;
        by.push(format!("sha256:{}", hex::encode(Sha256::digest(der))));
    }
    by.sort();
    Ok(Signed { by })
}

/// Makes all of them anew with `cosign`, into an empty folder. The private keys are gone when this returns.
pub async fn make(cosign: &Path, folder: &Path) -> Result<()> {
    let cosign = Cosign { program: cosign, folder: tempfile::tempdir()? };
    cosign.run(&["signing-config", "create", "--out", "signing.json"])?;
    cosign.run(&["trusted-root", "create", "--out", "root.json"])?;
    std::fs::create_dir_all(folder)?;
    for key in KEYS {
        cosign.run(&["generate-key-pair", "--output-key-prefix", key])?;
        std::fs::copy(cosign.folder.path().join(format!("{key}.pub")), folder.join(format!("{key}.pub")))?;
    }
    let component = fixtures().join("component.wasm");
    std::fs::copy(&component, folder.join("component.wasm"))?;
    let component = std::fs::read(component)?;
    let registry = Registry::start()?;
    let plain = PlainHttp(vec![registry.host.clone()]);
    let mut references = Vec::new();
    for (tag, acts) in PLUGINS {
        let mut bytes = component.clone();
        // So that each has a digest of its own.
        CustomSection { name: "case".into(), data: tag.as_bytes().into() }.append_to_component(&mut bytes);
        let reference = format!("{}/{REPOSITORY}:{tag}", registry.host);
        let pushed = push(&reference, &bytes, RegistryAuth::Anonymous, &plain).await?;
        for act in acts {
            cosign.act(*act, &pushed)?;
        }
        references.push(Origin::Registry(reference, RegistryAuth::Anonymous));
    }
    export(&references, &plain, &folder.join("layout")).await?;
    Ok(())
}

/// Whether cosign itself finds a plugin signed by a key.
pub fn cosign_verifies(cosign: &Path, folder: &Path, key: &str, reference: &str) -> Result<()> {
    let cosign = Cosign { program: cosign, folder: tempfile::tempdir()? };
    let key = folder.join(format!("{key}.pub"));
    cosign.run(&["verify", "--key", &key.to_string_lossy(), "--insecure-ignore-tlog=true", reference])
}

struct Cosign<'a> {
    program: &'a Path,
    folder: tempfile::TempDir,
}

impl Cosign<'_> {
    fn act(&self, act: Act, reference: &str) -> Result<()> {
        let offline = ["--yes", "--signing-config", "signing.json", "--trusted-root", "root.json"];
        let before = ["--yes", "--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format=false"];
        let (what, key, how): (&[&str], _, &[&str]) = match act {
            Act::Bundle(key) => (&["sign"], key, &offline),
            Act::Legacy(key) => (&["sign"], key, &before),
            Act::Attest(key) => {
                std::fs::write(self.folder.path().join("predicate.json"), r#"{"tested": true}"#)?;
                (&["attest", "--type", "custom", "--predicate", "predicate.json"], key, &offline)
            }
        };
        self.run(&[what, how, &["--key", &format!("{key}.key"), reference]].concat())
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(self.program)
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("COSIGN_PASSWORD", "")
            .output()
            .with_context(|| format!("running {}", self.program.display()))?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`cosign {}` failed: {}", arguments.join(" "), words.trim());
        Ok(())
    }
}
