//! Images that no plugin claims run under the container contract: folders, parameters, port 8080, and nothing else.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use substratus_tests::cluster::eventually;
use substratus_tests::image;
use substratus_tests::platform;

use super::{LIMIT, client, folder, stage, tell};

/// A "trainer" that writes what it was told, and a "server" that serves what was written.
const MANIFESTS: &str = r#"
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: own}
spec:
  image: IMAGE
  command: [sh, -c, "cat /content/params.json > /content/artifacts/params && echo $GREETING > /content/artifacts/index.html"]
  env: {GREETING: hello}
  params: {epochs: 3, name: own}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: own}
spec:
  image: IMAGE
  command: [httpd, -f, -p, "8080", -h, /content/model]
  model: {name: own}
"#;

#[test]
fn any_image_runs_under_the_container_contract() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("contract").await?;
        let digest = image::busybox()?.build()?.push(cluster.registry()?, "substratus-tests/busybox", "1").await?;
        let image = format!("ghcr.io/substratus-tests/busybox@{digest}");
        platform::apply_text(cluster, &namespace, &MANIFESTS.replace("IMAGE", &image))?;
        let model = stage.model(&namespace, "own", "to be ready", |status| status.ready).await?;
        tell("contract", began, "Model ready");
        ensure!(model.plugin.is_none(), "no plugin had a part in it: {:?}", model.plugin);
        let params = fs::read_to_string(folder(&model)?.join("artifacts/params"))?;
        let params: serde_json::Value = serde_json::from_str(&params)?;
        ensure!(params == serde_json::json!({"epochs": 3, "name": "own"}), "{params}");

        stage.server(&namespace, "own", "to be ready", |status| status.ready).await?;
        tell("contract", began, "Server ready");
        let (client, url) = (client()?, stage.url(&namespace, "own").await?);
        let page = eventually("page", LIMIT, async || Ok(Some(client.get(&url).send().await?.text().await?))).await?;
        ensure!(page == "hello\n", "the page is {page:?}");
        Ok(())
    })
}
