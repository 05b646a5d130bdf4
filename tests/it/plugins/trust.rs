//! Trust: nothing is pulled that no `PluginSource` vouches for, and nothing is granted beyond its ceiling.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use substratus_crds::PluginSource;
use substratus_tests::guests;

use super::super::badinput::registry::{HOST, Registry};
use super::super::badinput::{Turn, alone, condition};
use super::{INSECURE, LOADER, POLICY, answers, history, patch, pushed, says, version};

const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n-----END PUBLIC KEY-----\n";

#[test]
fn nothing_is_pulled_that_no_source_vouches_for() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        let digest = version(POLICY, "plugins/policy:1", "0.1.0").await?;
        let image = format!("{HOST}/plugins/policy:1");
        // A name that only begins alike.
        turn.create("PluginSource", "near", json!({"prefix": format!("{HOST}/plugin"), "unverified": "Allow"})).await?;
        turn.create("Plugin", "policy", json!({"image": image})).await?;
        let operator = turn.operator(INSECURE).await?;
        let refused = turn.refused("Plugin", "policy", "Resolved", "NoPluginSource", &[HOST, "kind: PluginSource"]).await?;
        ensure!(condition(&refused, "Active")["reason"] == "NoPluginSource", "{refused}");
        ensure!(history(&refused).is_empty(), "something was asked of the registry: {refused}");
        turn.calm(&operator, 0).await?;

        // The line that it says is the object to add, but for the key.
        let said = condition(&refused, "Resolved")["message"].as_str().unwrap_or_default().to_owned();
        let (_, yaml) = said.split_once("add one: ").unwrap_or_default();
        let source: PluginSource = serde_saphyr::from_str(yaml)?;
        let name = source.metadata.name.clone().unwrap_or_default();
        let mut spec = serde_json::to_value(&source.spec)?;
        ensure!(spec["prefix"] == format!("{HOST}/plugins/"), "{spec}");
        spec["verify"] = Value::Null;
        turn.create("PluginSource", &name, spec).await?;
        let words = ["spec.verify.keys", "unverified: Allow", &name];
        turn.refused("Plugin", "policy", "Verified", "Unverified", &words).await?;
        // Where it is allowed it is said.
        patch(turn, "PluginSource", &name, json!({"spec": {"unverified": "Allow"}})).await?;
        let active = answers(turn, "policy", "0.1.0").await?;
        let verified = condition(&active, "Verified");
        ensure!(verified["status"] == "True" && verified["reason"] == "Unverified", "{verified}");
        let message = verified["message"].as_str().unwrap_or_default();
        ensure!(message.contains(&name) && message.contains("nobody verifies"), "{verified}");
        ensure!(active["status"]["revisions"][0]["signedBy"] == json!(["unverified"]), "{active}");

        // Digests only: what answers goes on, and says what is wrong with the spec.
        patch(turn, "PluginSource", &name, json!({"spec": {"requireDigest": true}})).await?;
        let kept = turn.refused("Plugin", "policy", "Resolved", "DigestRequired", &["by digest only", "@sha256:"]).await?;
        ensure!(condition(&kept, "Active")["status"] == "True", "{kept}");
        patch(turn, "Plugin", "policy", json!({"spec": {"image": digest}})).await?;
        let pinned = says(turn, "policy", "Resolved", "Succeeded", &[]).await?;
        ensure!(condition(&pinned, "Active")["status"] == "True", "{pinned}");

        // Trust that is taken away is away.
        turn.delete("PluginSource", &name).await?;
        let gone = turn.refused("Plugin", "policy", "Active", "NoPluginSource", &[]).await?;
        ensure!(history(&gone) == [("0.1.0", "Failed")], "{gone}");
        Ok(())
    })
}

