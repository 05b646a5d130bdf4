//! Images from source on a real node: a real git server, a real `BuildKit` without root, a real registry, and pods that run what came
//! of it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use substratus_crds::{ArtifactStatus, Dataset, Notebook};
use substratus_tests::cluster::eventually;
use substratus_tests::git::{GitServer, SshServer};
use substratus_tests::seeds::{self, Chance};
use substratus_tests::{image, platform};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use super::chaos::kill;
use super::{LIMIT, Stage, client, condition, folder, stage, tell};

const USER: &str = "builder";
const PASSWORD: &str = "s3cret-of-the-repository";
/// What stands in git for a large file.
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

/// The base of all images here, pushed once; beside it the builder's own image.
async fn base(stage: &Stage<'_>) -> Result<String> {
    static BASE: OnceCell<String> = OnceCell::const_new();
    let push = async || {
        platform::publish_builder(stage.cluster).await?;
        let registry = stage.cluster.registry()?;
        let digest = image::busybox()?.build()?.push(registry, "substratus-tests/busybox", "1").await?;
        anyhow::Ok(format!("{registry}/substratus-tests/busybox@{digest}"))
    };
    BASE.get_or_try_init(push).await.cloned()
}

fn git(stage: &Stage<'_>) -> Result<GitServer> {
    GitServer::start(free(stage)?, (USER, PASSWORD), &Handle::current())
}

/// A free port that pods reach.
fn free(stage: &Stage<'_>) -> Result<SocketAddr> {
    let address: IpAddr = stage.cluster.node_address()?.parse().context("reading the node's address")?;
    Ok(SocketAddr::new(address, 0))
}

