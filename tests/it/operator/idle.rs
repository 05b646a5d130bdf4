//! A Notebook with an `idleTimeout`: the sidecar in its pod, and whose word suspends it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use substratus::store::AUDIENCE;
use substratus_tests::cluster::eventually;

use super::LIMIT;
use super::fixture::{Fixture, condition, on_cluster};

const LABEL: &str = "notebook=lab";

/// Says to the operator's store what a sidecar would; returns status and words of the answer.
async fn tell(fixture: &Fixture, notebook: &str, token: &str, seconds: u32) -> Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:8090/idle/{}/{notebook}", fixture.namespace());
    let report = json!({"idleSeconds": seconds});
    // Another test may start the operator anew at this moment.
    let answer = async || Ok(Some(client.post(&url).bearer_auth(token).json(&report).send().await?));
    let answer = eventually("the store to answer", LIMIT, answer).await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

#[test]
fn sidecar_is_there_only_where_it_is_asked_for_and_may_do_nothing() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Notebook", "lab", json!({"image": "example.test/lab"})).await?;
        let pod = fixture.pod(LABEL).await?;
        ensure!(pod["spec"]["initContainers"].is_null(), "nobody asked for a sidecar: {pod}");
        let user = pod["spec"]["containers"][0].clone();
        fixture.delete("Notebook", "lab").await?;
        fixture.gone(&[("Pod", "lab-notebook")]).await?;

        // Root in the user's container, and a token of the user's own: neither is the sidecar's.
        let spec = json!({"image": "example.test/lab", "idleTimeout": "1h30m", "securityContext": {"runAsUser": 0}});
        fixture.create("Notebook", "lab", spec).await?;
        let pod = fixture.pod(LABEL).await?;
        ensure!(pod["metadata"]["annotations"]["substratus.ai/idle-timeout"] == "1h30m", "{pod}");
        let container = &pod["spec"]["containers"][0];
        ensure!(container["volumeMounts"] != Value::Null && container["env"] == user["env"], "{container}");
        let mounts = container["volumeMounts"].to_string();
        ensure!(!mounts.contains("store-token"), "the user's container has the token for the store: {mounts}");

        let sidecar = &pod["spec"]["initContainers"][0];
        ensure!(pod["spec"]["initContainers"].as_array().is_some_and(|all| all.len() == 1), "{pod}");
        ensure!(sidecar["name"] == "idle" && sidecar["restartPolicy"] == "Always", "{sidecar}");
        ensure!(sidecar["image"] == "registry.test/substratus:test", "{sidecar}");
        let report = format!("/idle/{}/lab", fixture.namespace());
        let arguments = sidecar["args"].to_string();
        ensure!(arguments.contains("--timeout=1h30m") && arguments.contains(&report), "{arguments}");
        ensure!(sidecar["env"] == user["env"] && sidecar["env"][0]["name"] == "NOTEBOOK_TOKEN", "{sidecar}");
        let confined = json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsGroup": 65532, "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
        ensure!(sidecar["securityContext"] == confined, "{sidecar}");
        let resources = json!({"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}});
        ensure!(sidecar["resources"] == resources, "{sidecar}");
        ensure!(sidecar["volumeMounts"][0]["mountPath"] == "/var/run/secrets/substratus.ai", "{sidecar}");

        fixture.create("Notebook", "never", json!({"image": "i", "idleTimeout": "0s"})).await?;
        let refused = fixture.reason("Notebook", "never", "Serving", "Invalid").await?;
        ensure!(condition(&refused, "Serving")["message"].as_str().is_some_and(|m| m.contains("spec.idleTimeout")), "{refused}");
        Ok(())
    })
}

