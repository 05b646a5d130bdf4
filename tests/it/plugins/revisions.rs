//! Revisions: a tag that moves, one that is bad, one that waits, and the way back.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::badinput::registry::{HOST, Registry};
use super::super::badinput::{Turn, alone, condition};
use super::{INSECURE, LOADER, POLICY, answers, history, patch, pushed, says, tracked, version};

/// The annotation that lets a revision answer, as the command in a condition's message has it.
fn approval(plugin: &Value) -> Result<(String, String)> {
    let said = condition(plugin, "UpdateAvailable")["message"].as_str().unwrap_or_default().to_owned();
    let (_, command) = said.split_once("kubectl annotate plugin ").with_context(|| format!("no command in: {said}"))?;
    let (annotation, digest) = command.split(' ').nth(1).and_then(|word| word.split_once('=')).context("no annotation")?;
    Ok((annotation.to_owned(), digest.to_owned()))
}

async fn approve(turn: &Turn, name: &str, (annotation, digest): (String, String)) -> Result<()> {
    patch(turn, "Plugin", name, json!({"metadata": {"annotations": {annotation: digest}}})).await
}

#[test]
fn a_tag_that_moves_is_followed_and_a_bad_revision_disturbs_nobody() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        version(POLICY, "plugins/policy:1", "0.1.0").await?;
        turn.create("Plugin", "policy", tracked("plugins/policy:1")).await?;
        turn.create("Plugin", "pinned", json!({"image": format!("{HOST}/plugins/policy:1"), "namespaces": ["elsewhere"]}))
            .await?;
        let cloud = ["--cloud", "hostile", "--artifact-bucket-url", "tar:///bucket"];
        let operator = turn.operator(&[INSECURE, &cloud].concat()).await?;
        let first = answers(turn, "policy", "0.1.0").await?;
        answers(turn, "pinned", "0.1.0").await?;

        // The tag is asked again and again, and nothing is written while nothing changes.
        let before = says(turn, "policy", "UpdateAvailable", "UpToDate", &["the tag names what answers"]).await?;
        let passes = async || operator.count("substratus_reconciles_total{kind=\"Plugin\",outcome=\"ok\"}").await;
        let started = passes().await?;
        let after = turn.wait("Plugin", "policy", async |_| Ok(passes().await? > started + 3)).await?;
        ensure!(before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"], "it wrote: {before} {after}");

        version(POLICY, "plugins/policy:1", "0.2.0").await?;
        let second = answers(turn, "policy", "0.2.0").await?;
        ensure!(history(&second) == [("0.2.0", "Active"), ("0.1.0", "Retired")], "{second}");
        ensure!(second["status"]["active"] != first["status"]["active"], "{second}");

        // Something else under the tag: it is refused by name, and the last good one answers on.
        registry.push("policy", b"#!/bin/sh", 9).await?;
        let bad = says(turn, "policy", "UpdateAvailable", "UpdateFailed", &["Compatible", "is not WebAssembly"]).await?;
        ensure!(bad["status"]["active"] == second["status"]["active"], "{bad}");
        ensure!(history(&bad) == [("?", "Failed"), ("0.2.0", "Active"), ("0.1.0", "Retired")], "{bad}");
        let active = condition(&bad, "Active");
        let words = "version 0.2.0 keeps answering; the new revision failed: Compatible NotAComponent";
        ensure!(active["status"] == "True" && active["message"] == words, "{active}");
        let model = json!({"source": "hf://a/b", "resources": {"gpu": {"type": "good", "count": 1}}});
        turn.create("Model", "placed", model).await?;
        turn.wait("Job", "placed-modeller", async |_| Ok(true)).await?;

        version(POLICY, "plugins/policy:1", "0.3.0").await?;
        let third = answers(turn, "policy", "0.3.0").await?;
        let told = [("0.3.0", "Active"), ("?", "Failed"), ("0.2.0", "Retired"), ("0.1.0", "Retired")];
        ensure!(history(&third) == told, "{third}");
        // What is pinned stays where it was.
        let pinned = answers(turn, "pinned", "0.1.0").await?;
        ensure!(history(&pinned) == [("0.1.0", "Active")] && condition(&pinned, "UpdateAvailable").is_null(), "{pinned}");
        Ok(())
    })
}

