//! A cluster whose artifacts lie in a bucket of a real S3 server: loaded into, imported into, trained from, served from and worked
//! in, with no folder of the node, in pods that Pod Security `restricted` lets in. A publisher is killed, and nothing counts.
#![expect(clippy::indexing_slicing, reason = "what JSON does not have is null")]

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use substratus_crds::{ArtifactStatus, ModelStatus};
use substratus_tests::cluster::{Cluster, Mode, eventually, process};
use substratus_tests::s3::{BUCKET, Fault, Rule, S3, SECRET_KEY};
use substratus_tests::{image, platform};
use tokio::runtime::Handle;

use super::{LIMIT, Stage, notebook, question, start, tell};

/// How a user's image passes Pod Security `restricted`.
fn confined() -> Value {
    json!({"runAsUser": 1000, "runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}})
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "substratus.ai/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}

#[test]
fn artifacts_of_a_bucket_are_loaded_trained_served_and_worked_with() -> Result<()> {
    let cluster = Cluster::start(Mode::Node)?;
    let stage = start(&cluster)?;
    cluster.block_on(async {
        let began = Instant::now();
        let s3 = S3::start_at(cluster.node_address()?.parse()?, &Handle::current())?;
        let place = Place { stage: &stage, s3, namespace: namespace(&cluster, "restricted").await?, began };
        place.use_bucket()?;
        place.secret(&place.namespace)?;
        let image = image::busybox()?.build()?.push(cluster.registry()?, "substratus-tests/busybox", "1").await?;
        let image = format!("ghcr.io/substratus-tests/busybox@{image}");

        let base = place.loaded().await?;
        let rows = place.imported().await?;
        place.trained(&image, &base, &rows).await?;
        place.killed(&image).await?;
        place.served().await?;
        place.no_folder_of_the_node().await?;
        place.worked_in().await?;
        ensure!(place.s3.uploads()? == 0, "an upload in parts was left unfinished");
        Ok(())
    })
}

async fn namespace(cluster: &Cluster, level: &str) -> Result<String> {
    let namespace = cluster.namespace("s3").await?;
    let label = format!("pod-security.kubernetes.io/enforce={level}");
    platform::kubectl(cluster, &["label", "namespace", &namespace, &label, "--overwrite"])?;
    Ok(namespace)
}

struct Place<'a> {
    stage: &'a Stage<'a>,
    s3: S3,
    namespace: String,
    began: Instant,
}

impl Place<'_> {
    fn apply(&self, text: &str) -> Result<()> {
        platform::apply_text(self.stage.cluster, &self.namespace, text)?;
        Ok(())
    }

    fn use_bucket(&self) -> Result<()> {
        let cluster = self.stage.cluster;
        let bucket = format!("ARTIFACT_BUCKET_URL=s3://{BUCKET}/substratus");
        let deployment = ["deployment/substratus", "--namespace", platform::NAMESPACE];
        platform::kubectl(cluster, &[&["set", "env"], &deployment[..], &[bucket.as_str(), "BUCKET_SECRET=bucket"]].concat())?;
        platform::kubectl(cluster, &[&["rollout", "status"], &deployment[..], &["--timeout=120s"]].concat())?;
        tell("s3", self.began, "the operator uses the bucket");
        Ok(())
    }

    fn secret(&self, namespace: &str) -> Result<()> {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket"}, "stringData": self.s3.env()});
        platform::apply_text(self.stage.cluster, namespace, &secret.to_string())?;
        Ok(())
    }

    /// The prefix of an artifact's objects, and their names.
    fn objects(&self, status: &ArtifactStatus) -> Result<(String, Vec<String>)> {
        let url = status.artifacts.as_ref().and_then(|artifacts| artifacts.url.as_deref()).context("no URL")?;
        let prefix = url.strip_prefix(&format!("s3://{BUCKET}/")).with_context(|| format!("{url} is not in the bucket"))?;
        Ok((prefix.to_owned(), self.s3.objects(prefix)?.into_keys().collect()))
    }

    fn file(&self, prefix: &str, name: &str) -> Result<Vec<u8>> {
        let object = self.s3.object(&format!("{prefix}/artifacts/{name}"));
        std::fs::read(&object).with_context(|| format!("no object {}", object.display()))
    }

    fn text(&self, prefix: &str, name: &str) -> Result<String> {
        Ok(String::from_utf8(self.file(prefix, name)?)?)
    }

    /// The first file of an artifact.
    fn first(&self, prefix: &str, names: &[String]) -> Result<Vec<u8>> {
        let file = names.iter().find_map(|name| name.trim_start_matches('/').strip_prefix("artifacts/"));
        self.file(prefix, file.with_context(|| format!("no file among {names:?}"))?)
    }

    async fn model(&self, name: &str) -> Result<ModelStatus> {
        let status = self.stage.model(&self.namespace, name, "to be ready", |status| status.ready).await?;
        tell("s3", self.began, &format!("Model {name} is ready"));
        Ok(status)
    }

    async fn loaded(&self) -> Result<Vec<u8>> {
        self.apply(&object("Model", "base", &json!({"source": format!("hf://{}", platform::TINY)})))?;
        let status = self.model("base").await?;
        let (prefix, names) = self.objects(&status)?;
        ensure!(names.iter().any(|name| name.ends_with(".substratus/manifest.json")), "no manifest among {names:?}");
        let source = status.source.context("nothing is known of it")?;
        ensure!(i64::try_from(names.len())? == source.files + 1, "{} files: {names:?}", source.files);
        self.first(&prefix, &names)
    }

    async fn imported(&self) -> Result<Vec<u8>> {
        let hub = &self.stage.platform.hub;
        let hosts = [hub.url.as_str(), hub.cdn_url.as_str()];
        platform::point_importer(self.stage.cluster, "importer-huggingface", json!({"endpoint": hub.url}), &hosts).await?;
        self.apply(&object("Dataset", "rows", &json!({"source": "hf://datasets/acme/tables", "parallelism": 2})))?;
        let status = self.stage.dataset(&self.namespace, "rows", "to be ready", |status| status.ready).await?;
        tell("s3", self.began, "Dataset rows is ready");
        let (prefix, names) = self.objects(&status)?;
        let rows = status.source.and_then(|source| source.rows).context("no word of rows")?;
        ensure!(rows == 80_000 && names.len() > 1, "{rows} rows: {names:?}");
        self.first(&prefix, &names)
    }

    /// A container that reads both and writes what it read, as a user of its own and readable to that user alone.
    async fn trained(&self, image: &str, base: &[u8], rows: &[u8]) -> Result<()> {
        let script = "umask 077; mkdir /content/artifacts/sub && cat $(find /content/model -type f | sort | head -n 1) > /content/artifacts/sub/model \
            && cat $(find /content/data -type f | sort | head -n 1) > /content/artifacts/rows \
            && cat /content/params.json > /content/artifacts/params && env > /content/artifacts/env";
        let spec = json!({"image": image, "command": ["sh", "-c", script], "params": {"epochs": 3}, "model": {"name": "base"},
            "dataset": {"name": "rows"}, "securityContext": confined()});
        // The bucket is down for a moment: no failure of the training's, which has no try to lose.
        self.s3.fault(Rule { method: "GET", part: "list-type=2", fault: Fault::Answer(503, "SlowDown"), times: 8 });
        self.apply(&object("Model", "tuned", &spec))?;
        let status = self.model("tuned").await?;
        let (prefix, names) = self.objects(&status)?;
        ensure!(self.file(&prefix, "sub/model")? == base && self.file(&prefix, "rows")? == rows, "{names:?}");
        ensure!(self.text(&prefix, "params")? == "{\n  \"epochs\": 3\n}", "{names:?}");
        ensure!(!self.text(&prefix, "env")?.contains(SECRET_KEY), "the user's image has the bucket's credentials");
        let source = status.source.context("nothing is known of it")?;
        ensure!(source.files == 4 && source.bytes > i64::try_from(rows.len())?, "{source:?}");
        Ok(())
    }

    /// The publisher is killed in the middle of its work: nothing is taken for complete, and it runs again.
    async fn killed(&self, image: &str) -> Result<()> {
        let script = "dd if=/dev/zero of=/content/artifacts/weights bs=1M count=384";
        let spec = json!({"image": image, "command": ["sh", "-c", script], "securityContext": confined()});
        self.apply(&object("Model", "killed", &spec))?;
        let named = |status: &ModelStatus| status.artifacts.is_some();
        let (prefix, _) = self.objects(&self.stage.model(&self.namespace, "killed", "to have a place", named).await?)?;
        let to = format!("--to=s3://{BUCKET}/{prefix}");
        let part = format!("PUT /{BUCKET}/{prefix}/artifacts/weights");
        eventually("an upload", LIMIT, async || {
            Ok(self.s3.requests().iter().any(|request| request.starts_with(&part)).then_some(()))
        })
        .await?;
        let publisher = process::all()?.into_iter().find(|(_, words)| words.iter().any(|word| word.as_os_str() == to.as_str()));
        let (pid, _) = publisher.context("no publisher runs")?;
        kill_process(Pid::from_raw(pid).context("no process")?, Signal::KILL)?;
        tell("s3", self.began, "its publisher is killed");
        let (_, left) = self.objects(&self.stage.model(&self.namespace, "killed", "to be known", |_| true).await?)?;
        ensure!(!left.iter().any(|name| name.ends_with("manifest.json")), "half an artifact counts: {left:?}");
        let status = self.model("killed").await?;
        let attempt = status.plan.as_ref().map(|plan| plan.attempt);
        ensure!(attempt.is_some_and(|attempt| attempt > 0), "it did not run again: {attempt:?}");
        let size = self.s3.object(&format!("{prefix}/artifacts/weights")).metadata()?.len();
        ensure!(size == 384 << 20, "{size} bytes are in the bucket");
        Ok(())
    }

    async fn served(&self) -> Result<()> {
        self.apply(&object("Server", "base", &json!({"model": {"name": "base"}, "securityContext": confined(), "replicas": 2})))?;
        self.stage.server(&self.namespace, "base", "to be ready", |status| status.ready).await?;
        let answer = self.stage.complete(&self.namespace, "base", &question()).await?;
        tell("s3", self.began, &format!("Server base says {}", answer["choices"][0]["text"]));
        ensure!(answer["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        Ok(())
    }

    async fn no_folder_of_the_node(&self) -> Result<()> {
        let pods = self.stage.pods(&self.namespace, "role=run").await?;
        ensure!(!pods.is_empty(), "no pod is left to look at");
        let volumes = pods.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| spec.volumes.iter().flatten());
        let folders: Vec<_> = volumes.filter(|volume| volume.host_path.is_some()).collect();
        ensure!(folders.is_empty(), "{folders:?}");
        Ok(())
    }

    /// A Notebook's work is published when it is suspended, and there again when it is resumed. Its image is root's.
    async fn worked_in(&self) -> Result<()> {
        let cluster = self.stage.cluster;
        platform::publish_notebook(cluster).await?;
        let namespace = namespace(cluster, "baseline").await?;
        self.secret(&namespace)?;
        platform::apply_text(cluster, &namespace, &object("Notebook", "lab", &json!({"suspend": true})))?;
        notebook::work_survives(cluster, &namespace, self.began, async |_| Ok(())).await?;
        tell("s3", self.began, "a Notebook's work survived");
        Ok(())
    }
}