#[test]
fn notebook_is_suspended_at_the_word_of_its_own_pod_alone() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        for name in ["lab", "other"] {
            fixture.create("Notebook", name, json!({"image": "example.test/lab", "idleTimeout": "30s"})).await?;
        }
        let (pod, other) = (fixture.pod(LABEL).await?, fixture.pod("notebook=other").await?);
        fixture.pod_is_ready(LABEL).await?;
        fixture.reason("Notebook", "lab", "Serving", "PodReady").await?;
        let token = fixture.token("notebook", AUDIENCE, &pod).await?;

        // Whoever it is not.
        let strangers = [
            (String::new(), 401),
            ("no token at all".to_owned(), 401),
            (fixture.token("notebook", "https://kubernetes.default.svc", &pod).await?, 401),
            (fixture.token("notebook", AUDIENCE, &other).await?, 403),
        ];
        for (stranger, expected) in strangers {
            let (status, words) = tell(fixture, "lab", &stranger, 3600).await?;
            ensure!(status == expected, "{status} {words}");
        }
        // Whatever its user has not asked for.
        let (status, words) = tell(fixture, "lab", &token, 29).await?;
        ensure!(status == 409 && words.contains("less than idleTimeout"), "{status} {words}");
        fixture.merge("Notebook", "lab", json!({"spec": {"idleTimeout": null}})).await?;
        let (status, words) = tell(fixture, "lab", &token, 3600).await?;
        ensure!(status == 409 && words.contains("no idleTimeout"), "an edit counts at once: {status} {words}");
        fixture.merge("Notebook", "lab", json!({"spec": {"idleTimeout": "10s"}})).await?;
        fixture
            .wait("Notebook", "lab", LIMIT, async |notebook| {
                let message = condition(notebook, "Serving")["message"].as_str().unwrap_or_default().to_owned();
                Ok(message.contains("watches an idleTimeout of 30s; 10s takes effect with the next one").then_some(()))
            })
            .await?;
        let notebook = fixture.get("Notebook", "lab").await?;
        ensure!(notebook["spec"]["suspend"].is_null() && notebook["status"]["idleSince"].is_null(), "{notebook}");
        ensure!(fixture.get("Pod", "lab-notebook").await?["metadata"]["uid"] == pod["metadata"]["uid"], "its pod was replaced");

        let (status, words) = tell(fixture, "lab", &token, 45).await?;
        ensure!(status == 204, "{status} {words}");
        let notebook = fixture.reason("Notebook", "lab", "Serving", "Suspended").await?;
        let said = condition(&notebook, "Serving")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(notebook["spec"]["suspend"] == true && notebook["status"]["ready"] == false, "{notebook}");
        let since = notebook["status"]["idleSince"].as_str().context("no idleSince")?;
        ensure!(said.contains(since) && said.contains("longer than spec.idleTimeout (10s)"), "{said}");
        let event = fixture.event("lab", "Suspended").await?;
        ensure!(event["type"] == "Normal" && event["message"] == said.as_str(), "{event}");
        fixture.gone(&[("Pod", "lab-notebook")]).await?;
        // An edit of what is suspended does not change why it is.
        fixture.merge("Notebook", "lab", json!({"spec": {"idleTimeout": "40s"}})).await?;
        let generation = fixture.get("Notebook", "lab").await?["metadata"]["generation"].clone();
        let edited = fixture
            .wait("Notebook", "lab", LIMIT, async |now| Ok((now["status"]["observedGeneration"] == generation).then_some(())))
            .await?;
        ensure!(edited["status"]["idleSince"] == since, "{edited}");
        fixture.settled().await?;

        // The user comes back, and the last pod's word is worth nothing.
        fixture.merge("Notebook", "lab", json!({"spec": {"suspend": false}})).await?;
        let next = fixture.pod(LABEL).await?;
        ensure!(next["metadata"]["uid"] != pod["metadata"]["uid"], "it is a new pod");
        let (status, words) = tell(fixture, "lab", &token, 3600).await?;
        ensure!(status == 401 || (status == 409 && words.contains("another pod")), "{status} {words}");
        fixture.pod_is_ready(LABEL).await?;
        let notebook = fixture.reason("Notebook", "lab", "Serving", "PodReady").await?;
        ensure!(notebook["spec"]["suspend"] == false && notebook["status"]["idleSince"].is_null(), "{notebook}");

        // Suspended by hand, it does not say that it was idle.
        fixture.merge("Notebook", "lab", json!({"spec": {"suspend": true}})).await?;
        let notebook = fixture.reason("Notebook", "lab", "Serving", "Suspended").await?;
        ensure!(notebook["status"]["idleSince"].is_null(), "{notebook}");
        // The other one was never concerned.
        ensure!(fixture.get("Pod", "other-notebook").await?["metadata"]["uid"] == other["metadata"]["uid"], "it was replaced");
        Ok(())
    })
}