#[test]
fn manual_activation_waits_for_the_digest_that_was_approved() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        version(POLICY, "plugins/policy:1", "0.1.0").await?;
        let mut spec = tracked("plugins/policy:1");
        spec["activation"] = json!("Manual");
        turn.create("Plugin", "policy", spec).await?;
        let operator = turn.operator(INSECURE).await?;
        let first = says(turn, "policy", "UpdateAvailable", "ApprovalNeeded", &["0.1.0", "spec.activation is Manual"]).await?;
        ensure!(condition(&first, "Active")["status"] == "False" && first["status"]["active"].is_null(), "{first}");
        ensure!(history(&first) == [("0.1.0", "Waiting")], "{first}");
        let (annotation, right) = approval(&first)?;
        let seen = operator.count("substratus_reconciles_total{kind=\"Plugin\"").await?;
        approve(turn, "policy", (annotation.clone(), format!("sha256:{}", "0".repeat(64)))).await?;
        let looked_at = async |_: &Value| Ok(operator.count("substratus_reconciles_total{kind=\"Plugin\"").await? > seen + 1);
        let still = turn.wait("Plugin", "policy", looked_at).await?;
        ensure!(condition(&still, "Active")["status"] == "False", "another digest was approved: {still}");
        approve(turn, "policy", (annotation, right)).await?;
        answers(turn, "policy", "0.1.0").await?;

        version(POLICY, "plugins/policy:1", "0.2.0").await?;
        let second = says(turn, "policy", "UpdateAvailable", "ApprovalNeeded", &["0.2.0", "plugins/policy:1@sha256:"]).await?;
        ensure!(second["status"]["version"] == "0.1.0" && condition(&second, "Active")["status"] == "True", "{second}");
        // Nor does a restart let it in.
        let scope = turn.scope();
        let _operator = operator.restart(turn.cluster, &[&[scope.as_str()], INSECURE].concat()).await?;
        let still = says(turn, "policy", "UpdateAvailable", "ApprovalNeeded", &["0.2.0"]).await?;
        ensure!(history(&still) == [("0.2.0", "Waiting"), ("0.1.0", "Active")], "{still}");
        approve(turn, "policy", approval(&second)?).await?;
        let now = answers(turn, "policy", "0.2.0").await?;
        ensure!(history(&now) == [("0.2.0", "Active"), ("0.1.0", "Retired")], "{now}");
        Ok(())
    })
}

#[test]
fn a_revision_that_asks_for_more_waits_and_the_difference_is_told() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        version(LOADER, "plugins/plain:1", "0.7.0").await?;
        let image = format!("{HOST}/plugins/plain:1");
        // Even where an administrator would grant it: that was for another revision.
        let grants = json!({"hosts": ["https://hub.example", "https://evil.example"]});
        let update = json!({"mode": "Track", "interval": "1s"});
        turn.create("Plugin", "plain", json!({"image": image, "update": update, "grants": grants})).await?;
        let _operator = turn.operator(INSECURE).await?;
        answers(turn, "plain", "0.7.0").await?;
        pushed(LOADER, "plugins/plain:1", |manifest| {
            "0.8.0".clone_into(&mut manifest.version);
            manifest.hosts = vec!["https://evil.example".to_owned()];
            manifest.claims.schemes.push("hf".to_owned());
        })
        .await?;
        let words =
            ["0.8.0 asks for more than 0.7.0: the host https://evil.example; to stand for the scheme `hf`; look at", &image];
        let waits = says(turn, "plain", "UpdateAvailable", "AsksForMore", &words).await?;
        ensure!(waits["status"]["version"] == "0.7.0" && condition(&waits, "Active")["status"] == "True", "{waits}");
        ensure!(history(&waits) == [("0.8.0", "Waiting"), ("0.7.0", "Active")], "{waits}");

        // Approved it meets the next rule: another plugin has the scheme, and the last good one goes on.
        approve(turn, "plain", approval(&waits)?).await?;
        let words = ["plugin `loader-huggingface` is older and claims the scheme `hf` already"];
        let conflict = says(turn, "plain", "UpdateAvailable", "ClaimConflict", &words).await?;
        ensure!(conflict["status"]["version"] == "0.7.0" && condition(&conflict, "Active")["status"] == "True", "{conflict}");
        turn.create("Model", "still", json!({"source": "hf://a/b"})).await?;
        let model = turn.wait("Model", "still", async |model| Ok(model["status"]["plugin"].is_object())).await?;
        ensure!(model["status"]["plugin"]["name"] == "loader-huggingface", "{model}");

        // One that asks for no more than the first passes by itself.
        version(LOADER, "plugins/plain:1", "0.9.0").await?;
        let now = answers(turn, "plain", "0.9.0").await?;
        ensure!(history(&now) == [("0.9.0", "Active"), ("0.8.0", "Skipped"), ("0.7.0", "Retired")], "{now}");
        Ok(())
    })
}