fn apply(stage: &Stage<'_>, namespace: &str, kind: &str, name: &str, spec: &Value) -> Result<()> {
    let object = json!({"apiVersion": "substratus.ai/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    platform::apply_text(stage.cluster, namespace, &object.to_string()).map(drop)
}

fn secret(stage: &Stage<'_>, namespace: &str, name: &str, password: &str) -> Result<()> {
    let data = json!({"username": USER, "password": password});
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
    platform::apply_text(stage.cluster, namespace, &object.to_string()).map(drop)
}

fn importer(base: &str) -> String {
    format!(
        "FROM {base}\nRUN mkdir /app && echo made as root > /app/made\nCOPY rows.jsonl /app/\n\
         ENTRYPOINT [\"sh\", \"-c\", \"cat /app/rows.jsonl > /content/artifacts/rows.jsonl\"]\n"
    )
}

fn rows(status: &ArtifactStatus) -> Result<String> {
    Ok(fs::read_to_string(folder(status)?.join("artifacts/rows.jsonl"))?)
}

fn digest(status: &ArtifactStatus) -> Option<&str> {
    status.build.as_ref()?.digest.as_deref()
}

#[test]
fn a_dataset_from_a_private_repository_is_built_imported_and_cached() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let (base, git) = (base(stage).await?, git(stage)?);
        tell("build", began, "builder image pushed");
        let namespace = cluster.namespace("build").await?;
        secret(stage, &namespace, "git", PASSWORD)?;
        let code = git.repository("private/code")?;
        let dockerfile = importer(&base);
        let first =
            code.commit("main", &[("importer/Dockerfile", dockerfile.as_str()), ("importer/rows.jsonl", "{\"n\": 1}\n")])?;
        let source = json!({"git": {"url": code.url, "branch": "main", "path": "importer", "secret": "git"}});
        apply(stage, &namespace, "Dataset", "rows", &json!({"build": source}))?;
        let status = stage.dataset(&namespace, "rows", "to be ready", |status| status.ready).await?;
        tell("build", began, "first image built, pushed and run");
        ensure!(rows(&status)? == "{\"n\": 1}\n", "{}", rows(&status)?);
        let build = status.build.clone().context("no word of the build")?;
        ensure!(build.commit.as_deref() == Some(first.as_str()), "{build:?}");
        let registry = cluster.registry()?;
        let name = format!("{registry}/built/substratus-dataset-{namespace}-rows:main");
        let datasets = Api::<Dataset>::namespaced(cluster.client(), &namespace);
        ensure!(
            datasets.get("rows").await?.spec.image.as_deref() == Some(name.as_str()),
            "{:?}",
            datasets.get("rows").await?.spec
        );
        let pods = stage.pods(&namespace, "role=run,dataset=rows").await?;
        let runs = pods.iter().find_map(|pod| pod.spec.as_ref()?.containers.first()?.image.clone());
        ensure!(runs == build.digest.as_ref().map(|digest| format!("{name}@{digest}")), "{runs:?}");

        // Another commit of the same files is the same image, and nothing is imported again.
        let second = code.commit("main", &[("README", "not part of the context")])?;
        let again = Instant::now();
        rebuild(stage, &namespace, "rows", "1")?;
        let is_of =
            |status: &ArtifactStatus, commit: &str| status.build.as_ref().is_some_and(|b| b.commit.as_deref() == Some(commit));
        let cached = stage.dataset(&namespace, "rows", "to be built again", |status| is_of(status, &second)).await?;
        tell("build", again, "cached image built");
        ensure!(digest(&cached) == digest(&status), "what did not change is another image: {cached:?}");
        ensure!(cached.ready && cached.artifacts == status.artifacts, "it was imported again: {cached:?}");

        // Other rows are another image, and another import.
        let third = code.commit("main", &[("importer/rows.jsonl", "{\"n\": 2}\n")])?;
        rebuild(stage, &namespace, "rows", "2")?;
        let changed = |status: &ArtifactStatus| is_of(status, &third) && status.ready && status.artifacts != cached.artifacts;
        let changed = stage.dataset(&namespace, "rows", "to be imported again", changed).await?;
        tell("build", began, "changed image run");
        ensure!(rows(&changed)? == "{\"n\": 2}\n" && digest(&changed) != digest(&cached), "{changed:?}");
        let everything = ["get", "dataset,job,pod,configmap,event", "--namespace", &namespace, "--output", "yaml"];
        ensure!(!platform::kubectl(cluster, &everything)?.contains(PASSWORD), "the password shows in an object");
        Ok(())
    })
}

fn rebuild(stage: &Stage<'_>, namespace: &str, name: &str, token: &str) -> Result<()> {
    let value = format!("substratus.ai/rebuild={token}");
    platform::kubectl(stage.cluster, &["annotate", "dataset", name, &value, "--overwrite", "--namespace", namespace]).map(drop)
}

