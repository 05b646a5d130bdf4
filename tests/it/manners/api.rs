//! The definitions, the roles and the token checks before a real API server, as the operator's own account.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use substratus::leader::{self, Timing};
use substratus::store::{AUDIENCE, Caller, Denied, KubeReviewer, Reviewer as _, Role, WORKER_ACCOUNTS};
use substratus_crds::{Model, Notebook, Plugin, Server};
use substratus_tests::cluster::Cluster;
use substratus_tests::install;
use tokio::sync::OnceCell;

/// One of the accounts of workers.
const WORKER_ACCOUNT: &str = WORKER_ACCOUNTS[0];

pub(super) async fn installed(cluster: &Cluster) -> Result<()> {
    static ONCE: OnceCell<()> = OnceCell::const_new();
    let install = async || install::apply(&cluster.client(), &install::objects(&install::deploy("base"))?).await;
    ONCE.get_or_try_init(install).await?;
    Ok(())
}

pub(super) async fn token(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    audience: Option<&str>,
    pod: Option<&Pod>,
) -> Result<String> {
    let bound_object_ref = pod.map(|pod| BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    });
    let audiences = audience.map(str::to_owned).into_iter().collect();
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences, bound_object_ref, expiration_seconds: None },
        ..TokenRequest::default()
    };
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), namespace);
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a token request without token")?.token)
}

/// A client with the rights of the operator's account and no others.
async fn operator(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig())?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    config.auth_info = kube::config::AuthInfo {
        token: Some(token(cluster, "substratus", "substratus", None, None).await?.into()),
        ..kube::config::AuthInfo::default()
    };
    Ok(Client::try_from(config)?)
}

fn code<T>(result: kube::Result<T>) -> Result<u16> {
    match result {
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(200),
    }
}

#[test]
fn definitions_default_and_refuse_as_promised() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        installed(cluster).await?;
        let namespace = cluster.namespace("manners").await?;
        let models = Api::<Model>::namespaced(cluster.client(), &namespace);
        let create = async |document: serde_json::Value| -> Result<u16> {
            code(cluster_create(cluster, &namespace, document).await)
        };
        let model = |name: &str, spec: serde_json::Value| json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": name}, "spec": spec});

        ensure!(create(json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "metadata": {"name": "empty"}})).await? == 200);
        ensure!(create(model("full", json!({"image": "i", "resources": {}, "params": {"a": 1, "b": "x"}, "env": {"K": "v"}, "build": {}}))).await? == 200);
        let resources = models.get("full").await?.spec.resources.context("resources are kept")?;
        ensure!((resources.cpu, resources.memory, resources.disk) == (2, 10, 10), "{resources:?}");
        for (why, spec) in [
            ("a fraction", json!({"params": {"a": 1.5}})),
            ("a boolean", json!({"params": {"a": true}})),
            ("no url", json!({"build": {"git": {}}})),
            ("no md5", json!({"build": {"upload": {"md5Checksum": "x", "requestID": "r"}}})),
            ("no name", json!({"model": {}})),
        ] {
            ensure!(create(model("wrong", spec)).await? == 422, "{why} was taken");
        }
        ensure!(create(model(&"m".repeat(50), json!({}))).await? == 200);
        ensure!(create(model(&"m".repeat(51), json!({}))).await? == 422);
        let server = |name: &str| json!({"apiVersion": "substratus.ai/v1", "kind": "Server", "metadata": {"name": name}, "spec": {"model": {"name": "opt"}}});
        for (name, expected) in [("opt", 200), ("a.b", 422), ("7b", 422), (&*"s".repeat(50), 422), (&*"s".repeat(49), 200)] {
            ensure!(create(server(name)).await? == expected, "{name}");
        }
        // A rule that binds new objects only lets everything else about an object change.
        let long = "m".repeat(50);
        let status = Patch::Merge(json!({"status": {"conditions": []}}));
        let answered = models.patch_status(&long, &PatchParams::default(), &status).await?;
        ensure!(answered.status.is_some_and(|status| !status.ready));
        Api::<Server>::namespaced(cluster.client(), &namespace).delete("opt", &DeleteParams::default()).await?;
        Ok(())
    })
}

async fn cluster_create(cluster: &Cluster, namespace: &str, document: serde_json::Value) -> kube::Result<()> {
    let object: kube::api::DynamicObject = serde_json::from_value(document).map_err(kube::Error::SerdeError)?;
    let kind = object.types.as_ref().map(|types| types.kind.clone()).unwrap_or_default();
    let resource = kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("substratus.ai", "v1", &kind));
    let api = Api::<kube::api::DynamicObject>::namespaced_with(cluster.client(), namespace, &resource);
    api.create(&PostParams::default(), &object).await.map(|_| ())
}

