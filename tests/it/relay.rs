//! The demo's relay: a load through it ends as one from the hub itself, and a token goes no further than the hub.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use substratus_tests::demo::relay::Relay;
use substratus_tests::hub::{Content, Gated, Hub, Kind, Repo};
use substratus_tests::{guests, platform};

const TOKEN: &str = "hf_relay_reader";

#[test]
fn a_load_through_the_relay_is_whole_and_the_token_stays_with_the_hub() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Pages of one entry, so that links to the next page pass through too.
    let repo = Repo::model("acme/tiny").file("config.json", "{}").file("model.gguf", Content::noise(5, 20 << 20));
    let hub = Hub::builder()
        .page_size(1)
        .repo(repo.gated(Gated::Auto).reader(TOKEN))
        .start(Ipv4Addr::LOCALHOST.into(), runtime.handle())?;
    let relay = Relay::start(&hub.url, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), runtime.handle())?;

    let folder = tempfile::tempdir()?;
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins)?;
    std::fs::copy(guests::component("plugins/loader-huggingface")?, plugins.join("loader-huggingface.wasm"))?;
    let target = folder.path().join("model");
    let output = Command::new(platform::program()?)
        .args(["load", "hf://acme/tiny", "-o", "json", "--to"])
        .arg(&target)
        .arg("--plugins")
        .arg(&plugins)
        .arg("--plugin-cache")
        .arg(folder.path().join("cache"))
        .args(["--config", &format!("endpoint={}", relay.hub), "--grant", &relay.hub, "--grant", &relay.elsewhere])
        .args(["--send-secret", &format!("hf={}", relay.hub)])
        .env("HF_TOKEN", TOKEN)
        .stdin(Stdio::null())
        .output()
        .context("running the load")?;
    ensure!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let found = hex::encode(Sha256::digest(std::fs::read(target.join("artifacts/model.gguf"))?));
    ensure!(found == hub.sha256(Kind::Model, "acme/tiny", "main", "model.gguf")?);
    let counted = hub.stats();
    ensure!(counted.hub.authorization_headers > 0 && counted.cdn.authorization_headers == 0, "{counted:?}");
    Ok(())
}
