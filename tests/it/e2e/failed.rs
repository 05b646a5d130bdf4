//! Trainings that fail in real pods: the condition has the exit code and the last words, or says that memory ran out.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use substratus_tests::image;
use substratus_tests::platform;

use super::{condition, stage, tell};

/// The contract sets no limit of memory; a namespace may.
const LIMITS: &str = r"
apiVersion: v1
kind: LimitRange
metadata: {name: limits}
spec: {limits: [{type: Container, default: {memory: 32Mi}, defaultRequest: {memory: 1Mi}}]}
";

#[test]
fn a_training_that_fails_or_runs_out_of_memory_says_so() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let namespace = cluster.namespace("failed").await?;
        let busybox = image::busybox()?.build()?.push(cluster.registry()?, "substratus-tests/busybox", "1").await?;
        platform::apply_text(cluster, &namespace, LIMITS)?;
        let cases = [
            ("wrong", "echo the rows have no prompt; exit 3", ["exit code 3", "the rows have no prompt"]),
            ("greedy", "exec tail /dev/zero", ["OOMKilled", "exit code 137"]),
        ];
        for (name, script, _) in cases {
            let spec = json!({"image": format!("ghcr.io/substratus-tests/busybox@{busybox}"), "command": ["sh", "-c", script], "retries": 0});
            let model = json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": name}, "spec": spec});
            platform::apply_text(cluster, &namespace, &model.to_string())?;
        }
        for (name, _, words) in cases {
            let failed = |status: &substratus_crds::ModelStatus| condition(&status.conditions, "Complete").0 == "JobFailed";
            let status = stage.model(&namespace, name, "to have failed", failed).await?;
            let (_, message) = condition(&status.conditions, "Complete");
            tell("failed", began, &format!("{name}: {message}"));
            ensure!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
        }
        Ok(())
    })
}
