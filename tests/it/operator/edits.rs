//! Every edit of a field does what the field's description says, and no field is left out.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::build::build_ends;
use super::fixture::{BUILT, Fixture, loaded, on_cluster, spoken};

/// A field, a spec, and what the field becomes.
type Edit = (&'static str, Value, Value);

/// What the description says that an edit does, by field of the spec.
fn promises(kind: &str) -> Result<Vec<(String, String)>> {
    let crd = substratus_crds::crds().into_iter().find(|crd| crd.spec.names.kind == kind).context("no such kind")?;
    let crd = serde_json::to_value(crd)?;
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let promise = |(field, schema): (&String, &Value)| {
        let description = schema["description"].as_str()?;
        Some((field.clone(), description.get(description.find("An edit ")?..)?.to_owned()))
    };
    let fields = spec.as_object().context("no fields")?;
    let promises: Vec<_> = fields.iter().filter_map(promise).collect();
    ensure!(promises.len() == fields.len(), "a field of {kind} does not say what an edit does: {promises:?}");
    Ok(promises)
}

/// Pairs every field of the kind with its edit; `build` is for [`builds`].
fn paired(kind: &str, edits: Vec<Edit>) -> Result<Vec<(Edit, String)>> {
    paired_but(kind, edits, &[])
}

/// The same but for fields that somebody else edits.
fn paired_but(kind: &str, edits: Vec<Edit>, others: &[&str]) -> Result<Vec<(Edit, String)>> {
    let mut promises = promises(kind)?;
    let mut pairs = Vec::new();
    for edit in edits {
        let at = promises.iter().position(|(field, _)| field == edit.0).with_context(|| format!("{kind} has no {}", edit.0))?;
        pairs.push((edit, promises.swap_remove(at).1));
    }
    promises.retain(|(field, _)| field != "build" && !others.contains(&field.as_str()));
    ensure!(promises.is_empty(), "nobody edits {promises:?} of {kind}");
    Ok(pairs)
}

/// Edits of what every container has.
fn container(spec: &Value) -> Vec<Edit> {
    let edits = [
        ("image", json!("example.test/other")),
        ("command", json!(["run"])),
        ("args", json!(["--all"])),
        ("env", json!({"KEY": "value"})),
        ("params", json!({"n": 1})),
        ("resources", json!({"cpu": 1, "memory": 2})),
        ("imagePullSecrets", json!([{"name": "pull"}])),
        ("nodeSelector", json!({"disk": "fast"})),
        ("tolerations", json!([{"key": "spot", "operator": "Exists"}])),
        ("priorityClassName", json!("system-cluster-critical")),
        ("volumes", json!([{"name": "scratch", "mountPath": "/scratch", "emptyDir": {}}])),
        ("securityContext", json!({"runAsUser": 1000})),
    ];
    edits.into_iter().map(|(field, value)| (field, spec.clone(), value)).collect()
}

fn with(spec: &Value, field: &str, value: Value) -> Value {
    let mut spec = spec.clone();
    spec[field] = value;
    spec
}

fn name(field: &str, state: &str) -> String {
    format!("{}-{state}", field.to_lowercase())
}

async fn edit(fixture: &Fixture, kind: &str, name: &str, (field, _, value): &Edit) -> Result<Value> {
    fixture.merge(kind, name, json!({"spec": {*field: value}})).await?;
    spoken(fixture, kind, name, |_| true).await
}

/// Models and Datasets that others name.
async fn bases(fixture: &Fixture) -> Result<()> {
    for base in ["one", "two"] {
        fixture.create("Model", base, json!({"source": "hf://org/base"})).await?;
        fixture.load(base, 1).await?;
        fixture.create("Dataset", base, json!({"image": "i"})).await?;
        fixture.pod_ends(&format!("{base}-data-loader"), 0, &json!({})).await?;
        fixture.reason("Dataset", base, "Complete", "JobComplete").await?;
    }
    Ok(())
}

async fn uid(fixture: &Fixture, kind: &str, name: &str) -> Result<Value> {
    Ok(fixture.wait(kind, name, LIMIT, async |_| Ok(Some(()))).await?["metadata"]["uid"].clone())
}

/// Waits for another child of this name.
async fn replaced(fixture: &Fixture, kind: &str, name: &str, before: &Value) -> Result<Value> {
    fixture.wait(kind, name, LIMIT, async |child| Ok((child["metadata"]["uid"] != *before).then_some(()))).await
}

/// A run that is under way, and one that is complete.
async fn runs(fixture: &Fixture, kind: &str, job: &str, edits: Vec<Edit>) -> Result<()> {
    let pairs = paired_but(kind, edits, &["publish", "publishSecret"])?;
    for ((field, spec, _), _) in &pairs {
        fixture.create(kind, &name(field, "runs"), spec.clone()).await?;
        fixture.create(kind, &name(field, "done"), spec.clone()).await?;
    }
    for ((field, ..), _) in &pairs {
        let name = name(field, "done");
        let planned = fixture.wait(kind, &name, LIMIT, async |object| Ok(object["status"]["plan"].is_object().then_some(())));
        let planned = planned.await?;
        fixture.pod_ends(&format!("{name}{job}"), 0, &loaded(&planned, 1)).await?;
    }
    for (change @ (field, ..), promise) in &pairs {
        let told = || format!("{kind} {field}: {promise}");
        let runs = name(field, "runs");
        let child = format!("{runs}{job}");
        let before = uid(fixture, "Job", &child).await?;
        edit(fixture, kind, &runs, change).await?;
        if promise.starts_with("An edit counts for the next run.") {
            ensure!(uid(fixture, "Job", &child).await? == before, "{}", told());
        } else {
            replaced(fixture, "Job", &child, &before).await.with_context(told)?;
        }
        let done = name(field, "done");
        let whole = fixture.reason(kind, &done, "Complete", "JobComplete").await?["status"]["artifacts"].clone();
        let before = uid(fixture, "Job", &format!("{done}{job}")).await?;
        let after = edit(fixture, kind, &done, change).await?;
        ensure!(after["status"]["artifacts"] == whole, "what is whole stays in use: {}: {after}", told());
        let runs_again = promise.starts_with("An edit runs it again into a folder of its own;");
        ensure!((after["status"]["ready"] == true) != runs_again, "{}: {after}", told());
        if runs_again {
            fixture.drop_finished_pods(&format!("{done}{job}")).await?;
            let again = replaced(fixture, "Job", &format!("{done}{job}"), &before).await.with_context(told)?;
            ensure!(again["spec"].to_string().contains("/g2"), "a folder of its own: {}: {again}", told());
        } else {
            ensure!(uid(fixture, "Job", &format!("{done}{job}")).await? == before, "{}", told());
        }
    }
    Ok(())
}

/// A push that is under way, and one that is complete; the artifact is whole and stays ready.
async fn publishes(fixture: &Fixture, pairs: &[(Edit, String)]) -> Result<()> {
    for (change @ (field, spec, _), promise) in pairs {
        let told = || format!("{field}: {promise}");
        for state in ["pushes", "pushed"] {
            let name = name(field, state);
            fixture.create("Model", &name, spec.clone()).await?;
            fixture.load(&name, 1).await?;
        }
        let (running, pushed) = (name(field, "pushes"), name(field, "pushed"));
        let job = fixture.wait("Job", &format!("{pushed}-publish"), LIMIT, async |_| Ok(Some(()))).await?;
        fixture.pod_ends(&format!("{pushed}-publish"), 0, &super::publish::outcome(&job, "sha256:one")?).await?;
        fixture.reason("Model", &pushed, "Published", "JobComplete").await?;

        let child = format!("{running}-publish");
        let before = uid(fixture, "Job", &child).await?;
        edit(fixture, "Model", &running, change).await?;
        replaced(fixture, "Job", &child, &before).await.with_context(told)?;
        let child = format!("{pushed}-publish");
        let before = uid(fixture, "Job", &child).await?;
        let after = edit(fixture, "Model", &pushed, change).await?;
        ensure!(
            after["status"]["ready"] == true && after["status"]["published"]["digest"] == "sha256:one",
            "{}: {after}",
            told()
        );
        if promise.starts_with("An edit pushes what is complete to the new place;") {
            fixture.drop_finished_pods(&child).await?;
            let again = replaced(fixture, "Job", &child, &before).await.with_context(told)?;
            ensure!(again["spec"].to_string().contains("--to=oci://ghcr.io/team/two:v1"), "{}: {again}", told());
        } else {
            ensure!(promise.starts_with("An edit starts a push anew that is not complete;"), "{}", told());
            ensure!(uid(fixture, "Job", &child).await? == before, "{}", told());
        }
    }
    Ok(())
}

/// A build that is added: what runs or is whole stays until the image is there, and then it is as with another image.
async fn builds(fixture: &Fixture, kind: &str, name: &str, (child_kind, child): (&str, &str)) -> Result<()> {
    let promise = promises(kind)?.into_iter().find(|(field, _)| field == "build").context("no build")?.1;
    ensure!(promise.starts_with("An edit builds anew; what runs or is ready stays until the new image is there,"), "{promise}");
    let (before, ready) = (fixture.get(child_kind, child).await?, fixture.get(kind, name).await?["status"]["ready"].clone());
    let git = json!({"git": {"url": "https://git.example.test/mine", "path": "mine"}});
    fixture.merge(kind, name, json!({"spec": {"build": git}})).await?;
    let job = format!("{name}-{}-bld", kind.to_lowercase());
    let building = fixture.wait("Job", &job, LIMIT, async |_| Ok(Some(()))).await?;
    let object = fixture.reason(kind, name, "Built", "JobNotComplete").await?;
    let after = fixture.get(child_kind, child).await?;
    let same = before["metadata"]["uid"] == after["metadata"]["uid"] && before["spec"]["template"] == after["spec"]["template"];
    ensure!(same && object["status"]["ready"] == ready, "{kind} {name}: {promise}: {object}");
    build_ends(fixture, &building, "sha256:1").await?;
    fixture.drop_finished_pods(child).await?;
    let image = format!("{BUILT}/substratus-{}-{}-{name}:latest@sha256:1", kind.to_lowercase(), fixture.namespace());
    let with_image = async |child: &Value| Ok(child["spec"].to_string().contains(&image).then_some(()));
    fixture.wait(child_kind, child, LIMIT, with_image).await.with_context(|| format!("{kind} {name}: {promise}"))?;
    Ok(())
}

fn run_edits(source: &str, other: &str) -> Vec<Edit> {
    let image = json!({"image": "example.test/run"});
    let plugin = json!({"source": source});
    let mut edits = container(&image);
    edits.push(("source", plugin.clone(), json!(other)));
    edits.push(("files", plugin.clone(), json!({"include": ["*.json"]})));
    edits.push(("plugin", with(&plugin, "image", json!("example.test/run")), json!("none")));
    edits.push(("retries", image, json!(5)));
    edits
}

#[test]
fn edits_of_models_do_what_their_descriptions_say() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        bases(fixture).await?;
        let mut edits = run_edits("hf://org/one", "hf://org/two");
        let trained = json!({"image": "example.test/trainer", "model": {"name": "one"}, "dataset": {"name": "one"}});
        edits.push(("model", trained.clone(), json!({"name": "two"})));
        edits.push(("dataset", trained, json!({"name": "two"})));
        let pushed = json!({"source": "hf://org/pushed", "publish": "oci://ghcr.io/team/one:v1"});
        let changes: [Edit; 2] =
            [("publish", pushed.clone(), json!("oci://ghcr.io/team/two:v1")), ("publishSecret", pushed, json!("acme-push"))];
        let all = edits.iter().chain(&changes).cloned().collect();
        let promises: Vec<_> = paired("Model", all)?.split_off(edits.len());
        publishes(fixture, &promises).await?;
        runs(fixture, "Model", "-modeller", edits).await?;
        let name = name("command", "done");
        builds(fixture, "Model", &name, ("Job", &format!("{name}-modeller"))).await
    })
}

