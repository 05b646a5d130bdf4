//! Signatures by the real cosign, out of real registries: what is proved, and everything that must not pass for a proof. Knows nothing
//! of Plugin objects.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use substratus::limits;
use substratus::plugin::{PlainHttp, PluginError, Plugins, RegistryAuth, SignatureError, SignaturePolicy, Signed};
use substratus_tests::platform;
use substratus_tests::registry::Registry;
use substratus_tests::registry::referrers::Referrers;
use substratus_tests::signatures::{self, REPOSITORY};

use crate::hostile::module::Guest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A registry with the signed plugins, and hands to spoil them with.
struct Stage {
    host: String,
    /// References by digest, by tag.
    published: Vec<(String, String)>,
    client: reqwest::Client,
    _cache: tempfile::TempDir,
    plugins: Plugins,
}

impl Stage {
    async fn at(host: &str) -> Result<Self> {
        let (cache, plugins) = signatures::plugins()?;
        Ok(Self {
            host: host.to_owned(),
            published: signatures::publish(&signatures::fixtures(), host).await?,
            client: reqwest::Client::builder().no_proxy().build()?,
            _cache: cache,
            plugins,
        })
    }

    fn reference(&self, tag: &str) -> Result<&str> {
        let found = self.published.iter().find(|(name, _)| name == tag);
        found.map(|(_, reference)| reference.as_str()).with_context(|| format!("no plugin {tag}"))
    }

    fn digest(&self, tag: &str) -> Result<&str> {
        self.reference(tag)?.split_once('@').map(|(_, digest)| digest).context("a digest")
    }

    fn plain(&self) -> PlainHttp {
        PlainHttp(vec![self.host.clone()])
    }

    async fn verify(&self, tag: &str, keys: &[&str], minimum: usize) -> Result<Result<Signed, PluginError>> {
        let policy = signatures::policy(&signatures::fixtures(), keys, minimum)?;
        Ok(self.plugins.verify(self.reference(tag)?, RegistryAuth::Anonymous, &self.plain(), &policy).await)
    }

    /// Why the release key does not do.
    async fn refused(&self, tag: &str) -> Result<String> {
        match self.verify(tag, &["release"], 1).await? {
            Err(error @ PluginError::Signature(_)) => Ok(error.to_string()),
            other => bail!("{tag}: {other:?}"),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{REPOSITORY}/{path}", self.host)
    }

    async fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>> {
        let response = self.client.get(self.url(path)).header("accept", accept).send().await?.error_for_status()?;
        Ok(response.bytes().await?.to_vec())
    }

    async fn put(&self, name: &str, media_type: &str, manifest: &Value) -> Result<Value> {
        let bytes = manifest.to_string().into_bytes();
        let entry = json!({"mediaType": media_type, "digest": digest(&bytes), "size": bytes.len()});
        let name = if name.is_empty() { digest(&bytes) } else { name.to_owned() };
        let request = self.client.put(self.url(&format!("manifests/{name}"))).header("content-type", media_type);
        request.body(bytes).send().await?.error_for_status()?;
        Ok(entry)
    }

    async fn put_blob(&self, bytes: &[u8]) -> Result<String> {
        let begun = self.client.post(self.url("blobs/uploads/")).send().await?.error_for_status()?;
        let location = begun.headers().get("location").context("no location")?.to_str()?.to_owned();
        let (digest, joint) = (digest(bytes), if location.contains('?') { '&' } else { '?' });
        let request =
            self.client.put(format!("{location}{joint}digest={digest}")).header("content-type", "application/octet-stream");
        request.body(bytes.to_vec()).send().await?.error_for_status()?;
        Ok(digest)
    }

    /// The manifests that are attached to a plugin.
    async fn attached(&self, tag: &str) -> Result<Vec<Value>> {
        let index = self.get(&format!("manifests/{}", fallback(self.digest(tag)?)), INDEX).await?;
        let index: Value = serde_json::from_slice(&index)?;
        index["manifests"].as_array().cloned().context("no list")
    }

    /// The same by the referrers API.
    async fn listed(&self, tag: &str) -> Result<Vec<Value>> {
        let index: Value = serde_json::from_slice(&self.get(&format!("referrers/{}", self.digest(tag)?), INDEX).await?)?;
        index["manifests"].as_array().cloned().context("no list")
    }

    /// Has the registry list these as attached to a plugin.
    async fn attach(&self, tag: &str, manifests: Vec<Value>) -> Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.put(&fallback(self.digest(tag)?), INDEX, &index).await.map(drop)
    }

