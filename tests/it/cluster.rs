//! The test cluster itself: what every other test takes for granted about it. Nothing here is about the operator.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use kube::api::{LogParams, PostParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use substratus_tests::cluster::{Cluster, eventually, layout, leftovers};
use substratus_tests::image;

const LIMIT: Duration = Duration::from_mins(2);

async fn create<K>(cluster: &Cluster, namespace: &str, object: Value) -> Result<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let api = Api::namespaced(cluster.client(), namespace);
    Ok(api.create(&PostParams::default(), &serde_json::from_value(object)?).await?)
}

/// Pushes the image that pods of these tests run. They ask for it by a public name, which nobody here can reach, and by
/// digest: on a cluster that outlives a test run a tag may stand for what was pushed before.
async fn push_visitor(cluster: &Cluster) -> Result<String> {
    let built = image::visitor()?.build()?;
    let digest = built.push(cluster.registry()?, "substratus-tests/visitor", "1").await?;
    Ok(format!("ghcr.io/substratus-tests/visitor@{digest}"))
}

fn pod(name: &str, container: &Value, more: &Value) -> Value {
    let mut spec = json!({"restartPolicy": "Never", "containers": [container]});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn shell(image: &str, script: &str) -> Value {
    json!({"name": "main", "image": image, "command": ["/bin/sh", "-c", script]})
}

/// Waits for the pod's end and returns its log.
async fn finished(cluster: &Cluster, namespace: &str, name: &str, phase: &str) -> Result<String> {
    let pods = Api::<Pod>::namespaced(cluster.client(), namespace);
    eventually(&format!("pod {name} to be {phase}"), LIMIT, async || {
        let status = pods.get(name).await?.status.context("no status")?;
        let now = status.phase.clone().unwrap_or_default();
        ensure!(now == phase, "it is {now}: {status:?}");
        Ok(Some(()))
    })
    .await?;
    Ok(pods.logs(name, &LogParams::default()).await?)
}

#[test]
fn the_api_server_stores_objects_without_any_controller() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        let namespace = cluster.namespace("plain").await?;
        let made: ConfigMap = create(cluster, &namespace, json!({"metadata": {"name": "kept"}, "data": {"a": "1"}})).await?;
        let maps = Api::<ConfigMap>::namespaced(cluster.client(), &namespace);
        ensure!(maps.get("kept").await? == made, "what was stored differs");
        ensure!(cluster.client().apiserver_version().await?.git_version == "v1.34.4");
        Ok(())
    })
}

#[test]
fn namespaces_of_dead_test_runs_are_swept_and_those_of_living_ones_stay() -> Result<()> {
    // A process that has ended, whose number nobody has taken since.
    let mut ended = std::process::Command::new("true").spawn()?;
    let dead = ended.id();
    ended.wait()?;
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        let mine = cluster.namespace("mine").await?;
        let namespaces = Api::<Namespace>::all(cluster.client());
        let mut mark = leftovers::mark();
        for value in mark.values_mut() {
            *value = value.replace(&format!(".{}", std::process::id()), &format!(".{dead}"));
        }
        let left = json!({"metadata": {"name": "left-behind", "labels": mark}});
        namespaces.create(&PostParams::default(), &serde_json::from_value(left)?).await?;
        let swept = leftovers::sweep(&cluster.client()).await?;
        ensure!(swept == ["left-behind"], "swept: {swept:?}");
        let left = namespaces.get_opt("left-behind").await?;
        ensure!(left.is_none_or(|left| left.metadata.deletion_timestamp.is_some()), "the namespace stays");
        ensure!(namespaces.get(&mine).await?.metadata.deletion_timestamp.is_none(), "our own namespace was swept");
        Ok(())
    })
}

#[test]
fn a_token_is_good_for_its_own_audience_only() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        let namespace = cluster.namespace("tokens").await?;
        let _: ServiceAccount = create(cluster, &namespace, json!({"metadata": {"name": "worker"}})).await?;
        let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), &namespace);
        let wanted: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": ["substratus-worker"]}}))?;
        let given = accounts.create_token_request("worker", &PostParams::default(), &wanted).await?;
        let token = given.status.context("no token")?.token;
        let accepted = async |audience: &str| -> Result<bool> {
            let review: TokenReview = serde_json::from_value(json!({"spec": {"token": token, "audiences": [audience]}}))?;
            let answer = Api::all(cluster.client()).create(&PostParams::default(), &review).await?;
            Ok(answer.status.and_then(|status| status.authenticated).unwrap_or(false))
        };
        ensure!(accepted("substratus-worker").await?, "refused for its own audience");
        ensure!(!accepted(layout::ISSUER).await?, "accepted for the API server");
        ensure!(!accepted("somebody-else").await?, "accepted for another audience");
        Ok(())
    })
}

