//! What an edit of a field does, as `kubectl explain` says it: one sentence per effect, said once. Knows names of fields, not
//! how the operator gets there.

const RUNS_AGAIN: &str =
    "An edit runs it again into a folder of its own; what was ready before stays in use until the new artifact is whole.";
const RESTARTS: &str = "An edit starts a run anew that is not complete; a complete one stays as it is.";
const PUSHES: &str = "An edit pushes what is complete to the new place; what was pushed before stays where it is.";
const PUSHES_ANEW: &str = "An edit starts a push anew that is not complete; a complete one stays as it is.";
const NEXT_RUN: &str = "An edit counts for the next run.";
const ROLLS_OUT: &str = "An edit rolls out new pods, one after the other.";
const SCALES: &str = "An edit adds or removes pods; the others stay as they are.";
const REPLACES: &str = "An edit replaces the pod; the workspace stays.";
const AT_ONCE: &str = "An edit takes effect at once.";
const NEXT_POD: &str = "An edit that raises or removes it takes effect at once; one that sets or lowers it, with the next pod.";

const BUILDS: &str =
    "An edit builds anew; what runs or is ready stays until the new image is there, and then it is as after an edit of `image`.";

/// What an edit of `spec.{field}` does; nothing is said of kinds that administrators write.
pub(crate) fn effect(kind: &str, field: &str) -> Option<&'static str> {
    Some(match (kind, field) {
        (_, "build") if matches!(kind, "Model" | "Dataset" | "Server" | "Notebook") => BUILDS,
        ("Model", "publish") => PUSHES,
        ("Model", "publishSecret") => PUSHES_ANEW,
        ("Model" | "Dataset", "env" | "resources" | "parallelism") => RESTARTS,
        (
            "Model" | "Dataset",
            "retries" | "imagePullSecrets" | "nodeSelector" | "tolerations" | "priorityClassName" | "volumes" | "securityContext",
        ) => NEXT_RUN,
        ("Model" | "Dataset", _) => RUNS_AGAIN,
        ("Server", "replicas") => SCALES,
        ("Server", _) => ROLLS_OUT,
        ("Notebook", "suspend") => AT_ONCE,
        ("Notebook", "idleTimeout") => NEXT_POD,
        ("Notebook", _) => REPLACES,
        _ => return None,
    })
}
