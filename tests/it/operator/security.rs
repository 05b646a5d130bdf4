//! What pods may do: everything but the node's folder of artifacts passes Pod Security `baseline`, and images may be root in it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{Fixture, on_cluster};

/// The pod of a child, as the API server would be asked for it.
fn pod(child: &Value) -> Value {
    let template = if child["kind"] == "Pod" { child } else { &child["spec"]["template"] };
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "asked-"}, "spec": template["spec"]});
    for decided in ["nodeName", "tolerations"] {
        pod["spec"].as_object_mut().map(|spec| spec.remove(decided));
    }
    // The token that the API server mounts has a name of its own in each pod.
    if child["kind"] == "Pod" {
        let is_own = |named: &Value| !named["name"].as_str().unwrap_or_default().starts_with("kube-api-access-");
        for list in ["/spec/volumes", "/spec/containers/0/volumeMounts"] {
            if let Some(list) = pod.pointer_mut(list).and_then(Value::as_array_mut) {
                list.retain(is_own);
            }
        }
    }
    pod
}

/// The same with its artifacts elsewhere than on the node.
fn elsewhere(mut pod: Value) -> Value {
    for volume in pod["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        if volume["hostPath"].is_object() {
            *volume = json!({"name": volume["name"], "emptyDir": {}});
        }
    }
    pod
}

#[test]
fn pods_pass_baseline_but_for_the_nodes_folder() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"image": "example.test/trainer"})).await?;
        fixture.create("Model", "loaded", json!({"source": "hf://org/name"})).await?;
        fixture.create("Dataset", "d", json!({"image": "example.test/loader"})).await?;
        fixture.create("Notebook", "n", json!({})).await?;
        fixture.create("Dataset", "b", json!({"build": {"git": {"url": "https://git.example.test/x", "secret": "git"}}})).await?;
        fixture.pod_ends("m-modeller", 0, &json!({})).await?;
        fixture.create("Server", "s", json!({"image": "example.test/server", "model": {"name": "m"}})).await?;
        let mut pods = Vec::new();
        for (kind, name) in [
            ("Job", "m-modeller"),
            ("Job", "loaded-modeller"),
            ("Job", "d-data-loader"),
            ("Deployment", "s-server"),
            ("Pod", "n-notebook"),
        ] {
            let mut child = fixture.wait(kind, name, LIMIT, async |_| Ok(Some(()))).await?;
            child["kind"] = kind.into();
            pods.push((name, pod(&child)));
        }
        let builder = fixture.wait("Job", "b-dataset-bld", LIMIT, async |_| Ok(Some(()))).await?;
        let namespace = fixture.namespace();
        fixture.kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=baseline"]).await?;
        for (name, pod) in pods {
            let refused = fixture.try_pod(&pod).await.err().with_context(|| format!("{name}: a folder of the node is let in"))?;
            ensure!(format!("{refused:#}").contains("hostPath volumes"), "{name}: {refused:#}");
            // Images say who they are: root, too.
            let security = &pod["spec"]["containers"][0]["securityContext"];
            ensure!(security["runAsNonRoot"] != true, "{name}: {security}");
            fixture.try_pod(&elsewhere(pod)).await.with_context(|| format!("{name} asks for more than baseline"))?;
        }
        // A builder sees no folder of the node.
        fixture.try_pod(&pod(&builder)).await.context("a builder asks for more than baseline")?;
        Ok(())
    })
}