#[test]
fn edits_of_datasets_do_what_their_descriptions_say() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        bases(fixture).await?;
        let mut edits = run_edits("hf://datasets/org/one", "hf://datasets/org/two");
        edits.push(("parallelism", json!({"source": "hf://datasets/org/one"}), json!(2)));
        runs(fixture, "Dataset", "-data-loader", edits).await?;
        builds(fixture, "Dataset", "one", ("Job", "one-data-loader")).await
    })
}

#[test]
fn edits_of_servers_do_what_their_descriptions_say() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        bases(fixture).await?;
        let image = json!({"image": "example.test/server", "model": {"name": "one"}});
        let mut edits = container(&image);
        edits.push(("model", image.clone(), json!({"name": "two"})));
        // The adapter's own image, which runs as it is where nobody is asked.
        let engine = json!({"image": "ghcr.io/ggml-org/llama.cpp:server", "model": {"name": "one"}, "engine": "llama.cpp"});
        edits.push(("engine", engine, Value::Null));
        edits.push(("replicas", image, json!(2)));
        let pairs = paired("Server", edits)?;
        for ((field, spec, _), _) in &pairs {
            fixture.create("Server", &name(field, "s"), spec.clone()).await?;
        }
        for (change @ (field, ..), promise) in &pairs {
            let deployment = format!("{}-server", name(field, "s"));
            let before = fixture.wait("Deployment", &deployment, LIMIT, async |_| Ok(Some(()))).await?;
            edit(fixture, "Server", &name(field, "s"), change).await?;
            let after = fixture.get("Deployment", &deployment).await?;
            let same_pods = before["spec"]["template"] == after["spec"]["template"];
            let told = || format!("{field}: {promise}\n{before}\n{after}");
            if promise.starts_with("An edit rolls out new pods,") {
                ensure!(!same_pods && after["spec"]["replicas"] == before["spec"]["replicas"], "{}", told());
            } else {
                ensure!(promise.starts_with("An edit adds or removes pods;"), "{}", told());
                ensure!(same_pods && after["spec"]["replicas"] == 2, "{}", told());
            }
        }
        let name = name("args", "s");
        builds(fixture, "Server", &name, ("Deployment", &format!("{name}-server"))).await
    })
}