#[test]
fn a_policy_of_keys_is_held_to_before_a_layer_is_pulled_and_again_when_it_changes() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        let good = guests::altered(POLICY, |_| ())?;
        // The layer cannot be had: what is said can only come from what is looked at before it.
        let image = registry.push("spoilt", &good, good.len()).await?;
        registry.spoil(&good)?;
        turn.create("PluginSource", "local", json!({"prefix": HOST, "verify": {"keys": [KEY]}})).await?;
        turn.create("Plugin", "spoilt", json!({"image": image})).await?;
        let operator = turn.operator(INSECURE).await?;
        let refused = turn.refused("Plugin", "spoilt", "Verified", "SignatureInvalid", &["plugins/spoilt@sha256:"]).await?;
        ensure!(history(&refused) == [("?", "Failed")], "{refused}");
        ensure!(condition(&refused, "Compatible")["reason"] == "Waiting", "{refused}");

        // What was let in without a signature is looked at again once signatures are wanted.
        version(LOADER, "other/plain:1", "0.7.0").await?;
        turn.create("PluginSource", "other", json!({"prefix": format!("{HOST}/other/"), "unverified": "Allow"})).await?;
        turn.create("Plugin", "plain", json!({"image": format!("{HOST}/other/plain:1")})).await?;
        answers(turn, "plain", "0.7.0").await?;
        turn.create("Model", "before", json!({"source": "plain://hub.example/file"})).await?;
        turn.wait("Job", "before-modeller", async |_| Ok(true)).await?;
        patch(turn, "PluginSource", "other", json!({"spec": {"unverified": null, "verify": {"keys": [KEY]}}})).await?;
        let withdrawn = turn.refused("Plugin", "plain", "Active", "SignatureInvalid", &[]).await?;
        ensure!(condition(&withdrawn, "Verified")["status"] == "False", "{withdrawn}");
        turn.create("Model", "after", json!({"source": "plain://hub.example/file"})).await?;
        turn.refused("Model", "after", "Complete", "PluginNotFound", &["plain://"]).await?;
        ensure!(operator.count("substratus_reconciles_total{kind=\"Plugin\",outcome=\"SignatureInvalid\"}").await? >= 2);
        // And back.
        patch(turn, "PluginSource", "other", json!({"spec": {"unverified": "Allow", "verify": null}})).await?;
        answers(turn, "plain", "0.7.0").await?;
        turn.wait("Job", "after-modeller", async |_| Ok(true)).await?;
        Ok(())
    })
}

#[test]
fn a_registry_of_a_private_authority_needs_its_bundle() -> Result<()> {
    alone(async |turn: &Turn| {
        let registry = Registry::start(turn.cluster).await?;
        version(POLICY, "plugins/policy:1", "0.1.0").await?;
        let (_registry, authority) = registry.secured(turn.cluster).await?;
        turn.trust().await?;
        turn.create("Plugin", "policy", json!({"image": format!("{HOST}/plugins/policy:1")})).await?;
        // The operator's own namespace is where bundles are.
        let namespace = format!("--namespace={}", turn.namespace);
        let _operator = turn.operator(&[&namespace]).await?;
        turn.refused("Plugin", "policy", "Resolved", "RegistryUnavailable", &["certificate"]).await?;
        patch(turn, "PluginSource", "local", json!({"spec": {"caBundle": {"configMap": "authority"}}})).await?;
        turn.refused("Plugin", "policy", "Resolved", "RegistryAuth", &["read the CA bundle `authority`"]).await?;
        let maps = Api::<ConfigMap>::namespaced(turn.cluster.client(), &turn.namespace);
        let map = json!({"metadata": {"name": "authority"}, "data": {"ca.crt": authority}});
        maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
        // Nobody watches ConfigMaps: any edit of the source looks again.
        patch(turn, "PluginSource", "local", json!({"metadata": {"labels": {"again": "1"}}})).await?;
        answers(turn, "policy", "0.1.0").await?;
        Ok(())
    })
}