    /// A bundle of these bytes as a manifest that is attached to `subject`.
    async fn bundle(&self, subject: &str, bundle: &[u8], announced: usize) -> Result<Value> {
        let (layer, empty) = (self.put_blob(bundle).await?, self.put_blob(b"{}").await?);
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2},
            "layers": [{"mediaType": BUNDLE, "digest": layer, "size": announced}],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": 1},
        });
        self.put("", MANIFEST, &manifest).await
    }

    /// The bytes of the only bundle of a plugin.
    async fn bundle_of(&self, tag: &str) -> Result<Vec<u8>> {
        let entry = self.attached(tag).await?.into_iter().next().context("nothing is attached")?;
        let manifest = self.get(&format!("manifests/{}", entry["digest"].as_str().context("a digest")?), MANIFEST).await?;
        let manifest: Value = serde_json::from_slice(&manifest)?;
        let layer = manifest["layers"][0]["digest"].as_str().context("a layer")?.to_owned();
        self.get(&format!("blobs/{layer}"), "*/*").await
    }
}

/// `UPDATE=1` writes it; `substratus-signatures --keep` then has everything signed anew.
#[test]
fn the_component_that_was_signed_is_one_that_this_host_takes() -> Result<()> {
    let path = signatures::fixtures().join("component.wasm");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, Guest::default().component())?;
    }
    let (_cache, plugins) = signatures::plugins()?;
    ensure!(plugins.add_file(&path)?.manifest.name == "hostile");
    Ok(())
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn fallback(digest: &str) -> String {
    digest.replace(':', "-")
}

fn has(text: &str, part: &str) -> Result<()> {
    ensure!(text.contains(part), "`{part}` is not in: {text}");
    Ok(())
}

#[tokio::test]
async fn what_cosign_signed_is_judged_by_keys_where_a_registry_has_no_referrers_api() -> Result<()> {
    signatures::hold(&signatures::fixtures(), &Registry::start()?.host).await
}

#[tokio::test]
async fn what_cosign_signed_is_judged_by_keys_where_a_registry_has_the_referrers_api() -> Result<()> {
    let upstream = Registry::start()?;
    let modern = Referrers::start(&upstream.host, 100)?;
    signatures::hold(&signatures::fixtures(), &modern.host).await?;
    ensure!(modern.lists() > 0, "the referrers API was not asked");
    Ok(())
}

#[tokio::test]
async fn signatures_behind_the_first_page_of_referrers_are_found() -> Result<()> {
    let upstream = Registry::start()?;
    let modern = Referrers::start(&upstream.host, 1)?;
    let stage = Stage::at(&modern.host).await?;
    let signed = stage.verify("two-bundles", &["release", "second"], 2).await??;
    ensure!(signed.by.len() == 2, "{signed:?}");
    Ok(())
}

#[tokio::test]
async fn a_signature_of_another_digest_proves_nothing() -> Result<()> {
    let registry = Registry::start()?;
    let stage = Stage::at(&registry.host).await?;
    let (bundle, own) = (stage.bundle_of("bundle").await?, stage.digest("unsigned")?.to_owned());

    // The whole attachment, as it is: it says itself that it belongs elsewhere.
    stage.attach("unsigned", stage.attached("bundle").await?).await?;
    has(&stage.refused("unsigned").await?, "a bundle is attached to another manifest")?;

    // The signed statement alone, in a manifest that names the right subject.
    stage.attach("unsigned", vec![stage.bundle(&own, &bundle, bundle.len()).await?]).await?;
    has(&stage.refused("unsigned").await?, "a bundle signs another digest")?;

    // The statement changed to name the right digest: then the signature is of other bytes.
    let mut changed: Value = serde_json::from_slice(&bundle)?;
    let payload = base64::Engine::decode(
        &base64::prelude::BASE64_STANDARD,
        changed["dsseEnvelope"]["payload"].as_str().context("a payload")?,
    )?;
    let (old, new) = (stage.digest("bundle")?.replace("sha256:", ""), own.replace("sha256:", ""));
    let payload = String::from_utf8(payload)?.replace(&old, &new);
    changed["dsseEnvelope"]["payload"] = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, payload).into();
    let changed = changed.to_string().into_bytes();
    stage.attach("unsigned", vec![stage.bundle(&own, &changed, changed.len()).await?]).await?;
    has(&stage.refused("unsigned").await?, "1 signature by another key")?;

    // The older form under the tag of another plugin.
    let tag = |digest: &str| format!("manifests/{}.sig", fallback(digest));
    let legacy = stage.get(&tag(stage.digest("legacy")?), MANIFEST).await?;
    stage.put(&format!("{}.sig", fallback(&own)), MANIFEST, &serde_json::from_slice(&legacy)?).await?;
    has(&stage.refused("unsigned").await?, "a payload is about another digest")
}