#[test]
fn failures_of_builds_are_told_apart() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let (base, git) = (base(stage).await?, git(stage)?);
        let namespace = cluster.namespace("failing").await?;
        secret(stage, &namespace, "wrong", "not it")?;
        let (open, private) = (git.repository("code")?, git.repository("private/code")?);
        let failing = format!("FROM {base}\nRUN echo the rows have no prompt && exit 3\n");
        let gone = format!("FROM {}/none/such:1\n", cluster.registry()?);
        open.commit(
            "main",
            &[
                ("failing/Dockerfile", failing.as_str()),
                ("gone/Dockerfile", gone.as_str()),
                ("typo/Dockerfile", "FORM x\n"),
                ("empty/README", ""),
            ],
        )?;
        private.commit("main", &[("Dockerfile", failing.as_str())])?;
        let from = |url: &str, more: Value| {
            let mut git = json!({"url": url});
            for (key, value) in more.as_object().into_iter().flatten() {
                git[key] = value.clone();
            }
            json!({"build": {"git": git}})
        };
        let nowhere = format!("{}/none.git", git.url);
        let ssh = SshServer::start(free(stage)?)?;
        // It may be anybody.
        let data = json!({"ssh-privatekey": ssh.key});
        let key = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": data});
        platform::apply_text(cluster, &namespace, &key.to_string())?;
        let cases: [(&str, Value, &str, &[&str]); 10] = [
            ("stranger", from(&ssh.url(&open), json!({"secret": "key"})), "CloneDenied", &["Host key verification failed"]),
            ("branch", from(&open.url, json!({"branch": "none"})), "RefNotFound", &["branch none"]),
            ("commit", from(&open.url, json!({"commit": "0123456789".repeat(4)})), "RefNotFound", &["0123456789"]),
            ("closed", from(&private.url, json!({})), "CloneDenied", &["spec.build.git.secret"]),
            ("wrong", from(&private.url, json!({"secret": "wrong"})), "CloneDenied", &["spec.build.git.secret does not open it"]),
            ("nowhere", from(&nowhere, json!({})), "CloneFailed", &["none.git"]),
            ("empty", from(&open.url, json!({"path": "empty"})), "NoDockerfile", &["`empty`"]),
            (
                "failing",
                from(&open.url, json!({"path": "failing"})),
                "BuildFailed",
                &["Dockerfile:2: RUN echo", "the rows have no prompt"],
            ),
            ("typo", from(&open.url, json!({"path": "typo"})), "BuildFailed", &["Dockerfile:1: FORM x", "unknown instruction"]),
            ("gone", from(&open.url, json!({"path": "gone"})), "BuildFailed", &["Dockerfile:1: FROM", "not found"]),
        ];
        for (name, spec, ..) in &cases {
            apply(stage, &namespace, "Dataset", name, spec)?;
        }
        for (name, _, reason, words) in &cases {
            let failed = |status: &ArtifactStatus| condition(&status.conditions, "Built").0 == *reason;
            let status = stage.dataset(&namespace, name, &format!("to say {reason}"), failed).await?;
            let (_, message) = condition(&status.conditions, "Built");
            tell("build", began, &format!("{name}: {message}"));
            ensure!(words.iter().all(|word| message.contains(word)), "{name}: {message}");
            ensure!(!message.contains("not it"), "the password is told: {message}");
            ensure!(message.contains("substratus.ai/rebuild="), "{name}: {message}");
        }
        Ok(())
    })
}

