//! Why a pod is in the state it is in, in the words of who stops it: the scheduler, the kubelet, the container. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::content;
use crate::reconcile::views::{ContainerStatusView, PodStatusView, PodView, StateView};
use crate::worker::report::Outcome;

/// Longest piece of a log that is repeated, in characters.
const MAX_LOG: usize = 600;

/// What holds up the pods of an object: the first one that says something, newest first. `None` where all are well. Pods that
/// ended are heard only where no other is at work.
pub fn of<'a>(pods: impl Iterator<Item = &'a PodView>) -> Option<String> {
    let (mut pods, ended): (Vec<&PodView>, Vec<&PodView>) = pods.partition(|pod| !has_ended(pod));
    if pods.is_empty() {
        pods = ended;
    }
    pods.sort_by(|a, b| b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp));
    pods.iter().find_map(|pod| one(pod))
}

/// Whether none of its containers will run again.
pub fn has_ended(pod: &PodView) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// What one pod says.
pub fn one(pod: &PodView) -> Option<String> {
    let status = pod.status.as_ref()?;
    // A pod that ended has better reasons than that it waited once.
    let waits = !has_ended(pod);
    if let Some(condition) = status.conditions.iter().find(|c| waits && c.type_ == "PodScheduled" && c.status == "False") {
        let words = condition.message.as_deref().unwrap_or("no node fits");
        return Some(format!("unschedulable{}: {words}", since(condition.last_transition_time.as_ref())));
    }
    if let Some(copy) = copying(status) {
        return Some(copy);
    }
    let created = pod.metadata.creation_timestamp.as_ref();
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    let from_container = containers.into_iter().find_map(|container| of_container(container, created));
    if from_container.is_some() {
        return from_container;
    }
    let reason = status.reason.as_deref()?;
    Some(format!("{reason}: {}", status.message.as_deref().unwrap_or("")))
}

/// What our own containers do while a pod waits for them.
fn copying(status: &PodStatusView) -> Option<String> {
    let ended = |container: &ContainerStatusView| container.state.terminated.is_some();
    let all_ended = !status.container_statuses.is_empty() && status.container_statuses.iter().all(ended);
    status.init_container_statuses.iter().find_map(|container| {
        let since = since(container.state.running.as_ref()?.started_at.as_ref());
        let name = container.name.as_str();
        match (name.strip_prefix(content::STAGE), name.strip_prefix(content::PUBLISH)) {
            (Some(what), _) => Some(format!("artifacts are copied into the pod by `{}{what}`{since}", content::STAGE)),
            (_, Some(_)) if all_ended => Some("what the container left is being published".to_owned()),
            _ => None,
        }
    })
}

/// ` (since 2026-11-24T04:00:00Z)`: behind what is waited for.
pub fn since(time: Option<&Time>) -> String {
    time.map(|time| format!(" (since {})", time.0)).unwrap_or_default()
}

fn of_container(container: &ContainerStatusView, created: Option<&Time>) -> Option<String> {
    let StateView { waiting, running, terminated } = &container.state;
    if let Some(waiting) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        let words = waiting.message.as_deref().unwrap_or("");
        return Some(match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                format!("{reason}: image `{}`: {words}", container.image)
            }
            "CrashLoopBackOff" => format!("{reason}{}", last_words(container)),
            "ContainerCreating" | "PodInitializing" if words.is_empty() => {
                format!("{reason}{}: waiting for image and volumes", since(created))
            }
            _ => format!("{reason}: {words}"),
        });
    }
    if let Some(ended) = terminated {
        if ended.exit_code == 0 {
            return None;
        }
        return Some(death(ended.reason.as_deref(), ended.exit_code, ended.message.as_deref()));
    }
    if running.is_some() && !container.ready {
        let since = since(running.as_ref().and_then(|running| running.started_at.as_ref()));
        return Some(match container.restart_count {
            0 => format!("container `{}` runs{since} and does not answer its probe yet", container.name),
            n => format!(
                "container `{}` runs{since} after {n} restarts and does not answer its probe yet{}",
                container.name,
                last_words(container)
            ),
        });
    }
    None
}

fn last_words(container: &ContainerStatusView) -> String {
    match &container.last_state.terminated {
        Some(ended) => format!(": {}", death(ended.reason.as_deref(), ended.exit_code, ended.message.as_deref())),
        None => String::new(),
    }
}