#[tokio::test]
async fn a_bundle_by_an_identity_is_refused_and_said_to_be_one() -> Result<()> {
    let registry = Registry::start()?;
    let stage = Stage::at(&registry.host).await?;
    let mut bundle: Value = serde_json::from_slice(&stage.bundle_of("bundle").await?)?;
    bundle["verificationMaterial"] = json!({"certificate": {"rawBytes": "AA=="}, "tlogEntries": []});
    let bundle = bundle.to_string().into_bytes();
    let entry = stage.bundle(stage.digest("bundle")?, &bundle, bundle.len()).await?;
    stage.attach("bundle", vec![entry]).await?;
    has(&stage.refused("bundle").await?, "by an identity (keyless)")
}

#[tokio::test]
async fn good_signatures_count_beside_bad_ones() -> Result<()> {
    let upstream = Registry::start()?;
    let lying = Referrers::start(&upstream.host, 100)?;
    let stage = Stage::at(&lying.host).await?;
    let own = stage.digest("bundle")?.to_owned();
    let good = stage.listed("bundle").await?;
    let mut entries = vec![
        stage.bundle(&own, b"no JSON", 7).await?,
        // Listed and not there; listed with a digest that would be a path.
        json!({"mediaType": MANIFEST, "digest": digest(b"nowhere"), "size": 7}),
        json!({"mediaType": MANIFEST, "digest": "sha256:../../../../other/manifests/latest", "size": 7}),
        stage.bundle(&own, &vec![b' '; 1 << 20], 1 << 20).await?,
    ];
    entries.extend(good);
    lying.pretend(REPOSITORY, &own, entries);
    let signed = stage.verify("bundle", &["release"], 1).await??;
    ensure!(signed.by.len() == 1, "{signed:?}");
    let error = stage.verify("bundle", &["second"], 1).await?.err().context("it was not signed by that key")?.to_string();
    has(&error, "1 signature by another key, 4 attachments not used (")?;
    Ok(())
}

#[tokio::test]
async fn bytes_that_were_changed_in_the_registry_are_not_read() -> Result<()> {
    let registry = Registry::start()?;
    let stage = Stage::at(&registry.host).await?;
    let bundle = stage.bundle_of("bundle").await?;
    let path = registry.blob(&digest(&bundle))?;
    let mut spoilt = std::fs::read(&path)?;
    ensure!(spoilt == bundle, "another blob");
    *spoilt.last_mut().context("an empty bundle")? = b' ';
    std::fs::write(path, spoilt)?;
    has(&stage.refused("bundle").await?, "it is not used")
}

#[tokio::test]
async fn attachments_without_end_are_not_all_looked_at() -> Result<()> {
    let upstream = Registry::start()?;
    let lying = Referrers::start(&upstream.host, 7)?;
    let stage = Stage::at(&lying.host).await?;
    let number = |number: usize| json!({"mediaType": MANIFEST, "digest": digest(number.to_string().as_bytes()), "size": 2});
    let mut entries: Vec<Value> = (0..=limits::SIGNATURE_ATTACHMENTS).map(number).collect();
    entries.extend(stage.listed("bundle").await?);
    lying.pretend(REPOSITORY, stage.digest("bundle")?, entries);
    has(&stage.refused("bundle").await?, &format!("only {} were looked at", limits::SIGNATURE_ATTACHMENTS))
}