#[test]
fn code_trains_serves_and_is_a_notebook() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let (base, git, ssh) = (base(stage).await?, git(stage)?, SshServer::start(free(stage)?)?);
        let namespace = cluster.namespace("code").await?;
        let (code, part) = (git.repository("code")?, git.repository("part")?);
        let words = part.commit("main", &[("api", "{\"version\": \"of the submodule\"}\n")])?;
        let trainer = format!(
            "FROM {base}\nCOPY weights.bin /\n\
             ENTRYPOINT [\"sh\", \"-c\", \"cat /content/params.json /weights.bin > /content/artifacts/index.html\"]\n"
        );
        // What is in Git LFS stays a pointer: it is data, and no part of an image.
        let large = (".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
        code.commit("main", &[("Dockerfile", trainer.as_str()), large, ("weights.bin", POINTER)])?;
        code.tag("v1")?;
        let httpd = format!("FROM {base}\nENTRYPOINT [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/content/model\"]\n");
        let commit = code.commit("main", &[("Dockerfile", httpd.as_str())])?;
        let notebook = format!("FROM {base}\nCOPY part/api /www/api\n");
        code.commit("lab", &[("Dockerfile", notebook.as_str())])?;
        code.submodule("lab", &part.url, "part", &words)?;
        // What the branch has now is not what was asked for.
        code.commit("main", &[("Dockerfile", "FROM nowhere\n")])?;

        let source = |more: Value| {
            let mut git = more;
            git["url"] = json!(code.url);
            json!({"git": git})
        };
        let params = json!({"greeting": "hello"});
        apply(
            stage,
            &namespace,
            "Model",
            "own",
            &json!({"build": source(json!({"tag": "v1", "branch": "main"})), "params": params}),
        )?;
        let served = json!({"build": source(json!({"commit": commit, "branch": "main"})), "model": {"name": "own"}});
        apply(stage, &namespace, "Server", "own", &served)?;
        let data = json!({"ssh-privatekey": ssh.key, "known_hosts": ssh.known_hosts});
        let key = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": data});
        platform::apply_text(cluster, &namespace, &key.to_string())?;
        let git = json!({"url": ssh.url(&code), "branch": "lab", "submodules": true, "depth": 0, "secret": "key"});
        let lab = json!({"build": {"git": git},
            "command": ["httpd", "-f", "-p", "8888", "-h", "/www"]});
        apply(stage, &namespace, "Notebook", "own", &lab)?;

        let model = stage.model(&namespace, "own", "to be ready", |status| status.ready).await?;
        tell("build", began, "Model trained");
        let built = model.build.clone().and_then(|build| build.image).unwrap_or_default();
        ensure!(built.ends_with("-own:v1"), "{built}");
        stage.server(&namespace, "own", "to be ready", |status| status.ready).await?;
        tell("build", began, "Server ready");
        let (client, url) = (client()?, stage.url(&namespace, "own").await?);
        let page = eventually("page", LIMIT, async || Ok(Some(client.get(&url).send().await?.text().await?))).await?;
        ensure!(page.contains("\"greeting\": \"hello\"") && page.ends_with(POINTER), "the page is {page:?}");
        let notebooks = Api::<Notebook>::namespaced(cluster.client(), &namespace);
        let ready = eventually("Notebook own to be ready", LIMIT, async || {
            let status = notebooks.get("own").await?.status.context("no status yet")?;
            ensure!(status.ready, "its status is {}", serde_json::to_string(&status)?);
            Ok(Some(()))
        })
        .await;
        stage.explained(&namespace, ready).await?;
        tell("build", began, "Notebook ready");
        platform::kubectl(cluster, &["delete", "server,notebook", "--all", "--namespace", &namespace])?;
        Ok(())
    })
}

#[test]
fn what_a_laptop_sends_is_built_and_runs() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let began = Instant::now();
        let base = base(stage).await?;
        let namespace = cluster.namespace("upload").await?;
        let sources = tempfile::tempdir()?;
        fs::write(sources.path().join("Dockerfile"), importer(&base))?;
        fs::write(sources.path().join("rows.jsonl"), "{\"n\": 1}\n")?;
        apply(stage, &namespace, "Dataset", "rows", &json!({}))?;
        send(stage, &namespace, "rows", sources.path()).await?;
        let status = stage.dataset(&namespace, "rows", "to be ready", |status| status.ready).await?;
        tell("build", began, "upload built, pushed and run");
        ensure!(rows(&status)? == "{\"n\": 1}\n", "{}", rows(&status)?);

        // Another file is another image, from the steps of the first; a folder without a Dockerfile is none.
        fs::write(sources.path().join("rows.jsonl"), "{\"n\": 2}\n")?;
        send(stage, &namespace, "rows", sources.path()).await?;
        let changed = |now: &ArtifactStatus| now.ready && now.artifacts != status.artifacts;
        let changed = stage.dataset(&namespace, "rows", "to be imported again", changed).await?;
        ensure!(rows(&changed)? == "{\"n\": 2}\n" && digest(&changed) != digest(&status), "{changed:?}");
        tell("build", began, "changed upload run");
        fs::remove_file(sources.path().join("Dockerfile"))?;
        send(stage, &namespace, "rows", sources.path()).await?;
        let told = |status: &ArtifactStatus| condition(&status.conditions, "Built").0 == "NoDockerfile";
        let refused = stage.dataset(&namespace, "rows", "to say what is missing", told).await?;
        ensure!(refused.artifacts == changed.artifacts, "what is there is gone: {refused:?}");
        Ok(())
    })
}

