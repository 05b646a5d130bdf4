//! The last part of the demo, where the user named a model: it comes from a hub of the outside world, and what it says makes
//! sense. It must not know how the cluster starts.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::relay::Relay;
use super::screen::Screen;
use super::stage::{Place, Stage};
use super::{NAMESPACE, Wish, story};
use crate::cluster::Cluster;
use crate::platform::{self, Installed};

const MANIFESTS: &str = "\
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: yours}
spec:
  source: hf://NAME
  files: {format: gguf}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: yours}
spec:
  model: {name: yours}
";

/// Where the real hub redirects to.
const REAL_CDN: [&str; 2] = ["https://*.huggingface.co", "https://*.hf.co"];

/// Imports and serves it; `outside` runs where the hub can be reached.
pub(super) async fn tell(stage: &Stage, wish: &Wish, outside: &Handle, installed: &Installed, screen: &Screen) -> Result<()> {
    screen.title(&format!("Yours: {} from {}", wish.model, wish.hub));
    let cluster = &stage.cluster;
    // Kept until the load is done.
    let _relay = match stage.place {
        Place::Own => {
            let inside = SocketAddr::new(cluster.node_address()?.parse().context("reading the node's address")?, 0);
            let relay = Relay::start(&wish.hub, inside, outside)?;
            platform::point_loader(cluster, &relay.hub, &[&relay.elsewhere]).await?;
            screen
                .step("the cluster has no way out, so the demo passes its requests on; the loader may speak to this relay alone");
            Some(relay)
        }
        Place::Current | Place::Kind => {
            platform::point_loader(cluster, wish.hub.trim_end_matches('/'), &REAL_CDN).await?;
            screen.step("the loader may speak to this hub and where the real one redirects to, and to nobody else");
            None
        }
    };
    let told = load_and_ask(cluster, wish, screen).await;
    platform::point_loader(cluster, &installed.hub.url, &[&installed.hub.cdn_url]).await?;
    told
}

async fn load_and_ask(cluster: &Cluster, wish: &Wish, screen: &Screen) -> Result<()> {
    let manifests = MANIFESTS.replace("NAME", &wish.model);
    screen.quote(&manifests);
    platform::apply_text(cluster, NAMESPACE, &manifests)?;
    story::loaded(cluster, "yours", screen).await?;
    screen.step("Model is ready");
    story::serving(cluster, "yours", screen).await?;
    let question = json!({"messages": [{"role": "user", "content": "In one sentence: what is Kubernetes?"}], "max_tokens": 64});
    let answer = story::ask(cluster, "yours", "/v1/chat/completions", &question, screen).await?;
    let text = answer.pointer("/choices/0/message/content").and_then(Value::as_str).context("an answer without text")?;
    screen.step(&format!("the engine answered: {text}"));
    Ok(())
}