#[test]
fn the_operators_account_can_do_its_work_and_nothing_else() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        installed(cluster).await?;
        let namespace = cluster.namespace("rights").await?;
        let client = operator(cluster).await?;
        let models = Api::<Model>::namespaced(client.clone(), &namespace);
        ensure!(code(models.list(&ListParams::default()).await)? == 200);
        let mut model = Model::new("opt", substratus_crds::ModelSpec::default());
        ensure!(code(models.create(&PostParams::default(), &model).await)? == 403, "specs belong to users");
        let secrets = Api::<Secret>::namespaced(client.clone(), "substratus");
        ensure!(code(secrets.get("pull").await)? == 404, "a pull secret may be read");
        ensure!(code(secrets.list(&ListParams::default()).await)? == 403);
        ensure!(code(Api::<Secret>::namespaced(client.clone(), &namespace).get("hf").await)? == 403);
        let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
        ensure!(code(pods.delete("any", &DeleteParams::default()).await)? == 404, "a Notebook's pod may be deleted");
        let token = Secret {
            metadata: ObjectMeta { name: Some("nb-notebook-token".to_owned()), ..ObjectMeta::default() },
            ..Secret::default()
        };
        let tokens = Api::<Secret>::namespaced(client.clone(), &namespace);
        ensure!(code(tokens.create(&PostParams::default(), &token).await)? == 200, "a token may be made");
        ensure!(code(tokens.get("nb-notebook-token").await)? == 403, "and never be read");
        ensure!(code(tokens.delete("nb-notebook-token", &DeleteParams::default()).await)? == 403);
        let notebooks = Api::<Notebook>::namespaced(client.clone(), &namespace);
        let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
        ensure!(code(notebooks.patch("lab", &PatchParams::default(), &suspend).await)? == 404, "a Notebook may be suspended");
        let image = Patch::Merge(json!({"spec": {"image": "i"}}));
        ensure!(code(models.patch("opt", &PatchParams::default(), &image).await)? == 404, "an image that was built may be named");
        let plugins = Api::<Plugin>::all(client.clone());
        ensure!(code(plugins.patch("any", &PatchParams::default(), &image).await)? == 403, "and nothing else be written");
        ensure!(code(models.delete("opt", &DeleteParams::default()).await)? == 403, "nor deleted");
        // The calls that `apply` and `status` make: server-side apply of a new child, and of a status.
        let account = ServiceAccount {
            metadata: ObjectMeta { name: Some(WORKER_ACCOUNT.to_owned()), ..ObjectMeta::default() },
            ..ServiceAccount::default()
        };
        let apply = PatchParams::apply("model-controller").force();
        ensure!(
            code(
                Api::<ServiceAccount>::namespaced(client.clone(), &namespace)
                    .patch(WORKER_ACCOUNT, &apply, &Patch::Apply(&account))
                    .await
            )? == 200
        );
        model = Api::<Model>::namespaced(cluster.client(), &namespace).create(&PostParams::default(), &model).await?;
        let status = json!({"apiVersion": "substratus.ai/v1", "kind": "Model", "status": {"ready": true}});
        ensure!(code(models.patch_status(&model.name_any(), &apply, &Patch::Apply(status)).await)? == 200);
        Ok(())
    })
}

#[test]
fn leadership_passes_on_at_once_with_the_operators_rights() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        installed(cluster).await?;
        let client = operator(cluster).await?;
        let lead = async |identity: &str| {
            let turn = leader::acquire(client.clone(), identity, "substratus", "substratus", Timing::default());
            tokio::time::timeout(Duration::from_secs(10), turn).await.with_context(|| format!("{identity} waits for its turn"))
        };
        let first = lead("first").await?;
        tokio::time::sleep(Timing::default().retry * 2).await;
        first.release().await?;
        let started = Instant::now();
        let second = lead("second").await?;
        ensure!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
        let lease = Api::<Lease>::namespaced(cluster.client(), "substratus").get("substratus").await?;
        ensure!(lease.spec.and_then(|spec| spec.holder_identity).as_deref() == Some("second"));
        Ok(second.release().await?)
    })
}

#[test]
fn a_worker_is_known_by_the_token_of_its_pod() -> Result<()> {
    let cluster = Cluster::api()?;
    cluster.block_on(async {
        installed(cluster).await?;
        let namespace = cluster.namespace("tokens").await?;
        let reviewer = KubeReviewer::new(operator(cluster).await?);
        let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), &namespace);
        let mut pods = Vec::new();
        for account in [WORKER_ACCOUNT, "model-server"] {
            let wanted = ServiceAccount {
                metadata: ObjectMeta { name: Some(account.to_owned()), ..ObjectMeta::default() },
                ..ServiceAccount::default()
            };
            accounts.create(&PostParams::default(), &wanted).await?;
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": format!("opt-{account}")},
                "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]},
            }))?;
            pods.push(Api::<Pod>::namespaced(cluster.client(), &namespace).create(&PostParams::default(), &pod).await?);
        }
        let [worker, server] = pods.as_slice() else { bail!("two pods") };
        let good = token(cluster, &namespace, WORKER_ACCOUNT, Some(AUDIENCE), Some(worker)).await?;
        let uid = worker.uid().context("a pod without UID")?;
        let pod = "opt-modeller".to_owned();
        ensure!(reviewer.review(&good).await? == Caller { role: Role::Worker, namespace: namespace.clone(), pod, uid });
        let everyday = token(cluster, &namespace, WORKER_ACCOUNT, None, Some(worker)).await?;
        ensure!(
            reviewer.review(&everyday).await == Err(Denied::NotAuthenticated),
            "a token for the API server is worth nothing here"
        );
        let podless = token(cluster, &namespace, WORKER_ACCOUNT, Some(AUDIENCE), None).await?;
        ensure!(reviewer.review(&podless).await == Err(Denied::NotACaller));
        let other = token(cluster, &namespace, "model-server", Some(AUDIENCE), Some(server)).await?;
        ensure!(reviewer.review(&other).await == Err(Denied::NotACaller));
        let mut forged = good.clone();
        forged.replace_range(good.len() - 8.., "AAAAAAAA");
        ensure!(reviewer.review(&forged).await == Err(Denied::NotAuthenticated));
        // The token ends with its pod.
        let now = DeleteParams::default().grace_period(0);
        Api::<Pod>::namespaced(cluster.client(), &namespace).delete("opt-modeller", &now).await?;
        let after = async || Ok((reviewer.review(&good).await == Err(Denied::NotAuthenticated)).then_some(()));
        substratus_tests::cluster::eventually("end of a token", Duration::from_secs(30), after).await
    })
}