/// Sends a folder as the example's script does, which needs nothing but a shell, curl and openssl.
async fn send(stage: &Stage<'_>, namespace: &str, name: &str, folder: &Path) -> Result<()> {
    let services = Api::<Service>::namespaced(stage.cluster.client(), platform::NAMESPACE);
    let service = services.get("substratus-store").await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip).context("the store has no address")?;
    let script = substratus_tests::guests::root().join("examples/from-source/upload.sh");
    let mut command = stage.cluster.command("sh");
    command.arg(script).args(["dataset", name]).arg(folder).arg(namespace);
    // A laptop reaches it by an Ingress and its name; here the name of the Service stands for that.
    command.env("CURL_OPTIONS", format!("--connect-to ::{address}:")).env("KUBECTL", stage.cluster.tool("kubectl")?);
    let output = command.output().context("run the client")?;
    ensure!(
        output.status.success(),
        "the client: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Seeds of a normal run; each takes most of a minute.
const FEW: u64 = 1;

#[test]
fn chaos_killed_builders_and_operators_build_the_same_in_the_end() -> Result<()> {
    let stage = stage()?;
    let cluster = stage.cluster;
    cluster.block_on(async {
        let (base, git) = (base(stage).await?, git(stage)?);
        let code = git.repository("code")?;
        let slow = importer(&base).replace("RUN mkdir", "RUN sleep 4\nRUN mkdir");
        let commit = code.commit("main", &[("Dockerfile", slow.as_str()), ("rows.jsonl", "{\"n\": 1}\n")])?;
        for seed in seeds::all(FEW)? {
            let began = Instant::now();
            let namespace = cluster.namespace("killed").await?;
            apply(stage, &namespace, "Dataset", "rows", &json!({"build": {"git": {"url": code.url}}}))?;
            kills(stage, &namespace, seed.begin(), began).await?;
            let status = stage.dataset(&namespace, "rows", "to be ready", |status| status.ready).await?;
            tell("build", began, "Dataset ready");
            ensure!(rows(&status)? == "{\"n\": 1}\n", "{}", rows(&status)?);
            ensure!(status.build.as_ref().is_some_and(|build| build.commit.as_ref() == Some(&commit)), "{status:?}");
            let jobs = Api::<Job>::namespaced(cluster.client(), &namespace).list(&ListParams::default()).await?;
            let names: Vec<_> = jobs.items.into_iter().filter_map(|job| job.metadata.name).collect();
            ensure!(names.len() == 2, "one that builds and one that imports: {names:?}");
        }
        Ok(())
    })
}

/// Kills a builder that builds, and perhaps operators and more.
async fn kills(stage: &Stage<'_>, namespace: &str, mut chance: Chance, began: Instant) -> Result<()> {
    running(stage, namespace).await?;
    for first in [true, false] {
        tokio::time::sleep(chance.pause(300..3000)).await;
        let (what, pods) = match chance.number(0..2) {
            1 if !first => ("operator", stage.pods(platform::NAMESPACE, "app.kubernetes.io/name=substratus").await?),
            _ => ("builder", stage.pods(namespace, "role=build,dataset=rows").await?),
        };
        let ids: Vec<String> = pods.into_iter().filter_map(|pod| pod.metadata.uid).collect();
        tell("build", began, &format!("{} {what} process(es) killed", kill(&ids)?));
    }
    Ok(())
}

/// The pod of the build, once its Dockerfile runs.
async fn running(stage: &Stage<'_>, namespace: &str) -> Result<String> {
    let found = eventually("a builder that builds", LIMIT, async || {
        let pods = stage.pods(namespace, "role=build,dataset=rows").await?;
        let running = pods.into_iter().find(|pod| {
            let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
            statuses.into_iter().any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()))
        });
        Ok(running.and_then(|pod| pod.metadata.name))
    })
    .await;
    stage.explained(namespace, found).await
}