#[test]
fn edits_of_notebooks_do_what_their_descriptions_say() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        bases(fixture).await?;
        let image = json!({"image": "example.test/lab", "model": {"name": "one"}, "dataset": {"name": "one"}});
        let mut edits = container(&image);
        for (field, value) in [
            ("model", json!({"name": "two"})),
            ("dataset", json!({"name": "two"})),
            ("suspend", json!(true)),
            ("idleTimeout", json!("30m")),
        ] {
            edits.push((field, image.clone(), value));
        }
        let pairs = paired("Notebook", edits)?;
        for ((field, spec, _), _) in &pairs {
            fixture.create("Notebook", &name(field, "n"), spec.clone()).await?;
        }
        for (change @ (field, ..), promise) in &pairs {
            let pod = format!("{}-notebook", name(field, "n"));
            let before = uid(fixture, "Pod", &pod).await?;
            edit(fixture, "Notebook", &name(field, "n"), change).await?;
            let told = || format!("{field}: {promise}");
            if promise.starts_with("An edit replaces the pod;") {
                replaced(fixture, "Pod", &pod, &before).await.with_context(told)?;
            } else if promise.starts_with("An edit takes effect at once.") {
                fixture.gone(&[("Pod", &pod)]).await.with_context(told)?;
            } else {
                ensure!(promise.contains("one that sets or lowers it, with the next pod."), "{}", told());
                ensure!(uid(fixture, "Pod", &pod).await? == before, "{}", told());
            }
        }
        let name = name("args", "n");
        builds(fixture, "Notebook", &name, ("Pod", &format!("{name}-notebook"))).await
    })
}
