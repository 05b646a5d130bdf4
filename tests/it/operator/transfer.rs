//! What is seen of a load that runs: Events, and a status that moves seldom. The tests play the worker.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use substratus::store::AUDIENCE;
use substratus_tests::cluster::eventually;

use super::LIMIT;
use super::fixture::{Fixture, on_cluster};

/// The worker of a Model's load, in the pod that its Job has made.
pub(super) struct Worker {
    client: reqwest::Client,
    url: String,
    token: String,
    inputs: Value,
    pub(super) pod: String,
}

impl Worker {
    pub(super) async fn of(fixture: &Fixture, model: &str) -> Result<Self> {
        let job = format!("{model}-modeller");
        let pod = fixture.pod(&format!("batch.kubernetes.io/job-name={job}")).await?;
        Ok(Self {
            client: reqwest::Client::builder().no_proxy().build()?,
            url: format!("http://127.0.0.1:8090/progress/{}/{job}", fixture.namespace()),
            token: fixture.token("modeller", AUDIENCE, &pod).await?,
            inputs: fixture.get("Model", model).await?["status"]["plan"]["inputs"].clone(),
            pod: pod["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Reports once; the operator may be starting.
    pub(super) async fn report(&self, transfer: &Value) -> Result<()> {
        let report = json!({"inputs": self.inputs, "transfer": transfer});
        eventually("the report to be taken", LIMIT, async || {
            let answer = self.client.post(&self.url).bearer_auth(&self.token).json(&report).send().await?;
            ensure!(answer.status().is_success(), "{}: {}", answer.status(), answer.text().await?);
            Ok(Some(()))
        })
        .await
    }

    /// Reports until the status shows it: an operator that is started anew by somebody else has heard nothing.
    async fn gets_to(&self, fixture: &Fixture, model: &str, percent: i64) -> Result<Value> {
        eventually("the report to be shown", LIMIT, async || {
            self.is_at(percent).await?;
            let object = fixture.get("Model", model).await?;
            Ok((object["status"]["transfer"]["bytesDone"] == percent).then_some(object))
        })
        .await
    }

    async fn is_at(&self, percent: i64) -> Result<()> {
        self.report(&json!({"progress": format!("{percent}%"), "bytesDone": percent, "bytesTotal": 100,
            "bytesPerSecond": 1, "filesDone": 0, "filesTotal": 1, "file": "model.safetensors"}))
            .await
    }
}

/// Waits until the status shows so many bytes.
async fn shows(fixture: &Fixture, model: &str, percent: i64) -> Result<Value> {
    let there = async |model: &Value| Ok((model["status"]["transfer"]["bytesDone"] == percent).then_some(()));
    fixture.wait("Model", model, LIMIT, there).await
}

/// Reasons and notes of the Events about a load, in the order of their time.
async fn told(fixture: &Fixture, model: &str) -> Result<Vec<(String, String)>> {
    let mut events = fixture.events(model).await?;
    events.retain(|event| event["reason"].as_str().is_some_and(|reason| reason.starts_with("Load")));
    events.sort_by_key(|event| event["eventTime"].as_str().map(str::to_owned));
    ensure!(events.iter().all(|event| event["series"].is_null()), "told twice: {events:#?}");
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    Ok(events.iter().map(|event| (text(event, "reason"), text(event, "message"))).collect())
}

#[test]
fn a_load_tells_its_start_its_quarters_and_who_goes_on_and_nothing_twice() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "told", json!({"source": "hf://org/told"})).await?;
        let worker = Worker::of(fixture, "told").await?;
        // No plan yet: nothing to say.
        worker.report(&json!({"progress": "0%", "bytesDone": 0, "bytesTotal": 0, "filesTotal": 0})).await?;
        let model = worker.gets_to(fixture, "told", 10).await?;
        let transfer = &model["status"]["transfer"];
        ensure!(transfer["pod"] == worker.pod.as_str() && transfer["file"] == "model.safetensors", "{transfer}");
        worker.gets_to(fixture, "told", 30).await?;
        fixture.restart_operator().await?;
        worker.gets_to(fixture, "told", 40).await?;
        worker.gets_to(fixture, "told", 80).await?;

        // The pod is gone, and another one begins with what is there.
        fixture.pod_ends("told-modeller", 1, &json!("killed")).await?;
        let next = Worker::of(fixture, "told").await?;
        ensure!(next.pod != worker.pod, "no other pod");
        next.gets_to(fixture, "told", 60).await?;
        next.gets_to(fixture, "told", 90).await?;
        fixture.load("told", 100).await?;
        fixture.event("told", "JobComplete").await?;

        let told = told(fixture, "told").await?;
        let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
        ensure!(reasons == ["LoadStarted", "LoadProgressed", "LoadProgressed", "LoadResumed"], "{told:#?}");
        ensure!(told[0].1.contains(&worker.pod) && told[0].1.contains("10 B of 100 B"), "{told:#?}");
        ensure!(told[1].1.starts_with("25%") && told[2].1.starts_with("75%"), "{told:#?}");
        ensure!(told[3].1.contains(&next.pod), "{told:#?}");
        Ok(())
    })
}

