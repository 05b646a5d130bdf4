//! What becomes of a build, from what the watches show.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use substratus_crds::conditions::reason;
use substratus_crds::{Build, BuildUpload, Model, ModelSpec};

use super::*;
use crate::kinds::image::conclude::{Concluded, Runs, conclude, stopped};
use crate::kinds::image::handshake::Sent;
use crate::kinds::shared::child::Owner;
use crate::kinds::shared::environment::{self, Building};
use crate::kinds::shared::verdict::Retry;

const IMAGE: &str = "r.test/team/c-model-default-m:main";

struct Scene {
    owner: Owner,
    build: Build,
    environment: Environment,
}

impl Scene {
    fn new() -> Self {
        let building = Building { registry: Some("r.test/team".to_owned()), ..Building::default() };
        Self {
            owner: Owner::of(&Model::new("m", ModelSpec::default())),
            build: serde_json::from_value(json!({"git": {"url": "https://git.test/x", "branch": "main"}})).unwrap(),
            environment: Environment { building, ..environment::of("local") },
        }
    }

    fn observed(&self) -> Observed<'_> {
        Observed {
            owner: &self.owner,
            build: &self.build,
            image: None,
            record: None,
            handshake: None,
            sent: Sent::default(),
            rebuild: None,
            job: None,
            pods: Vec::new(),
            now: Timestamp::from_second(1000).unwrap(),
        }
    }

    fn inputs(&self) -> String {
        inputs(&self.observed(), IMAGE)
    }

    fn plan(&self, observed: &Observed<'_>) -> Plan {
        plan(observed, &self.environment).unwrap()
    }
}

fn job(inputs: &str, attempt: u32, condition: Option<&str>) -> Arc<JobView> {
    let conditions: Vec<Value> = condition
        .into_iter()
        .map(|name| json!({"type": name, "status": "True", "lastTransitionTime": "1970-01-01T00:16:40Z"}))
        .collect();
    let annotations =
        json!({names::IDENTITY: format!("{inputs}-{attempt}"), names::ATTEMPT: attempt.to_string(), names::IMAGE: IMAGE});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "m-model-bld", "annotations": annotations},
        "status": {"conditions": conditions}});
    Arc::new(serde_json::from_value(job).unwrap())
}

fn pod(phase: &str, container: &str, said: &Value) -> Arc<crate::reconcile::views::PodView> {
    let statuses = json!([{"name": container, "state": {"terminated": {"exitCode": 1, "message": said.to_string(),
        "finishedAt": "1970-01-01T00:16:40Z"}}}]);
    let list = if container == "git-clone" { "initContainerStatuses" } else { "containerStatuses" };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": phase, list: statuses}});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn built(inputs: &str) -> Value {
    json!({"outcome": "built", "inputs": inputs, "digest": "sha256:1", "commit": "abc"})
}

fn failed(inputs: &str, passing: bool) -> Value {
    json!({"outcome": "failed", "inputs": inputs, "reason": "CloneDenied", "message": "who are you", "passing": passing})
}

#[test]
fn an_image_is_there_when_its_builder_says_so_and_stays_without_its_job() {
    let scene = Scene::new();
    let inputs = scene.inputs();
    let observed = Observed {
        job: Some(job(&inputs, 0, Some("Complete"))),
        pods: vec![pod("Succeeded", "builder", &built(&inputs))],
        ..scene.observed()
    };
    let State::Done(record) = scene.plan(&observed).state else { panic!("not done") };
    assert_eq!(
        (record.image.as_deref(), record.digest.as_deref(), record.commit.as_deref()),
        (Some(IMAGE), Some("sha256:1"), Some("abc"))
    );
    let later = Observed { record: Some(&record), image: Some(IMAGE), ..scene.observed() };
    let concluded = conclude(&later, &scene.plan(&later));
    assert_eq!((concluded.write.as_deref(), concluded.retry), (None, Retry::OnChange));
    assert_eq!(concluded.runs, Runs::Image(format!("{IMAGE}@sha256:1"), true));
    // A user's own image makes room, as it did with the first operator.
    let other = Observed { image: Some("example.test/other"), ..later.clone() };
    assert_eq!(conclude(&other, &scene.plan(&other)).write.as_deref(), Some(IMAGE));
    // Another value of the annotation is another build, while that one runs.
    let again = Observed { rebuild: Some("1"), ..later };
    let plan = scene.plan(&again);
    assert!(matches!(plan.state, State::Due { .. }));
    assert_eq!(conclude(&again, &plan).runs, Runs::Image(format!("{IMAGE}@sha256:1"), true));
}

#[test]
fn a_job_that_ended_before_its_pod_was_seen_to_is_waited_for_and_a_lost_message_is_built_again() {
    let scene = Scene::new();
    let inputs = scene.inputs();
    let attempt = |pods| {
        let observed = Observed { job: Some(job(&inputs, 0, Some("Complete"))), pods, ..scene.observed() };
        let State::Due { attempt, is_there, .. } = scene.plan(&observed).state else { panic!("done") };
        (attempt.number, is_there)
    };
    assert_eq!(attempt(vec![pod("Running", "git-clone", &json!({}))]), (0, true));
    assert_eq!(attempt(Vec::new()), (1, false));
    // Words of another build are no words of this one.
    assert_eq!(attempt(vec![pod("Succeeded", "builder", &built("other"))]), (1, false));
}

