//! What a load may take files over from: artifacts of its own namespace, and of no other.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, on_cluster};

/// Places that a Job offers its worker.
fn offered(job: &Value) -> Vec<String> {
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array();
    let args = args.into_iter().flatten().filter_map(Value::as_str);
    args.filter_map(|arg| arg.strip_prefix("--reuse=")).map(str::to_owned).collect()
}

/// Folders that its pod sees for reading alone.
fn readable(job: &Value) -> Vec<String> {
    let mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].as_array();
    let artifacts =
        |mount: &&Value| mount["readOnly"] == true && mount["name"].as_str().is_some_and(|name| name.starts_with("reuse-"));
    mounts.into_iter().flatten().filter(artifacts).filter_map(|mount| mount["mountPath"].as_str()).map(str::to_owned).collect()
}

fn url(object: &Value) -> Result<String> {
    Ok(object["status"]["artifacts"]["url"].as_str().context("no artifact URL")?.to_owned())
}

async fn job(fixture: &Fixture, name: &str) -> Result<Value> {
    fixture.wait("Job", &format!("{name}-modeller"), LIMIT, async |_| Ok(Some(()))).await
}

#[test]
fn a_load_is_offered_the_artifacts_of_its_namespace_alone() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let other = fixture.beside().await?;
        other.create("Model", "secret", json!({"source": "hf://org/gated"})).await?;
        let secret = url(&other.load("secret", 1).await?)?;

        fixture.create("Model", "first", json!({"source": "hf://org/one"})).await?;
        ensure!(offered(&job(fixture, "first").await?).is_empty(), "there was nothing yet");
        let first = url(&fixture.load("first", 1).await?)?;
        // What a container made has no record of digests.
        fixture.create("Model", "trained", json!({"image": "example.test/trainer"})).await?;
        fixture.pod_ends("trained-modeller", 0, &json!({})).await?;
        fixture.reason("Model", "trained", "Complete", "JobComplete").await?;
        // Somebody writes where an artifact of another namespace lies.
        fixture.create("Model", "liar", json!({"source": "hf://org/two"})).await?;
        fixture.load("liar", 1).await?;
        fixture.set_status("Model", "liar", json!({"artifacts": {"url": secret}, "plan": {"target": secret}})).await?;
        fixture.wait("Model", "liar", LIMIT, async |liar| Ok((url(liar)? == secret).then_some(()))).await?;

        fixture.create("Model", "second", json!({"source": "hf://org/one"})).await?;
        let second = job(fixture, "second").await?;
        ensure!(offered(&second) == [first.clone()], "{:?}, and not {secret}", offered(&second));
        ensure!(readable(&second) == [first.replace("tar:///", "")], "{:?}", readable(&second));
        // What is offered is part of the Job: another artifact changes nothing of a load that runs.
        fixture.create("Model", "third", json!({"source": "hf://org/three"})).await?;
        fixture.load("third", 1).await?;
        ensure!(job(fixture, "second").await?["metadata"]["uid"] == second["metadata"]["uid"], "the Job was replaced");
        Ok(())
    })
}

#[test]
fn an_edited_model_is_offered_what_it_had_before() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "edited", json!({"source": "hf://org/one"})).await?;
        let first = url(&fixture.load("edited", 1).await?)?;
        fixture.merge("Model", "edited", json!({"spec": {"source": "hf://org/one@next"}})).await?;
        fixture.drop_finished_pods("edited-modeller").await?;
        let target = format!("{first}/g2");
        let next = fixture
            .wait("Job", "edited-modeller", LIMIT, async |job| {
                let volumes = job["spec"]["template"]["spec"]["volumes"].as_array();
                let new = |volume: &Value| volume["hostPath"]["path"].as_str().is_some_and(|path| path.ends_with("/g2"));
                Ok(volumes.into_iter().flatten().any(new).then_some(()))
            })
            .await?;
        ensure!(offered(&next).contains(&first) && !offered(&next).contains(&target), "{:?}", offered(&next));
        ensure!(readable(&next) == [first.replace("tar:///", "")], "{:?}", readable(&next));
        Ok(())
    })
}
