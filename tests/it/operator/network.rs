//! What workers may connect to, before a real API server: a policy for each worker, there before its pod and gone after it, that
//! selects that pod and no other. What it lets through is told by the unit tests of `network_policy.rs`.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, on_cluster};

/// Names of the pods that a policy's selector finds, as the API server reads it.
async fn selected(fixture: &Fixture, policy: &Value) -> Result<BTreeSet<String>> {
    let labels = policy["spec"]["podSelector"]["matchLabels"].as_object().context("no labels")?;
    let selector: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("?"))).collect();
    let pods = fixture.kubectl(&["get", "pods", "-o", "name", "-l", &selector.join(",")]).await?;
    Ok(pods.lines().map(|name| name.trim_start_matches("pod/").to_owned()).collect())
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_worker_is_confined_from_before_its_pod_until_after_it_and_nobody_else_is() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "base", json!({"source": "hf://org/base"})).await?;
        fixture.load("base", 1).await?;
        fixture.gone(&[("NetworkPolicy", "base-modeller")]).await?;
        // Everything that may run in a namespace: containers of users, labs, engines, and a stranger that calls itself one of ours.
        fixture.create("Model", "trained", json!({"image": "example.test/trainer"})).await?;
        fixture.create("Dataset", "made", json!({"image": "example.test/maker"})).await?;
        fixture.create("Notebook", "lab", json!({})).await?;
        fixture.create("Server", "chat", json!({"image": "example.test/server", "model": {"name": "base"}})).await?;
        let stranger = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "labels": {"model": "m", "role": "run"}},
            "spec": {"containers": [{"name": "c", "image": "example.test/stranger"}]}});
        fixture.post(&stranger).await?;

        fixture.create("Model", "m", json!({"source": "hf://org/name"})).await?;
        fixture.create("Dataset", "m", json!({"source": "hf://datasets/org/name", "parallelism": 2})).await?;
        for (policy, pods) in [("m-modeller", vec!["model=m"]), ("m-data-loader", vec!["dataset=m"])] {
            for label in pods {
                fixture.pod(&format!("{label},substratus.ai/worker={policy}")).await?;
            }
            let policy = fixture.get("NetworkPolicy", policy).await?;
            let job = fixture.get("Job", &name(&policy)).await?;
            let (made, ran) = (&policy["metadata"]["creationTimestamp"], &job["metadata"]["creationTimestamp"]);
            ensure!(made.as_str() <= ran.as_str(), "the policy came after the Job: {made} {ran}");
            ensure!(policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]), "{policy}");
            ensure!(policy["spec"]["ingress"].is_null(), "somebody may come in: {policy}");
            let found = selected(fixture, &policy).await?;
            let own = format!("{}-", name(&policy).trim_end_matches("-data-loader"));
            ensure!(!found.is_empty() && found.iter().all(|pod| pod.starts_with(&own)), "{found:?}");
            ensure!(!found.contains("stranger"), "{found:?}");
        }
        let policies = fixture.kubectl(&["get", "networkpolicies", "-o", "name"]).await?;
        let policies: BTreeSet<&str> = policies.lines().filter_map(|line| line.split('/').next_back()).collect();
        ensure!(policies == BTreeSet::from(["m-data-loader", "m-modeller"]), "a policy for somebody else: {policies:?}");

        let model = fixture.get("Model", "m").await?;
        let policy = fixture.get("NetworkPolicy", "m-modeller").await?;
        ensure!(policy["metadata"]["ownerReferences"][0]["uid"] == model["metadata"]["uid"], "{policy}");
        fixture.load("m", 1).await?;
        fixture.gone(&[("NetworkPolicy", "m-modeller")]).await?;
        ensure!(fixture.exists("Job", "m-modeller").await?, "what ran stays to be looked at");
        let before = fixture.settled().await?;
        fixture.restart_operator().await?;
        ensure!(fixture.settled().await? == before, "a restart writes something");
        Ok(())
    })
}

#[test]
fn a_policy_that_somebody_opens_or_deletes_comes_back() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"source": "hf://org/name"})).await?;
        let made = fixture.wait("NetworkPolicy", "m-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        fixture.settled().await?;
        fixture.merge("NetworkPolicy", "m-modeller", json!({"spec": {"egress": [{}], "policyTypes": ["Egress"]}})).await?;
        let back = async |policy: &Value| Ok((policy["spec"] == made["spec"]).then_some(()));
        fixture.wait("NetworkPolicy", "m-modeller", LIMIT, back).await?;
        fixture.delete("NetworkPolicy", "m-modeller").await?;
        let again = async |policy: &Value| Ok((policy["metadata"]["uid"] != made["metadata"]["uid"]).then_some(()));
        let policy = fixture.wait("NetworkPolicy", "m-modeller", LIMIT, again).await?;
        ensure!(policy["spec"] == made["spec"], "{policy}");
        Ok(())
    })
}

#[test]
fn a_pusher_is_confined_to_registries_and_a_load_that_becomes_a_training_is_free() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"source": "hf://org/name", "publish": "oci://ghcr.io/team/model:v1"})).await?;
        fixture.load("m", 1).await?;
        let job = fixture.wait("Job", "m-publish", LIMIT, async |_| Ok(Some(()))).await?;
        fixture.pod("model=m,substratus.ai/worker=m-publish").await?;
        let policy = fixture.get("NetworkPolicy", "m-publish").await?;
        let found = selected(fixture, &policy).await?;
        ensure!(!found.is_empty() && found.iter().all(|pod| pod.starts_with("m-publish-")), "{found:?}");
        fixture.gone(&[("NetworkPolicy", "m-modeller")]).await?;
        fixture.pod_ends("m-publish", 0, &super::publish::outcome(&job, "sha256:abc")?).await?;
        fixture.reason("Model", "m", "Published", "JobComplete").await?;
        fixture.gone(&[("NetworkPolicy", "m-publish")]).await?;

        fixture.create("Model", "turns", json!({"source": "hf://org/name"})).await?;
        fixture.wait("NetworkPolicy", "turns-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        fixture.merge("Model", "turns", json!({"spec": {"source": null, "image": "example.test/trainer"}})).await?;
        let trains = async |job: &Value| {
            let image = &job["spec"]["template"]["spec"]["containers"][0]["image"];
            Ok((image == "example.test/trainer").then_some(()))
        };
        let job = fixture.wait("Job", "turns-modeller", LIMIT, trains).await?;
        ensure!(job["spec"]["template"]["metadata"]["labels"]["substratus.ai/worker"].is_null(), "{job}");
        fixture.pod_ends("turns-modeller", 0, &json!({})).await?;
        fixture.gone(&[("NetworkPolicy", "turns-modeller")]).await
    })
}