#[test]
fn a_job_runs_to_its_end_and_its_log_can_be_read() -> Result<()> {
    let cluster = Cluster::node()?;
    cluster.block_on(async {
        let image = push_visitor(cluster).await?;
        let namespace = cluster.namespace("job").await?;
        let mut container = shell(&image, "id -u; echo the answer is $((6 * 7)); touch /data/ok");
        // What the operator's own pods look like: no rights at all.
        container["securityContext"] = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        });
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let template = pod("ignored", &container, &json!({"volumes": [{"name": "data", "emptyDir": {}}]}));
        let job = json!({"metadata": {"name": "answer"}, "spec": {"backoffLimit": 0, "template": {"spec": template["spec"]}}});
        let _: Job = create(cluster, &namespace, job).await?;
        let jobs = Api::<Job>::namespaced(cluster.client(), &namespace);
        eventually("job to succeed", LIMIT, async || {
            let status = jobs.get("answer").await?.status.context("no status")?;
            ensure!(status.succeeded == Some(1), "{status:?}");
            Ok(Some(()))
        })
        .await?;
        let pods = Api::<Pod>::namespaced(cluster.client(), &namespace);
        let made = pods.list(&kube::api::ListParams::default().labels("job-name=answer")).await?;
        let name = made.items.first().and_then(|pod| pod.metadata.name.clone()).context("no pod")?;
        let log = pods.logs(&name, &LogParams::default()).await?;
        ensure!(log == "65532\nthe answer is 42\n", "the log is {log:?}");
        Ok(())
    })
}

#[test]
fn a_pod_reaches_a_service_and_the_api_server_by_name() -> Result<()> {
    let cluster = Cluster::node()?;
    cluster.block_on(async {
        let image = push_visitor(cluster).await?;
        let namespace = cluster.namespace("names").await?;
        let mut server = shell(&image, "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp");
        server["readinessProbe"] = json!({"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1});
        let _: Pod = create(cluster, &namespace, pod("web", &server, &json!({}))).await?;
        let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
        let service: Service = create(cluster, &namespace, service).await?;
        let script = "substratus-cluster fetch http://web/index.html
            nslookup kubernetes.default.svc.cluster.local";
        let _: Pod = create(cluster, &namespace, pod("visitor", &shell(&image, script), &json!({}))).await?;
        let log = finished(cluster, &namespace, "visitor", "Succeeded").await?;
        ensure!(log.starts_with("hello\n") && log.contains(layout::FIRST_SERVICE), "the log is {log:?}");

        // From the node too: that is where an operator process of a test stands.
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let page = client.get(format!("http://{address}/index.html")).send().await?.text().await?;
        ensure!(page == "hello\n", "the page is {page:?}");
        Ok(())
    })
}

#[test]
fn a_pod_over_its_memory_limit_is_killed() -> Result<()> {
    let cluster = Cluster::node()?;
    cluster.block_on(async {
        let image = push_visitor(cluster).await?;
        let namespace = cluster.namespace("memory").await?;
        let mut greedy = shell(&image, "exec tail /dev/zero");
        greedy["resources"] = json!({"limits": {"memory": "32Mi"}});
        let _: Pod = create(cluster, &namespace, pod("greedy", &greedy, &json!({}))).await?;
        finished(cluster, &namespace, "greedy", "Failed").await?;
        let made = Api::<Pod>::namespaced(cluster.client(), &namespace).get("greedy").await?;
        let containers = made.status.and_then(|status| status.container_statuses).unwrap_or_default();
        let reason =
            containers.first().and_then(|one| one.state.as_ref()?.terminated.as_ref()?.reason.clone()).unwrap_or_default();
        ensure!(reason == "OOMKilled", "the reason is {reason:?}");
        Ok(())
    })
}

#[test]
fn a_pod_with_four_gpus_is_placed_by_label() -> Result<()> {
    const LABEL: &str = "cloud.google.com/gke-accelerator";
    let cluster = Cluster::node()?;
    cluster.block_on(async {
        let image = push_visitor(cluster).await?;
        cluster.advertise_gpus(4, &[(LABEL, "nvidia-l4")]).await?;
        let namespace = cluster.namespace("gpus").await?;
        let mut wants = shell(&image, "echo placed");
        wants["resources"] = json!({"limits": {"nvidia.com/gpu": "4"}});
        let here = json!({"nodeSelector": {LABEL: "nvidia-l4"}});
        let _: Pod = create(cluster, &namespace, pod("four", &wants.clone(), &here)).await?;
        ensure!(finished(cluster, &namespace, "four", "Succeeded").await? == "placed\n");

        let elsewhere = json!({"nodeSelector": {LABEL: "nvidia-a100-80gb"}});
        let _: Pod = create(cluster, &namespace, pod("wrong", &wants, &elsewhere)).await?;
        let pods = Api::<Pod>::namespaced(cluster.client(), &namespace);
        eventually("wrong pod to be refused", LIMIT, async || {
            let conditions = pods.get("wrong").await?.status.and_then(|status| status.conditions).unwrap_or_default();
            Ok(conditions.iter().any(|one| one.reason.as_deref() == Some("Unschedulable")).then_some(()))
        })
        .await
    })
}