#[test]
fn a_mirror_is_asked_in_place_of_the_name() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        version(POLICY, "mirrored/team/policy:1", "0.4.0").await?;
        version(POLICY, "mirrored/team/policy:2", "0.5.0").await?;
        let source = json!({"prefix": "registry.example/acme/", "mirror": format!("{HOST}/mirrored/"), "unverified": "Allow"});
        turn.create("PluginSource", "acme", source).await?;
        // A longer prefix is another's word, and has no mirror.
        let private = json!({"prefix": "registry.example/acme/private/", "unverified": "Allow"});
        turn.create("PluginSource", "private", private).await?;
        turn.create("Plugin", "policy", json!({"image": "registry.example/acme/team/policy:1"})).await?;
        turn.create("Plugin", "private", json!({"image": "registry.example/acme/private/policy:1"})).await?;
        let _operator = turn.operator(INSECURE).await?;
        let active = answers(turn, "policy", "0.4.0").await?;
        let image = active["status"]["resolved"].as_str().unwrap_or_default();
        ensure!(
            image.starts_with("registry.example/acme/team/policy:1@sha256:"),
            "the name is the one that was written: {image}"
        );
        let words = ["registry.example/acme/private/policy"];
        turn.refused("Plugin", "private", "Resolved", "RegistryUnavailable", &words).await?;
        patch(turn, "Plugin", "policy", json!({"spec": {"image": "registry.example/acme/team/policy:2"}})).await?;
        answers(turn, "policy", "0.5.0").await?;
        // Back by the name that the history has.
        patch(turn, "Plugin", "policy", json!({"spec": {"image": image}})).await?;
        answers(turn, "policy", "0.4.0").await?;
        Ok(())
    })
}

#[test]
fn a_ceiling_bounds_every_grant_and_the_plugin_that_goes_beyond_is_named() -> Result<()> {
    alone(async |turn: &Turn| {
        let _registry = Registry::start(turn.cluster).await?;
        let ceiling = json!({"images": ["docker.io/other/"], "scheduling": ["example.com/*"], "hosts": ["https://hub.example"]});
        turn.create("PluginSource", "local", json!({"prefix": HOST, "unverified": "Allow", "ceiling": ceiling})).await?;
        for name in ["adapter", "policy"] {
            pushed(&format!("tests/guests/{name}"), &format!("plugins/{name}:1"), |_| ()).await?;
        }
        let hosts = ["https://hub.example", "https://far.example"];
        pushed(LOADER, "plugins/plain:1", |manifest| manifest.hosts = hosts.map(str::to_owned).to_vec()).await?;
        for (name, grants) in [
            ("adapter", json!({"images": ["docker.io/hostile/"]})),
            ("policy", json!({"scheduling": ["nvidia.com/gpu"]})),
            ("plain", json!({"hosts": hosts})),
        ] {
            let image = format!("{HOST}/plugins/{name}:1");
            turn.create("Plugin", &format!("the-{name}"), json!({"image": image, "grants": grants})).await?;
        }
        turn.adopted("ready").await?;
        let server = json!({"engine": "hostile", "model": {"name": "ready"}, "params": {"do": "good"}});
        turn.create("Server", "served", server).await?;
        turn.create("Model", "placed", json!({"source": "hf://a/b", "resources": {"gpu": {"type": "good", "count": 1}}})).await?;
        turn.create("Model", "loaded", json!({"source": "plain://hub.example/file"})).await?;
        let cloud = ["--cloud", "hostile", "--artifact-bucket-url", "tar:///bucket"];
        let _operator = turn.operator(&[INSECURE, &cloud].concat()).await?;
        let words = ["plugin `the-adapter`: runs the image `docker.io/hostile/", "the ceiling of its PluginSource"];
        turn.refused("Server", "served", "Serving", "PluginDenied", &words).await?;
        let words = ["plugin `the-policy`: sets the resource `nvidia.com/gpu`", "the ceiling of its PluginSource"];
        turn.refused("Model", "placed", "Complete", "PluginDenied", &words).await?;
        // The worker is told no more than what is left.
        let request = turn.wait("ConfigMap", "loaded-modeller", async |_| Ok(true)).await?;
        let request: Value = serde_json::from_str(request["data"]["request.json"].as_str().unwrap_or_default())?;
        ensure!(request["grant"]["hosts"] == json!(["https://hub.example"]), "{request}");

        // A higher ceiling counts at once.
        let ceiling = json!({"images": ["docker.io/"], "scheduling": ["nvidia.com/*"]});
        patch(turn, "PluginSource", "local", json!({"spec": {"ceiling": ceiling}})).await?;
        turn.wait("Deployment", "served-server", async |_| Ok(true)).await?;
        turn.wait("Job", "placed-modeller", async |_| Ok(true)).await?;
        Ok(())
    })
}
