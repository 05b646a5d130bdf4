//! `spec.publish`: what is complete is pushed by a Job of its own, and the Model is ready whatever becomes of that. The tests play
//! the pusher.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster, spoken};

const PLACE: &str = "oci://ghcr.io/team/model:v1";

/// What the Job's pusher says at its end.
pub(super) fn outcome(job: &Value, digest: &str) -> Result<Value> {
    Ok(
        json!({"outcome": "complete", "inputs": inputs(job)?, "source": {"revision": digest, "bytes": 7, "files": 1}, "reused": 3}),
    )
}

fn inputs(job: &Value) -> Result<String> {
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().context("no args")?;
    let inputs = args.iter().find_map(|arg| arg.as_str()?.strip_prefix("--inputs="));
    inputs.map(str::to_owned).with_context(|| format!("no inputs: {args:?}"))
}

async fn pushing(fixture: &Fixture, name: &str, spec: Value) -> Result<Value> {
    fixture.create("Model", name, spec).await?;
    fixture.load(name, 7).await?;
    fixture.wait("Job", &format!("{name}-publish"), LIMIT, async |_| Ok(Some(()))).await
}

#[test]
fn a_model_that_is_complete_is_pushed_and_was_ready_before() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"source": "hf://org/name", "publish": PLACE, "publishSecret": "acme-push"})).await?;
        let model = spoken(fixture, "Model", "m", |model| condition(model, "Published")["status"] == "False").await?;
        ensure!(condition(&model, "Published")["message"] == "it is pushed once the artifact is complete", "{model}");
        ensure!(!fixture.exists("Job", "m-publish").await?, "nothing is there to push");
        fixture.load("m", 7).await?;
        let job = fixture.wait("Job", "m-publish", LIMIT, async |_| Ok(Some(()))).await?;
        let pod = &job["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let args = container["args"].as_array().context("no args")?;
        for arg in ["push", "/artifact", &format!("--to={PLACE}"), "--docker-config=/etc/substratus/push-secret"] {
            ensure!(args.iter().any(|given| given == arg), "no `{arg}`: {args:?}");
        }
        ensure!(
            args.iter().any(|arg| arg.as_str().is_some_and(|arg| arg.starts_with("--grant=") && arg.contains("https://ghcr.io"))),
            "{args:?}"
        );
        // The account is a file, of a Secret that may not be there, and nowhere else; the artifact is for reading.
        ensure!(container["env"].is_null() && container["envFrom"].is_null(), "{container}");
        let volumes = pod["volumes"].as_array().context("no volumes")?;
        let secret = volumes.iter().find(|volume| volume["name"] == "push-secret").context("no Secret")?;
        let expected = json!({"secretName": "acme-push", "optional": true, "defaultMode": 420,
            "items": [{"key": ".dockerconfigjson", "path": "config.json"}]});
        ensure!(secret["secret"] == expected, "{secret}");
        let mounts = container["volumeMounts"].as_array().context("no mounts")?;
        for path in ["/artifact", "/etc/substratus/push-secret"] {
            let mount = mounts.iter().find(|mount| mount["mountPath"] == path).context("no mount")?;
            ensure!(mount["readOnly"] == true && mount["subPath"].is_null(), "{mount}");
        }
        ensure!(pod["automountServiceAccountToken"] == false && pod["serviceAccountName"] == "modeller", "{pod}");

        let model = fixture.get("Model", "m").await?;
        ensure!(model["status"]["ready"] == true && condition(&model, "Published")["status"] == "False", "{model}");
        fixture.pod_ends("m-publish", 0, &outcome(&job, "sha256:abc")?).await?;
        let model = fixture.reason("Model", "m", "Published", "JobComplete").await?;
        ensure!(
            model["status"]["published"]["reference"] == PLACE && model["status"]["published"]["digest"] == "sha256:abc",
            "{model}"
        );
        ensure!(condition(&model, "Published")["message"] == format!("{PLACE} is sha256:abc"), "{model}");
        ensure!(condition(&model, "Complete")["reason"] == "JobComplete", "{model}");
        fixture.event("m", "JobComplete").await?;

        // Nothing is written any more, and what ran stays to be looked at.
        let before = fixture.settled().await?;
        fixture.restart_operator().await?;
        ensure!(fixture.settled().await? == before, "a restart writes something");
        ensure!(fixture.exists("Job", "m-publish").await? && fixture.exists("Job", "m-modeller").await?, "a Job is gone");
        Ok(())
    })
}

#[test]
fn a_push_that_fails_says_why_and_takes_no_readiness_away() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let job =
            pushing(fixture, "m", json!({"source": "hf://org/name", "publish": PLACE, "publishSecret": "acme-push"})).await?;
        let refused = json!({"outcome": "failed", "inputs": inputs(&job)?, "reason": "NeedsAuth", "message": "cannot push: 401"});
        fixture.pod_ends("m-publish", 65, &refused).await?;
        let told = |model: &Value| {
            let said = condition(model, "Published");
            let message = said["message"].as_str().unwrap_or_default().to_owned();
            said["reason"] == "NeedsAuth" && message.contains("Secret `acme-push`") && message.contains("substratus.ai/retry")
        };
        let model = spoken(fixture, "Model", "m", told).await?;
        ensure!(model["status"]["ready"] == true && condition(&model, "Complete")["status"] == "True", "{model}");
        fixture.event("m", "NeedsAuth").await?;
        // The user has mended the Secret, and does not wait.
        let before = fixture.get("Job", "m-publish").await?["metadata"]["uid"].clone();
        fixture.annotate("Model", "m", "substratus.ai/retry", "1").await?;
        fixture.drop_finished_pods("m-publish").await?;
        let again =
            fixture.wait("Job", "m-publish", LIMIT, async |job| Ok((job["metadata"]["uid"] != before).then_some(()))).await?;
        fixture.pod_ends("m-publish", 0, &outcome(&again, "sha256:abc")?).await?;
        fixture.reason("Model", "m", "Published", "JobComplete").await?;
        Ok(())
    })
}