#[test]
fn a_stalled_load_is_told_and_so_is_that_it_goes_on() -> Result<()> {
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "stuck", json!({"source": "hf://org/stuck"})).await?;
        let worker = Worker::of(fixture, "stuck").await?;
        // Nobody reports any more, as when a node is gone. An operator that starts anew begins to count anew.
        eventually("the stall to be seen", Duration::from_mins(4), async || {
            worker.is_at(10).await?;
            tokio::time::sleep(Duration::from_secs(65)).await;
            let model = fixture.get("Model", "stuck").await?;
            Ok((model["status"]["transfer"]["stalled"] == true).then_some(()))
        })
        .await?;
        let stalled = fixture.event("stuck", "LoadStalled").await?;
        let message = stalled["message"].as_str().unwrap_or_default();
        ensure!(stalled["type"] == "Warning" && message.contains(&format!("kubectl logs {}", worker.pod)), "{stalled}");
        let before = fixture.settled().await?;
        worker.is_at(10).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        ensure!(before == fixture.settled().await?, "a report that tells nothing was written");
        let model = worker.gets_to(fixture, "stuck", 11).await?;
        ensure!(model["status"]["transfer"]["stalled"] != true, "{model}");
        fixture.event("stuck", "LoadResumed").await?;
        Ok(())
    })
}

#[test]
fn a_moving_load_is_written_every_five_seconds_and_a_standing_one_never() -> Result<()> {
    const LONG: Duration = Duration::from_secs(17);
    on_cluster(async |fixture: &Fixture| {
        fixture.create("Model", "moving", json!({"source": "hf://org/moving"})).await?;
        let worker = Worker::of(fixture, "moving").await?;
        fixture.reason("Model", "moving", "Complete", "JobNotComplete").await?;
        worker.gets_to(fixture, "moving", 1).await?;
        // From here on nothing but reports changes.
        fixture.settled().await?;
        let version = async || -> Result<String> {
            Ok(fixture.get("Model", "moving").await?["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
        };
        let (started, mut versions, mut percent) = (Instant::now(), vec![(Instant::now(), version().await?)], 1);
        while started.elapsed() < LONG {
            percent += 1;
            worker.is_at(percent).await?;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = version().await?;
            if versions.last().is_none_or(|(_, last)| *last != now) {
                versions.push((Instant::now(), now));
            }
        }
        ensure!((3..=5).contains(&versions.len()), "{} writes in {LONG:?}", versions.len() - 1);
        for pair in versions[1..].windows(2) {
            let apart = pair[1].0.duration_since(pair[0].0);
            ensure!(apart > Duration::from_millis(4500), "two writes {apart:?} apart");
        }
        // What was held back is written, although nobody reports any more; then nothing.
        shows(fixture, "moving", percent).await?;
        let before = fixture.settled().await?;
        for _ in 0..5 {
            worker.is_at(percent).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        ensure!(before == fixture.versions().await?, "nothing moved, and something was written");
        Ok(())
    })
}