#[tokio::test]
async fn a_registry_that_fails_is_not_taken_for_a_missing_signature() -> Result<()> {
    let upstream = Registry::start()?;
    let modern = Referrers::start(&upstream.host, 100)?;
    let stage = Stage::at(&modern.host).await?;
    modern.fail(StatusCode::INTERNAL_SERVER_ERROR);
    let error = stage.verify("bundle", &["release"], 1).await?.err().context("nobody answered")?;
    ensure!(error.is_passing() && error.category() == "registry-unavailable", "{error:?}");
    modern.fail(StatusCode::FORBIDDEN);
    let error = stage.verify("bundle", &["release"], 1).await?.err().context("nobody may know")?;
    ensure!(error.category() == "registry-auth", "{error:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_proved_needs_no_registry_again_and_another_policy_does() -> Result<()> {
    let mut registry = Registry::start()?;
    let stage = Stage::at(&registry.host).await?;
    let first = stage.verify("bundle", &["release"], 1).await??;
    ensure!(stage.verify("unsigned", &["release"], 1).await?.is_err(), "it is not signed");
    registry.stop()?;
    ensure!(stage.verify("bundle", &["release"], 1).await?? == first);
    for (tag, keys) in [("bundle", &["release", "second"][..]), ("bundle", &["second"][..]), ("unsigned", &["release"][..])] {
        let error = stage.verify(tag, keys, 1).await?.err().with_context(|| format!("{tag} by {keys:?}"))?;
        ensure!(error.category() == "registry-unavailable", "{tag} by {keys:?}: {error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_policy_that_proves_nothing_is_refused_before_anybody_is_asked() -> Result<()> {
    let (_cache, plugins) = signatures::plugins()?;
    let nowhere = format!("127.0.0.1:1/{REPOSITORY}");
    let reference = format!("{nowhere}@{}", digest(b"any"));
    let verify = async |reference: &str, policy: &SignaturePolicy| {
        plugins.verify(reference, RegistryAuth::Anonymous, &PlainHttp::default(), policy).await
    };
    let good = signatures::policy(&signatures::fixtures(), &["release"], 1)?;
    for (keys, minimum) in
        [(vec![], 1), (good.keys.clone(), 0), (good.keys.clone(), 2), (vec![good.keys.concat(), "x".into()], 1)]
    {
        let error = verify(&reference, &SignaturePolicy { keys, minimum }).await;
        ensure!(matches!(error, Err(PluginError::Signature(SignatureError::Policy { .. }))), "{error:?}");
    }
    let by_tag = verify(&format!("{nowhere}:v1"), &good).await;
    ensure!(matches!(by_tag, Err(PluginError::Signature(SignatureError::NoDigest { .. }))), "{by_tag:?}");
    Ok(())
}

/// The command with the fixtures' keys.
fn command(host: &str, tag: &str, arguments: &[&str]) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(platform::program()?)
        .args(["plugin", "verify", &format!("{host}/{REPOSITORY}:{tag}"), "--plain-http", host])
        .args(arguments)
        .current_dir(signatures::fixtures())
        .env("DOCKER_CONFIG", folder.path())
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

#[tokio::test]
async fn the_command_says_who_signed_and_its_exit_code_whether_that_is_enough() -> Result<()> {
    let registry = Registry::start()?;
    let stage = Stage::at(&registry.host).await?;
    let good =
        command(&registry.host, "mixed", &["--key", "release.pub", "--key", "second.pub", "--minimum", "2", "-o", "json"])?;
    let said: Value = serde_json::from_slice(&good.stdout).with_context(|| format!("{good:?}"))?;
    ensure!(good.status.success() && said["reference"] == stage.reference("mixed")?, "{said}");
    ensure!(said["signedBy"].as_array().is_some_and(|by| by.len() == 2), "{said}");
    let text = command(&registry.host, "bundle", &["--key", "release.pub"])?;
    has(&String::from_utf8(text.stdout)?, "\nsigned by sha256:")?;

    let bad = command(&registry.host, "foreign", &["--key", "release.pub"])?;
    ensure!(bad.status.code() == Some(1) && bad.stdout.is_empty(), "{bad:?}");
    has(&String::from_utf8(bad.stderr)?, "no signature by key sha256:")?;
    // A private key in place of a public one is not repeated on the screen.
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("cosign.key");
    std::fs::write(
        &secret,
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n",
    )?;
    let private = command(&registry.host, "bundle", &["--key", path(&secret)?])?;
    let words = String::from_utf8(private.stderr)?;
    ensure!(private.status.code() == Some(1) && words.contains("is a private key") && !words.contains("c2VjcmV0"), "{words}");
    let none = command(&registry.host, "bundle", &[])?;
    ensure!(none.status.code() == Some(2), "{none:?}");
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a path of letters")
}