fn death(reason: Option<&str>, exit_code: i32, log: Option<&str>) -> String {
    let reason = reason.unwrap_or("Error");
    // Our own containers leave an outcome, of which people want the words.
    let said = log.and_then(|log| match serde_json::from_str(log) {
        Ok(Outcome::Failed { reason, message, .. }) => Some(format!("{message} ({reason})")),
        _ => None,
    });
    let log = said.as_deref().or(log).map(str::trim).filter(|log| !log.is_empty());
    match (reason, log) {
        ("OOMKilled", _) => {
            format!(
                "OOMKilled (exit code {exit_code}): the container used more memory than its limit or its node allows; ask for more with spec.resources.memory, or raise the limit that a LimitRange of the namespace sets"
            )
        }
        (_, Some(log)) => format!("{reason} (exit code {exit_code}): {}", tail(log)),
        (_, None) => format!("{reason} (exit code {exit_code})"),
    }
}

fn tail(log: &str) -> String {
    let skip = log.chars().count().saturating_sub(MAX_LOG);
    log.chars().skip(skip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(status: &serde_json::Value) -> PodView {
        serde_json::from_value(
            serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn scheduler_speaks_for_itself() {
        let pod = pod(&serde_json::json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}]}));
        assert_eq!(one(&pod).unwrap(), "unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.");
    }

    #[test]
    fn pod_that_ended_says_how_and_not_where() {
        let pod = pod(&serde_json::json!({"phase": "Failed", "conditions": [{"type": "PodScheduled", "status": "False"}],
            "containerStatuses": [{"name": "model", "image": "i",
                "state": {"terminated": {"exitCode": 3, "reason": "Error", "message": "no rows"}}}]}));
        assert_eq!(one(&pod).unwrap(), "Error (exit code 3): no rows");
    }

    #[test]
    fn copies_in_and_out_are_told() {
        let running = serde_json::json!({"running": {"startedAt": "2026-11-24T04:00:00Z"}});
        let stage = |state: &serde_json::Value| {
            pod(&serde_json::json!({"phase": "Pending", "initContainerStatuses": [{"name": "stage-model", "state": state}],
                "containerStatuses": [{"name": "serve", "image": "i", "state": {"waiting": {"reason": "PodInitializing"}}}]}))
        };
        let words = "artifacts are copied into the pod by `stage-model` (since 2026-11-24T04:00:00Z)";
        assert_eq!(one(&stage(&running)).unwrap(), words);
        let outcome = r#"{"outcome":"failed","inputs":"i","reason":"Forbidden","message":"the bucket refuses the key"}"#;
        let failed = stage(&serde_json::json!({"terminated": {"exitCode": 64, "reason": "Error", "message": outcome}}));
        assert_eq!(one(&failed).unwrap(), "Error (exit code 64): the bucket refuses the key (Forbidden)");
        let publishing = pod(&serde_json::json!({"phase": "Running",
            "initContainerStatuses": [{"name": "publish-artifacts", "state": running}],
            "containerStatuses": [{"name": "model", "state": {"terminated": {"exitCode": 0}}}]}));
        assert_eq!(one(&publishing).unwrap(), "what the container left is being published");
    }

    #[test]
    fn a_pod_that_ended_is_silent_beside_one_at_work() {
        let ended = pod(&serde_json::json!({"phase": "Failed", "containerStatuses": [{"name": "model", "image": "i",
            "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "cut off"}}}]}));
        let well = pod(&serde_json::json!({"phase": "Running", "containerStatuses": [{"name": "model", "image": "i",
            "ready": true, "state": {"running": {}}}]}));
        assert_eq!(of([&ended, &well].into_iter()), None);
        assert_eq!(of([&ended].into_iter()).unwrap(), "Error (exit code 1): cut off");
    }

    #[test]
    fn image_that_cannot_be_pulled_is_named() {
        let pod = pod(&serde_json::json!({"containerStatuses": [{"name": "serve", "image": "example/none:1",
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]}));
        assert_eq!(one(&pod).unwrap(), "ImagePullBackOff: image `example/none:1`: not found");
    }

    #[test]
    fn crash_loop_shows_the_last_words() {
        let pod = pod(&serde_json::json!({"containerStatuses": [{"name": "serve", "image": "i",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "no such model\n"}}}]}));
        assert_eq!(one(&pod).unwrap(), "CrashLoopBackOff: Error (exit code 1): no such model");
    }

    #[test]
    fn oom_kill_says_what_to_raise() {
        let pod = pod(&serde_json::json!({"containerStatuses": [{"name": "model", "image": "i",
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}));
        assert!(one(&pod).unwrap().starts_with("OOMKilled (exit code 137)"));
    }
}
