//! Images from source as the operator sees them: the tests play the kubelet, so builds end as they say. Real builds are in `e2e`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::LIMIT;
use super::fixture::{BUILT, Fixture, condition, on_cluster};

fn source(branch: &str) -> Value {
    json!({"git": {"url": "https://git.example.test/org/code", "branch": branch}})
}

/// What a Job was made for, as its containers are told.
fn inputs(job: &Value) -> Result<String> {
    let args = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().context("no arguments")?;
    let inputs = args.iter().filter_map(Value::as_str).find_map(|arg| arg.strip_prefix("--inputs="));
    Ok(inputs.context("no inputs")?.to_owned())
}

/// Plays a build that ends well with an image of this digest.
pub(super) async fn build_ends(fixture: &Fixture, job: &Value, digest: &str) -> Result<()> {
    let said = json!({"outcome": "built", "inputs": inputs(job)?, "digest": digest, "commit": "abc"});
    fixture.pod_ends(job["metadata"]["name"].as_str().context("no name")?, 0, &said).await.map(drop)
}

/// Plays a build that fails.
async fn build_fails(fixture: &Fixture, job: &Value, code: i32, reason: &str, message: &str) -> Result<()> {
    let said = json!({"outcome": "failed", "inputs": inputs(job)?, "reason": reason, "message": message, "passing": code == 1});
    fixture.pod_ends(job["metadata"]["name"].as_str().context("no name")?, code, &said).await.map(drop)
}

async fn job(fixture: &Fixture, name: &str) -> Result<Value> {
    fixture.wait("Job", name, LIMIT, async |_| Ok(Some(()))).await
}

/// Waits for another Job of this name than `before`.
async fn next(fixture: &Fixture, name: &str, before: &Value) -> Result<Value> {
    fixture.drop_finished_pods(name).await?;
    let other = async |job: &Value| Ok((job["metadata"]["uid"] != before["metadata"]["uid"]).then_some(()));
    fixture.wait("Job", name, LIMIT, other).await
}

fn image(fixture: &Fixture, kind: &str, name: &str, tag: &str) -> String {
    format!("{BUILT}/substratus-{kind}-{}-{name}:{tag}", fixture.namespace())
}

#[test]
fn source_becomes_an_image_and_the_rest_goes_on() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Dataset", "d", json!({"build": source("main")})).await?;
        let building = job(fixture, "d-dataset-bld").await?;
        let name = image(fixture, "dataset", "d", "main");
        ensure!(building["metadata"]["annotations"]["image"] == name, "{building}");
        fixture.reason("Dataset", "d", "Built", "JobNotComplete").await?;
        let waits = fixture.reason("Dataset", "d", "Complete", "ImageNotBuilt").await?;
        ensure!(!fixture.exists("Job", "d-data-loader").await? && waits["spec"]["image"].is_null(), "{waits}");

        build_ends(fixture, &building, "sha256:1").await?;
        let loads = job(fixture, "d-data-loader").await?;
        ensure!(loads["spec"]["template"]["spec"]["containers"][0]["image"] == format!("{name}@sha256:1"), "{loads}");
        let built = fixture.reason("Dataset", "d", "Built", "JobComplete").await?;
        ensure!(built["spec"]["image"] == name && built["status"]["build"]["commit"] == "abc", "{built}");
        fixture.pod_ends("d-data-loader", 0, &json!({})).await?;
        fixture.reason("Dataset", "d", "Complete", "JobComplete").await?;

        let before = fixture.settled().await?;
        fixture.crash_operator().await?;
        ensure!(fixture.settled().await? == before, "a restart writes something");
        Ok(())
    })
}