#[test]
fn what_somebody_has_to_change_is_not_tried_again_and_what_may_pass_is() {
    let scene = Scene::new();
    let inputs = scene.inputs();
    let concluded = |passing: bool, now: i64| {
        let observed = Observed {
            job: Some(job(&inputs, 0, Some("Failed"))),
            pods: vec![pod("Failed", "git-clone", &failed(&inputs, passing))],
            now: Timestamp::from_second(now).unwrap(),
            ..scene.observed()
        };
        let plan = scene.plan(&observed);
        let concluded = conclude(&observed, &plan);
        assert!(matches!(concluded.runs, Runs::Nothing(ref verdict) if verdict.reason == reason::IMAGE_NOT_BUILT));
        (concluded.said.reason.clone(), concluded.retry, plan.wait(), concluded.record.map_or(0, |record| record.attempt))
    };
    assert_eq!(concluded(false, 99_999), ("CloneDenied".to_owned(), Retry::OnChange, None, 0));
    let (soon, later) = (Duration::from_secs(20), Duration::from_secs(21));
    assert_eq!(concluded(true, 1010), ("CloneDenied".to_owned(), Retry::After(later), Some(soon), 0));
    // The next one is on its way.
    assert_eq!(concluded(true, 1030), (reason::JOB_NOT_COMPLETE.to_owned(), Retry::OnChange, None, 1));
}

#[test]
fn a_pod_that_left_no_message_says_what_kubernetes_knows() {
    let scene = Scene::new();
    let inputs = scene.inputs();
    let mut killed = (*pod("Failed", "builder", &json!({}))).clone();
    let status = killed.status.as_mut().unwrap();
    status.container_statuses = serde_json::from_value(json!([{"name": "builder", "state": {"terminated":
        {"exitCode": 137, "reason": "OOMKilled"}}}]))
    .unwrap();
    let observed = Observed { job: Some(job(&inputs, 0, Some("Failed"))), pods: vec![Arc::new(killed)], ..scene.observed() };
    let concluded = conclude(&observed, &scene.plan(&observed));
    assert_eq!(concluded.said.reason, reason::JOB_FAILED);
    assert!(concluded.said.message.contains("OOMKilled"), "{}", concluded.said.message);
}

#[test]
fn a_job_for_something_else_is_a_stray() {
    let scene = Scene::new();
    let observed = Observed { job: Some(job("other", 3, None)), ..scene.observed() };
    let plan = scene.plan(&observed);
    assert!(is_stray(&observed, &plan));
    assert!(matches!(plan.state, State::Due { attempt: Attempt { number: 0, .. }, is_there: false, failure: None }));
}

#[test]
fn an_image_that_the_spec_names_already_was_built_before_we_came() {
    let scene = Scene::new();
    let observed = Observed { image: Some(IMAGE), ..scene.observed() };
    let concluded = conclude(&observed, &scene.plan(&observed));
    assert_eq!((concluded.write, concluded.runs), (None, Runs::Spec));
    assert!(concluded.said.status && concluded.record.is_some_and(|record| record.digest.is_none()));
}

/// Whether the condition `Uploaded` holds.
fn says(concluded: &Concluded) -> Option<bool> {
    concluded.upload.as_ref()?.1.as_ref().map(|said| said.status)
}

#[test]
fn what_a_user_has_to_send_is_waited_for_and_another_request_builds_nothing_anew() {
    let mut scene = Scene::new();
    let image = format!("r.test/team/c-model-default-m:{}", "AB".repeat(16));
    let upload = |request: &str| json!({"upload": {"md5Checksum": "AB".repeat(16), "requestID": request}});
    scene.build = serde_json::from_value(upload("1")).unwrap();
    let planned = scene.plan(&scene.observed());
    assert_eq!((&planned.image, &planned.state), (&image, &State::Awaits));
    let concluded = conclude(&scene.observed(), &planned);
    assert_eq!((concluded.said.reason.as_str(), concluded.retry), ("AwaitingUpload", Retry::After(Duration::from_secs(301))));
    assert!(says(&concluded) == Some(false) && matches!(concluded.runs, Runs::Nothing(_)));
    let here = Observed { sent: Sent { is_here: true, ..Sent::default() }, ..scene.observed() };
    let planned = scene.plan(&here);
    assert!(matches!(planned.state, State::Due { .. }), "{planned:?}");
    assert_eq!(says(&conclude(&here, &planned)), Some(true));
    // Built, asked for again, and not here any more: it is built.
    let again: Build = serde_json::from_value(upload("2")).unwrap();
    let record = BuildStatus { image: Some(image.clone()), inputs: Some(planned.inputs), ..BuildStatus::default() };
    let later = Observed { build: &again, record: Some(&record), ..scene.observed() };
    let planned = scene.plan(&later);
    assert!(matches!(planned.state, State::Done(_)), "{planned:?}");
    assert_eq!(says(&conclude(&later, &planned)), Some(true));
    // What stops a build takes no URL from a client that sends.
    let known = BuildUpload { signed_url: Some("http://r.test".to_owned()), ..BuildUpload::default() };
    let stopped = stopped(&Observed { handshake: Some(&known), ..later }, &Verdict::invalid("spec", "it is odd"));
    assert_eq!(stopped.upload, Some((known.clone(), None)));
}
