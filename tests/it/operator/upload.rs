//! The handshake of an upload with the operator itself: a client of shell, curl and openssl, and what nobody should send. The builds of
//! what was sent are played here, and real in `e2e`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use substratus::store::AUDIENCE;

use super::LIMIT;
use super::build::build_ends;
use super::fixture::{Fixture, condition, on_cluster};

/// What the example's script is to a user.
fn script(fixture: &Fixture, kind: &str, name: &str, folder: &Path) -> Result<Command> {
    let root = substratus_tests::guests::root();
    let mut command = fixture.cluster().command("sh");
    command.arg(root.join("examples/from-source/upload.sh")).args([kind, name]).arg(folder).arg(fixture.namespace());
    command.env("KUBECTL", fixture.cluster().tool("kubectl")?);
    Ok(command)
}

fn run(mut command: Command) -> Result<String> {
    let output = command.output().context("run the client")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{said}");
    Ok(said)
}

async fn asked(fixture: &Fixture, name: &str, request: &str) -> Result<Value> {
    let given = async |object: &Value| Ok((object["status"]["buildUpload"]["requestID"] == request).then_some(()));
    fixture.wait("Model", name, LIMIT, given).await
}

#[test]
fn a_client_of_shell_and_curl_sends_a_folder_once() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("Dockerfile"), "FROM scratch\n")?;
        fixture.create("Model", "m", json!({"model": {"name": "none"}})).await?;
        run(script(fixture, "model", "m", folder.path())?)?;
        let job = fixture.wait("Job", "m-model-bld", LIMIT, async |_| Ok(Some(()))).await?;
        let model = fixture.reason("Model", "m", "Uploaded", "UploadFound").await?;
        let (status, upload) = (&model["status"]["buildUpload"], &model["spec"]["build"]["upload"]);
        ensure!(status["storedMD5Checksum"] == upload["md5Checksum"] && status["requestID"] == upload["requestID"], "{model}");
        ensure!(status["signedURL"].is_null() && status["expiration"].is_null(), "a URL of no use is gone: {model}");
        let tag = upload["md5Checksum"].as_str().context("no sum")?.to_owned();
        ensure!(job["metadata"]["annotations"]["image"].as_str().is_some_and(|image| image.ends_with(&tag)), "{job}");
        build_ends(fixture, &job, "sha256:1").await?;
        fixture.reason("Model", "m", "Built", "JobComplete").await?;

        // The same folder once more: another request, and nothing is sent or built.
        let said = run(script(fixture, "model", "m", folder.path())?)?;
        ensure!(said.contains("sent before"), "{said}");
        fixture.settled().await?;
        let again = fixture.get("Model", "m").await?;
        ensure!(again["status"]["buildUpload"] == json!({"storedMD5Checksum": tag}), "{again}");
        ensure!(
            again["status"]["build"] == model["status"]["build"] || again["status"]["build"]["digest"] == "sha256:1",
            "{again}"
        );

        // The builder's pod, and no other, takes what was sent.
        fixture
            .post(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
            "spec": {"serviceAccountName": "container-builder", "containers": [{"name": "c", "image": "i"}]}}))
            .await?;
        let pod = fixture.get("Pod", "p").await?;
        let token = fixture.token("container-builder", AUDIENCE, &pod).await?;
        let url = format!("{}/uploads/model/{}/m/{tag}", super::fixture::UPLOADS, fixture.namespace());
        let client = reqwest::Client::builder().no_proxy().build()?;
        let status = |token: &str| client.get(&url).bearer_auth(token).send();
        ensure!(status(&token).await?.status() == 200 && status("none").await?.status() == 401);
        Ok(())
    })
}

#[test]
fn what_was_not_announced_is_refused_and_told() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        let body = b"what was announced".to_vec();
        let sum = |bytes: &[u8]| hex::encode(<md5::Md5 as md5::Digest>::digest(bytes));
        let base64 = |sum: &str| {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD.encode(hex::decode(sum).unwrap())
        };
        let announced = sum(&body);
        let upload = |request: &str| json!({"md5Checksum": announced, "requestID": request});
        fixture.create("Model", "m", json!({"build": {"upload": upload("1")}, "model": {"name": "none"}})).await?;
        let model = asked(fixture, "m", "1").await?;
        let says = |model: &Value| condition(model, "Uploaded")["reason"].clone();
        ensure!(says(&model) == "AwaitingUpload" && condition(&model, "Built")["reason"] == "AwaitingUpload", "{model}");
        let url = model["status"]["buildUpload"]["signedURL"].as_str().context("no URL")?.to_owned();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let put = async |url: &str, bytes: &[u8]| -> Result<u16> {
            let request = client.put(url).header("Content-MD5", base64(&announced));
            let request = request.header("Content-Type", "application/octet-stream").body(bytes.to_vec());
            Ok(request.send().await?.status().as_u16())
        };
        ensure!(put(&url, b"something else....").await? == 400, "other bytes are taken");
        fixture.reason("Model", "m", "Uploaded", "UploadRefused").await?;
        // A ticket is for one object, these bytes and this time, whatever is changed of it.
        let digit = if url.ends_with('0') { "1" } else { "0" };
        let mut forged = url.clone();
        forged.replace_range(url.len() - 1.., digit);
        for url in [url.replace("/m?", "/n?"), url.replace(&announced, &sum(b"x")), forged] {
            ensure!(put(&url, &body).await? == 403, "{url} is good for something");
        }
        ensure!(put(&url, &body).await? == 200, "what was announced is refused");
        fixture.wait("Job", "m-model-bld", LIMIT, async |_| Ok(Some(()))).await?;
        ensure!(put(&url, &body).await? == 200, "a client that heard no answer is refused");

        // A restart of the operator signs anew, and what was sent is still there.
        fixture.create("Model", "n", json!({"build": {"upload": upload("1")}, "model": {"name": "none"}})).await?;
        let before = asked(fixture, "n", "1").await?["status"]["buildUpload"]["signedURL"].clone();
        fixture.crash_operator().await?;
        let other = async |object: &Value| Ok((object["status"]["buildUpload"]["signedURL"] != before).then_some(()));
        fixture.wait("Model", "n", LIMIT, other).await?;
        let kept = fixture.get("Model", "m").await?;
        ensure!(says(&kept) == "UploadFound", "{kept}");
        Ok(())
    })
}
