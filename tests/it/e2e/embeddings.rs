//! An encoder served by the real engine: the adapter sees by the architecture what it is, status says what may be asked, and
//! vectors come back.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use substratus_tests::cluster::eventually;
use substratus_tests::engine::ENCODED;
use substratus_tests::platform::{self, ENCODER};

use super::{LIMIT, client, stage, tell};

const MANIFEST: &str = "
apiVersion: substratus.ai/v1
kind: Model
metadata: {name: encoder}
spec: {source: hf://SOURCE}
---
apiVersion: substratus.ai/v1
kind: Server
metadata: {name: encoder}
spec: {model: {name: encoder}}
";

#[test]
fn an_encoder_answers_with_vectors() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("embeddings").await?;
        platform::apply_text(cluster, &namespace, &MANIFEST.replace("SOURCE", ENCODER))?;
        let status = stage.server(&namespace, "encoder", "to be ready", |status| status.ready).await?;
        tell("embeddings", began, "Server ready");
        ensure!(status.engine.as_deref() == Some("llama.cpp"), "{:?}", status.engine);
        ensure!(status.apis == ["openai/embeddings"], "{:?}", status.apis);

        let url = format!("{}/v1/embeddings", stage.url(&namespace, "encoder").await?);
        let (client, question) = (client()?, json!({"input": ["hello world", "the model runs", "hello world"]}));
        let answer = eventually("answer", LIMIT, async || Ok(Some(client.post(&url).json(&question).send().await?))).await?;
        let (code, text) = (answer.status(), answer.text().await?);
        ensure!(code == 200, "the Server answered {code}: {text}");
        tell("embeddings", began, "vectors");
        let answer: Value = serde_json::from_str(&text)?;
        let vectors = answer["data"].as_array().context("no data")?.iter().map(|one| one["embedding"].as_array());
        let vectors: Vec<_> = vectors.collect::<Option<_>>().context("no vectors")?;
        ensure!(vectors.len() == 3 && vectors.iter().all(|vector| vector.len() == ENCODED), "{answer}");
        let distance = |a: usize, b: usize| -> f64 {
            let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
            vectors[a].iter().zip(vectors[b]).map(|(x, y)| (number(x) - number(y)).powi(2)).sum()
        };
        ensure!(distance(0, 2) < 1e-6, "the same text, {} apart", distance(0, 2));
        ensure!(distance(0, 1) > 1e-2, "another text, {} apart", distance(0, 1));
        Ok(())
    })
}
