//! Plugins that the image brings along: there from the first minute without any registry, until an administrator names another.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use substratus_tests::guests;

use super::super::badinput::registry::{HOST, Registry};
use super::super::badinput::{Turn, alone};
use super::{INSECURE, answers, version};

const BUNDLED: &str = "plugins/loader-oci";

/// The plugin that a new Model was planned by.
async fn planned(turn: &Turn, name: &str) -> Result<(String, String)> {
    turn.create("Model", name, json!({"source": "oci://ghcr.io/team/model:v1"})).await?;
    let model = turn.wait("Model", name, async |model| Ok(model["status"]["plugin"].is_object())).await?;
    let text = |field: &str| model["status"]["plugin"][field].as_str().map(str::to_owned).context("no plugin in the status");
    Ok((text("version")?, text("digest")?))
}

#[test]
fn a_version_from_a_registry_takes_the_place_of_a_bundled_plugin_and_gives_it_back() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        version(BUNDLED, "plugins/oci:9", "9.0.0").await?;
        let _operator = turn.operator(INSECURE).await?;
        let digest = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let bundled = digest(&std::fs::read(guests::component(BUNDLED)?)?);
        // No object of a Plugin is needed, and none is made.
        let (first, of_first) = planned(turn, "bundled").await?;
        ensure!(of_first == bundled && turn.list("Plugin").await?.is_empty(), "{of_first} is not {bundled}");

        let grants = json!({"hosts": ["https://ghcr.io"]});
        turn.create("Plugin", "loader-oci", json!({"image": format!("{HOST}/plugins/oci:9"), "grants": grants})).await?;
        let plugin = answers(turn, "loader-oci", "9.0.0").await?;
        let installed = digest(&guests::later(BUNDLED, "9.0.0")?);
        ensure!(plugin["status"]["active"] == installed, "{plugin}");
        ensure!(planned(turn, "installed").await? == ("9.0.0".to_owned(), installed), "the bundled one answers still");
        // What was planned by it goes on by it.
        let before = turn.wait("Model", "bundled", async |_| Ok(true)).await?;
        ensure!(before["status"]["plugin"]["digest"] == bundled, "{before}");

        turn.delete("Plugin", "loader-oci").await?;
        let back = async |_: &Value| Ok(turn.list("Plugin").await?.is_empty());
        turn.wait("Model", "bundled", back).await?;
        for number in 0.. {
            // The watch tells of the deletion in its own time.
            let (version, digest) = planned(turn, &format!("after-{number}")).await?;
            if version == first {
                ensure!(digest == bundled, "{digest}");
                break;
            }
            ensure!(number < 50, "the deleted Plugin answers on as {version}");
        }
        Ok(())
    })
}