#[test]
fn another_branch_is_built_while_what_is_ready_stays() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Dataset", "d", json!({"build": source("main")})).await?;
        let first = job(fixture, "d-dataset-bld").await?;
        build_ends(fixture, &first, "sha256:1").await?;
        fixture.pod_ends("d-data-loader", 0, &json!({})).await?;
        let ready = fixture.reason("Dataset", "d", "Complete", "JobComplete").await?;
        let loaded = fixture.get("Job", "d-data-loader").await?;

        fixture.merge("Dataset", "d", json!({"spec": {"build": source("dev")}})).await?;
        let second = next(fixture, "d-dataset-bld", &first).await?;
        let building = fixture.reason("Dataset", "d", "Built", "JobNotComplete").await?;
        ensure!(
            building["status"]["ready"] == true && building["status"]["artifacts"] == ready["status"]["artifacts"],
            "{building}"
        );
        let says = condition(&building, "Built")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(says.contains(":main` is what runs"), "{says}");
        build_ends(fixture, &second, "sha256:2").await?;
        let again = next(fixture, "d-data-loader", &loaded).await?;
        let name = image(fixture, "dataset", "d", "dev");
        ensure!(again["spec"]["template"]["spec"]["containers"][0]["image"] == format!("{name}@sha256:2"), "{again}");
        ensure!(again["spec"].to_string().contains("/g"), "a folder of its own: {again}");
        fixture.pod_ends("d-data-loader", 0, &json!({})).await?;
        let ready = fixture.reason("Dataset", "d", "Complete", "JobComplete").await?;

        // The same image from what the branch has now: nothing is imported again.
        fixture.annotate("Dataset", "d", "substratus.ai/rebuild", "1").await?;
        let third = next(fixture, "d-dataset-bld", &second).await?;
        build_ends(fixture, &third, "sha256:2").await?;
        let built = fixture.reason("Dataset", "d", "Built", "JobComplete").await?;
        fixture.settled().await?;
        let same = fixture.get("Dataset", "d").await?;
        ensure!(same["status"]["artifacts"] == ready["status"]["artifacts"] && same["status"]["ready"] == true, "{built} {same}");
        ensure!(fixture.get("Job", "d-data-loader").await?["metadata"]["uid"] == again["metadata"]["uid"], "imported again");
        Ok(())
    })
}

#[test]
fn a_build_that_fails_says_why_and_waits_for_somebody() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "m", json!({"build": source("main"), "model": {"name": "none"}})).await?;
        let first = job(fixture, "m-model-bld").await?;
        build_fails(
            fixture,
            &first,
            64,
            "BuildFailed",
            "Dockerfile:3: RUN make: exit code: 3; the last lines of the log:\nno rows",
        )
        .await?;
        let failed = fixture.reason("Model", "m", "Built", "BuildFailed").await?;
        let says = condition(&failed, "Built")["message"].as_str().unwrap_or_default().to_owned();
        for words in ["Dockerfile:3: RUN make", "kubectl annotate model m substratus.ai/rebuild=", "no rows"] {
            ensure!(says.contains(words), "{says}");
        }
        ensure!(condition(&failed, "Complete")["reason"] == "ImageNotBuilt", "{failed}");
        ensure!(fixture.event("m", "BuildFailed").await?["type"] == "Warning", "a failure is a warning");
        fixture.settled().await?;
        ensure!(fixture.get("Job", "m-model-bld").await?["metadata"]["uid"] == first["metadata"]["uid"], "tried again by itself");

        fixture.annotate("Model", "m", "substratus.ai/rebuild", "1").await?;
        let second = next(fixture, "m-model-bld", &first).await?;
        build_ends(fixture, &second, "sha256:1").await?;
        fixture.reason("Model", "m", "Built", "JobComplete").await?;
        fixture.reason("Model", "m", "Complete", "BaseModelNotFound").await?;
        Ok(())
    })
}

#[test]
fn a_builder_that_is_lost_is_told_and_tried_again() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Notebook", "n", json!({"build": source("main"), "suspend": true})).await?;
        let first = job(fixture, "n-notebook-bld").await?;
        // Each of the Job's own tries.
        for _ in 0..2 {
            build_fails(fixture, &first, 1, "PushFailed", "the registry is away").await?;
        }
        let failed = fixture.reason("Notebook", "n", "Built", "PushFailed").await?;
        let says = condition(&failed, "Built")["message"].as_str().unwrap_or_default().to_owned();
        ensure!(says.contains("the registry is away; tried again with growing pauses"), "{says}");
        ensure!(condition(&failed, "Serving")["reason"] == "Suspended", "what is suspended needs no image: {failed}");
        let second = next(fixture, "n-notebook-bld", &first).await?;
        ensure!(second["metadata"]["annotations"]["substratus.ai/attempt"] == "1", "{second}");
        Ok(())
    })
}

