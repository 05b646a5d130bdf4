//! A Plugin that is deleted while a load runs by it: who uses it is told, and the load ends as if nothing had happened.

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::json;
use substratus::plugin::{PlainHttp, RegistryAuth, push};
use substratus_tests::cluster::eventually;
use substratus_tests::guests;

use super::LIMIT;
use super::fixture::{Fixture, condition, loaded, on_cluster};
use crate::badinput::registry::{HOST, Registry};

const PLUGIN: &str = "deleted-in-use";

#[test]
fn a_plugin_deleted_in_use_says_who_uses_it_and_the_load_goes_on() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let _registry = Registry::start(fixture.cluster()).await?;
        let bytes = guests::altered("tests/guests/plain", |manifest| manifest.claims.schemes = vec!["used".to_owned()])?;
        let image =
            push(&format!("{HOST}/used/plain:1"), &bytes, RegistryAuth::Anonymous, &PlainHttp(vec![HOST.to_owned()])).await?;
        fixture.create("PluginSource", PLUGIN, json!({"prefix": format!("{HOST}/used/"), "unverified": "Allow"})).await?;
        fixture.create_plugin(PLUGIN, json!({"image": image, "grants": {"hosts": ["http://hub.example"]}})).await?;
        fixture.plugin(PLUGIN, "Active", "Succeeded").await?;
        fixture.create("Model", "whole", json!({"source": "used://hub.example/whole"})).await?;
        fixture.load("whole", 1).await?;
        fixture.create("Model", "runs", json!({"source": "used://hub.example/runs"})).await?;
        let job = fixture.wait("Job", "runs-modeller", LIMIT, async |_| Ok(Some(()))).await?;
        let request = fixture.get("ConfigMap", "runs-modeller").await?;

        fixture.delete_plugin(PLUGIN).await?;
        let events = Api::<Event>::namespaced(fixture.cluster().client(), "default");
        let event = eventually("an Event about the deleted Plugin", LIMIT, async || {
            let all = events.list(&ListParams::default()).await?.items;
            let about = |event: &Event| {
                event.involved_object.name.as_deref() == Some(PLUGIN) && event.reason.as_deref() == Some("DeletedInUse")
            };
            Ok(all.into_iter().find(about))
        })
        .await?;
        let note = event.message.context("an Event without a note")?;
        ensure!(event.type_.as_deref() == Some("Warning"));
        let user = format!("used by Model {}/runs;", fixture.namespace());
        ensure!(note.contains(&user) && note.contains("what runs goes on"), "what is whole needs no plugin: {note}");

        // What is new is not planned by it; what runs is the same Job with the same request, to its end.
        fixture.create("Model", "new", json!({"source": "used://hub.example/new"})).await?;
        fixture.reason("Model", "new", "Complete", "PluginNotFound").await?;
        let model = fixture.get("Model", "runs").await?;
        ensure!(condition(&model, "Complete")["reason"] == "JobNotComplete", "{model}");
        fixture.pod_ends("runs-modeller", 0, &loaded(&model, 5)).await?;
        let model =
            fixture.wait("Model", "runs", LIMIT, async |model| Ok((model["status"]["ready"] == true).then_some(()))).await?;
        ensure!(model["status"]["plugin"]["name"] == PLUGIN && model["status"]["source"]["bytes"] == 5, "{model}");
        ensure!(fixture.get("Job", "runs-modeller").await?["metadata"]["uid"] == job["metadata"]["uid"], "another Job");
        let after = fixture.get("ConfigMap", "runs-modeller").await?;
        ensure!(request["data"] == after["data"], "the request of a load that runs was changed: {after}");
        fixture.delete("PluginSource", PLUGIN).await
    })
}
