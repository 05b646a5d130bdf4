//! A GPU type that nobody knows: a mistake where the cloud has a table of types; elsewhere a label is used where a node has it.

use anyhow::{Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::{Turn, alone};

fn spec(gpu: &str) -> Value {
    json!({"source": "hf://a/b", "resources": {"gpu": {"type": gpu, "count": 2}}})
}

#[test]
fn an_unknown_gpu_type_is_an_error_only_where_there_is_a_table() -> Result<()> {
    alone(async |turn: &Turn| {
        let table = turn.operator(&["--cloud", "gcp", "--artifact-bucket-url", "tar:///bucket"]).await?;
        turn.create("Model", "unknown", spec("nvidia-l5")).await?;
        let words = ["spec.resources.gpu.type", "not supported on cloud gcp", "nvidia-l4"];
        turn.refused("Model", "unknown", "Complete", "Invalid", &words).await?;
        turn.calm(&table, 1).await?;
        ensure!(turn.list("Job").await?.is_empty(), "a Job runs for a GPU that does not exist");
        table.stop().await?;

        let node = json!({"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "labelled", "labels": {"nvidia.com/gpu.product": "NVIDIA-L6"}}});
        turn.api("Node")?.create(&PostParams::default(), &serde_json::from_value(node)?).await?;
        let _local = turn.operator(&["--cloud", "local"]).await?;
        turn.create("Model", "labelled", spec("nvidia-l6")).await?;
        for (name, selector, reason) in [
            ("unknown", Value::Null, "no node's labels name nvidia-l5"),
            ("labelled", json!({"nvidia.com/gpu.product": "NVIDIA-L6"}), "nodes labelled nvidia.com/gpu.product=NVIDIA-L6"),
        ] {
            let job = turn.wait("Job", &format!("{name}-modeller"), async |_| Ok(true)).await?;
            let pod = &job["spec"]["template"]["spec"];
            ensure!(pod["nodeSelector"] == selector, "{name}: {}", pod["nodeSelector"]);
            ensure!(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2", "{name}: {pod}");
            let placed = async |model: &Value| {
                Ok(model["status"]["placement"]["reason"].as_str().is_some_and(|said| said.contains(reason)))
            };
            turn.wait("Model", name, placed).await?;
        }
        turn.delete("Node", "labelled").await
    })
}