#[test]
fn an_operator_that_is_killed_doubles_no_build() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Server", "s", json!({"build": source("main"), "model": {"name": "base"}})).await?;
        fixture.create("Model", "base", json!({"source": "hf://org/base"})).await?;
        fixture.load("base", 1).await?;
        let building = job(fixture, "s-server-bld").await?;
        fixture.crash_operator().await?;
        fixture.settled().await?;
        ensure!(fixture.get("Job", "s-server-bld").await?["metadata"]["uid"] == building["metadata"]["uid"], "built twice");
        fixture.behind_its_back(async || build_ends(fixture, &building, "sha256:1").await).await?;
        let name = image(fixture, "server", "s", "main");
        let pinned = format!("{name}@sha256:1");
        let deployment = async |child: &Value| Ok(child["spec"].to_string().contains(&pinned).then_some(()));
        fixture.wait("Deployment", "s-server", LIMIT, deployment).await?;
        // The image is there: its Job may go, and none comes back.
        fixture.delete("Job", "s-server-bld").await?;
        fixture.drop_finished_pods("s-server-bld").await?;
        fixture.gone(&[("Job", "s-server-bld")]).await?;
        fixture.settled().await?;
        ensure!(!fixture.exists("Job", "s-server-bld").await?, "built again");
        ensure!(fixture.get("Server", "s").await?["spec"]["image"] == name, "the spec lost the image");
        Ok(())
    })
}

#[test]
fn what_was_built_before_we_came_is_not_built_again() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let name = image(fixture, "dataset", "d", "v1");
        let git = json!({"git": {"url": "https://git.example.test/org/code", "tag": "v1", "branch": "main"}});
        fixture.create("Dataset", "d", json!({"build": git, "image": name})).await?;
        let loads = job(fixture, "d-data-loader").await?;
        ensure!(loads["spec"]["template"]["spec"]["containers"][0]["image"] == name, "{loads}");
        fixture.reason("Dataset", "d", "Built", "JobComplete").await?;
        ensure!(!fixture.exists("Job", "d-dataset-bld").await?, "built again");
        // Without a source there is nothing to say of a build.
        fixture.merge("Dataset", "d", json!({"spec": {"build": null}})).await?;
        let without = async |dataset: &Value| Ok(condition(dataset, "Built").is_null().then_some(()));
        fixture.wait("Dataset", "d", LIMIT, without).await?;
        Ok(())
    })
}

#[test]
fn sources_that_cannot_be_built_are_conditions() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let upload = json!({"md5Checksum": "0".repeat(32), "requestID": "r"});
        let git = |more: Value| {
            let mut git = json!({"url": "https://git.example.test/x"});
            git.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"git": git})
        };
        let cases = [
            ("empty", json!({}), "Invalid", "name git or upload"),
            ("both", json!({"git": {"url": "https://git.example.test/x"}, "upload": upload}), "Invalid", "both"),
            (
                "request",
                json!({"upload": {"md5Checksum": "0".repeat(32), "requestID": ""}}),
                "Invalid",
                "spec.build.upload.requestID",
            ),
            ("password", git(json!({"url": "https://me:s3cret@git.example.test/x"})), "Invalid", "spec.build.git.secret"),
            ("file", git(json!({"url": "file:///etc"})), "Invalid", "spec.build.git.url"),
            ("option", git(json!({"branch": "--upload-pack=x"})), "Invalid", "spec.build.git.branch"),
            ("outside", git(json!({"path": "../x"})), "Invalid", "spec.build.git.path"),
        ];
        for (name, build, ..) in &cases {
            fixture.create("Dataset", name, json!({"build": build})).await?;
            fixture.create("Dataset", &format!("{name}-image"), json!({"build": build, "image": "example.test/i"})).await?;
        }
        for (name, _, reason, says) in &cases {
            let dataset = fixture.reason("Dataset", name, "Built", reason).await?;
            let message = condition(&dataset, "Built")["message"].as_str().unwrap_or_default().to_owned();
            ensure!(message.contains(says) && !message.contains("s3cret"), "{name}: {message}");
            ensure!(condition(&dataset, "Complete")["reason"] == *reason, "{name}: {dataset}");
            // An image at hand runs, whatever is wrong with the source.
            fixture.reason("Dataset", &format!("{name}-image"), "Built", reason).await?;
            job(fixture, &format!("{name}-image-data-loader")).await?;
            ensure!(!fixture.exists("Job", &format!("{name}-dataset-bld")).await?, "{name} is built");
        }
        Ok(())
    })
}