#[test]
fn the_way_back_is_a_digest_and_needs_no_registry() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        version(POLICY, "plugins/policy:1", "0.1.0").await?;
        let mut spec = tracked("plugins/policy:1");
        spec["revisionHistoryLimit"] = json!(2);
        turn.create("Plugin", "policy", spec).await?;
        let operator = turn.operator(INSECURE).await?;
        for (now, next) in [("0.1.0", "0.2.0"), ("0.2.0", "0.3.0"), ("0.3.0", "0.4.0"), ("0.4.0", "0.5.0")] {
            answers(turn, "policy", now).await?;
            version(POLICY, "plugins/policy:1", next).await?;
        }
        let newest = answers(turn, "policy", "0.5.0").await?;
        ensure!(history(&newest) == [("0.5.0", "Active"), ("0.4.0", "Retired"), ("0.3.0", "Retired")], "{newest}");
        let old = newest["status"]["revisions"][2]["image"].as_str().context("no image")?.to_owned();
        registry.stop()?;
        let down = says(turn, "policy", "UpdateAvailable", "RegistryUnavailable", &["the tag could not be asked"]).await?;
        ensure!(condition(&down, "Active")["reason"] == "Succeeded" && down["status"]["version"] == "0.5.0", "{down}");

        patch(turn, "Plugin", "policy", json!({"spec": {"image": old}})).await?;
        let back = answers(turn, "policy", "0.3.0").await?;
        ensure!(history(&back) == [("0.3.0", "Active"), ("0.5.0", "Retired"), ("0.4.0", "Retired")], "{back}");
        ensure!(back["status"]["resolved"] == old && condition(&back, "UpdateAvailable").is_null(), "{back}");
        turn.calm(&operator, 0).await?;

        // Nor does a restart need one, and it writes nothing.
        let scope = turn.scope();
        let operator = operator.restart(turn.cluster, &[&[scope.as_str()], INSECURE].concat()).await?;
        turn.calm(&operator, 0).await?;
        let after = answers(turn, "policy", "0.3.0").await?;
        ensure!(back["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"], "a restart wrote: {after}");
        Ok(())
    })
}

#[test]
fn a_configuration_that_the_new_schema_refuses_leaves_the_old_revision_at_work() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        let schema =
            |kind: &str| json!({"type": "object", "additionalProperties": false, "properties": {"depth": {"type": kind}}});
        pushed(POLICY, "plugins/policy:1", |manifest| manifest.config = schema("integer")).await?;
        let mut spec = tracked("plugins/policy:1");
        spec["config"] = json!({"depth": 3});
        turn.create("Plugin", "policy", spec).await?;
        let _operator = turn.operator(INSECURE).await?;
        answers(turn, "policy", "0.1.0").await?;
        pushed(POLICY, "plugins/policy:1", |manifest| {
            "0.2.0".clone_into(&mut manifest.version);
            manifest.config = schema("string");
        })
        .await?;
        let words = ["spec.config.depth: a value of type string is needed"];
        let kept = turn.refused("Plugin", "policy", "ConfigValid", "ConfigInvalid", &words).await?;
        ensure!(kept["status"]["version"] == "0.1.0" && condition(&kept, "Active")["status"] == "True", "{kept}");
        patch(turn, "Plugin", "policy", json!({"spec": {"config": {"depth": "3"}}})).await?;
        answers(turn, "policy", "0.2.0").await?;
        Ok(())
    })
}

#[test]
fn a_plugin_of_a_namespace_answers_there_and_nowhere_else() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        turn.trust().await?;
        let image = |name: &str| format!("{HOST}/plugins/{name}:1");
        for name in ["own", "rival", "far"] {
            pushed(LOADER, &format!("plugins/{name}:1"), |manifest| manifest.claims.schemes = vec!["hf".to_owned()]).await?;
        }
        turn.create("Plugin", "own", json!({"image": image("own"), "namespaces": [turn.namespace]})).await?;
        turn.create("Plugin", "far", json!({"image": image("far"), "namespaces": ["elsewhere"]})).await?;
        let _operator = turn.operator(INSECURE).await?;
        answers(turn, "own", "0.7.0").await?;
        answers(turn, "far", "0.7.0").await?;
        let loader = async |name: &str| -> Result<String> {
            turn.create("Model", name, json!({"source": "hf://a/b"})).await?;
            let model = turn.wait("Model", name, async |model| Ok(model["status"]["plugin"].is_object())).await?;
            Ok(model["status"]["plugin"]["name"].as_str().unwrap_or_default().to_owned())
        };
        ensure!(loader("here").await? == "own", "a plugin that lists the namespace comes before the bundled one");
        turn.create("Model", "named", json!({"source": "hf://a/b", "plugin": "far"})).await?;
        let words = ["`far` does not answer for the namespace", "only for elsewhere"];
        turn.refused("Model", "named", "Complete", "PluginNotFound", &words).await?;

        // The same claim in the same namespace: the older keeps it.
        let rival = json!({"image": image("rival"), "namespaces": ["other", turn.namespace]});
        turn.create("Plugin", "rival", rival).await?;
        let words = ["plugin `own` is older and claims the scheme `hf` already in the namespace", &turn.namespace];
        turn.refused("Plugin", "rival", "Active", "ClaimConflict", &words).await?;
        patch(turn, "Plugin", "rival", json!({"spec": {"namespaces": ["other"]}})).await?;
        answers(turn, "rival", "0.7.0").await?;
        // Moved away, it leaves the namespace to the bundled one.
        patch(turn, "Plugin", "own", json!({"spec": {"namespaces": ["third"]}})).await?;
        turn.wait("Plugin", "own", async |own| Ok(own["status"]["observedGeneration"] == own["metadata"]["generation"])).await?;
        ensure!(loader("later").await? == "loader-huggingface");
        Ok(())
    })
}