#[test]
fn where_a_model_may_go_the_administrator_says() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let pinned = format!("oci://ghcr.io/a/b@sha256:{}", "0".repeat(64));
        for (name, place, reason, words) in [
            ("denied", "oci://registry.corp.example/team/model:v1", "PluginDenied", "spec.grants.hosts"),
            ("short", "oci://team/model", "Invalid", "spec.publish"),
            ("pinned", pinned.as_str(), "Invalid", "name a tag"),
        ] {
            fixture.create("Model", name, json!({"source": "hf://org/name", "publish": place})).await?;
            fixture.load(name, 7).await?;
            let model = fixture.reason("Model", name, "Published", reason).await?;
            let said = condition(&model, "Published");
            ensure!(said["message"].as_str().is_some_and(|message| message.contains(words)), "{said}");
            ensure!(model["status"]["ready"] == true && !fixture.exists("Job", &format!("{name}-publish")).await?, "{model}");
        }
        Ok(())
    })
}

#[test]
fn a_push_that_nobody_wants_any_more_ends_and_a_new_artifact_is_pushed_again() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let first = pushing(fixture, "m", json!({"source": "hf://org/name", "publish": PLACE})).await?;
        fixture.merge("Model", "m", json!({"spec": {"publish": null}})).await?;
        fixture.gone(&[("Job", "m-publish")]).await?;
        let model = spoken(fixture, "Model", "m", |model| condition(model, "Published").is_null()).await?;
        ensure!(model["status"]["ready"] == true, "{model}");

        fixture.merge("Model", "m", json!({"spec": {"publish": PLACE}})).await?;
        let job = fixture.wait("Job", "m-publish", LIMIT, async |_| Ok(Some(()))).await?;
        ensure!(inputs(&job)? == inputs(&first)?, "the same is pushed to the same place");
        fixture.pod_ends("m-publish", 0, &outcome(&job, "sha256:one")?).await?;
        fixture.reason("Model", "m", "Published", "JobComplete").await?;

        // Another source is another artifact: the old one stays on record until the new one is there.
        let before = fixture.get("Job", "m-modeller").await?["metadata"]["uid"].clone();
        fixture.merge("Model", "m", json!({"spec": {"source": "hf://org/other"}})).await?;
        let model = spoken(fixture, "Model", "m", |model| condition(model, "Published")["reason"] == "JobNotComplete").await?;
        ensure!(model["status"]["published"]["digest"] == "sha256:one", "{model}");
        fixture.drop_finished_pods("m-modeller").await?;
        fixture.drop_finished_pods("m-publish").await?;
        fixture.wait("Job", "m-modeller", LIMIT, async |job| Ok((job["metadata"]["uid"] != before).then_some(()))).await?;
        fixture.load("m", 9).await?;
        let again =
            fixture.wait("Job", "m-publish", LIMIT, async |again| Ok((inputs(again)? != inputs(&job)?).then_some(()))).await?;
        fixture.pod_ends("m-publish", 0, &outcome(&again, "sha256:two")?).await?;
        let two = async |model: &Value| Ok((model["status"]["published"]["digest"] == "sha256:two").then_some(()));
        fixture.wait("Model", "m", LIMIT, two).await?;
        Ok(())
    })
}

#[test]
fn a_source_in_a_registry_is_loaded_with_the_accounts_that_images_are_pulled_with() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let spec = json!({"source": "oci://ghcr.io/team/model:v1", "imagePullSecrets": [{"name": "one"}, {"name": "two"}]});
        fixture.create("Model", "m", spec).await?;
        let job = fixture.wait("Job", "m-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        let pod = &job["spec"]["template"]["spec"];
        let args = pod["containers"][0]["args"].to_string();
        ensure!(args.contains("--pull-secrets=/etc/substratus/pull-secrets"), "{args}");
        let volumes = pod["volumes"].as_array().context("no volumes")?;
        let secrets = volumes.iter().find(|volume| volume["name"] == "pull-secrets").context("no Secrets")?;
        let source = |name: &str, path: &str| json!({"secret": {"name": name, "optional": true, "items": [{"key": ".dockerconfigjson", "path": path}]}});
        ensure!(secrets["projected"]["sources"] == json!([source("one", "000.json"), source("two", "001.json")]), "{secrets}");
        let model = fixture.get("Model", "m").await?;
        ensure!(model["status"]["plugin"]["name"] == "loader-oci", "{model}");
        // A loader of something else gets none of them.
        fixture.create("Model", "h", json!({"source": "hf://org/name", "imagePullSecrets": [{"name": "one"}]})).await?;
        let job = fixture.wait("Job", "h-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        ensure!(!job["spec"]["template"]["spec"]["volumes"].to_string().contains("pull-secrets"), "{job}");
        Ok(())
    })
}
