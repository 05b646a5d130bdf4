//! When a load that ended badly is started again: with growing pauses, or at once when the user says so. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::kinds::shared::names::{ATTEMPT, RETRY};
use crate::reconcile::views::{ConditionView, JobView};
use crate::worker::report::Outcome;

/// First pause.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// Which try a Job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// 0 for the first.
    pub number: u32,
    /// The value of the retry annotation that it answers.
    pub token: String,
    /// Until the next one, where this one failed.
    pub wait: Option<Duration>,
}

/// What `build` finds out besides the children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Which try the Job is.
    pub attempt: Attempt,
    /// The Job that is there is this very try, and not one that is about to be replaced.
    pub is_there: bool,
    /// The same of the Job that pushes what is complete, where one is to run.
    pub push: Option<Box<Self>>,
}

/// The try that should exist now. `token` is the object's retry annotation; `basis` says whether the Job at hand is for the
/// same inputs at all; `recorded` is the try on record for these inputs, which counts while one Job goes and the next comes.
pub fn attempt(
    job: Option<&JobView>,
    recorded: u32,
    same_basis: bool,
    outcome: Option<&Outcome>,
    token: Option<&str>,
    now: Timestamp,
) -> Attempt {
    let Some(job) = job else { return Attempt { number: recorded, ..fresh(token) } };
    if !same_basis {
        return fresh(token);
    }
    let current = current(job);
    if job.holds("Complete").is_some() {
        // The message was lost with the pod: a re-run finds the manifest and says it again.
        return if outcome.is_none() { next(current) } else { current };
    }
    let Some(failed) = job.holds("Failed") else { return current };
    after(failed, current, outcome, token, now)
}

/// The same for a container that succeeded, and of which `said` is what its publisher says: without a word of it nothing counts.
pub fn published(job: &JobView, said: Option<&Outcome>, token: Option<&str>, now: Timestamp) -> Attempt {
    match (said, job.holds("Complete")) {
        (Some(Outcome::Failed { .. }), Some(ended)) => after(ended, current(job), said, token, now),
        (None, _) => next(current(job)),
        (Some(_), _) => current(job),
    }
}

/// The try after one that came to nothing.
fn after(ended: &ConditionView, current: Attempt, outcome: Option<&Outcome>, token: Option<&str>, now: Timestamp) -> Attempt {
    if token.is_some_and(|token| token != current.token) {
        return fresh(token);
    }
    let asked = match outcome {
        Some(Outcome::Failed { retry_after: Some(seconds), .. }) => Duration::from_secs(*seconds),
        _ => Duration::ZERO,
    };
    let pause = pause(current.number).max(asked.min(LONGEST_PAUSE));
    let since = ended.last_transition_time.as_ref().map_or(now, |time| time.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    match pause.checked_sub(passed).filter(|left| !left.is_zero()) {
        Some(left) => Attempt { wait: Some(left), ..current },
        None => next(current),
    }
}

/// The same for a container, which runs once: only a new value of the annotation starts a failed one again.
pub fn once(job: Option<&JobView>, recorded: u32, same_basis: bool, token: Option<&str>) -> Attempt {
    match job.filter(|_| same_basis).map(|job| (current(job), job.holds("Failed").is_some())) {
        Some((current, true)) if token.is_some_and(|token| token != current.token) => fresh(token),
        Some((current, _)) => current,
        None if job.is_none() => Attempt { number: recorded, ..fresh(token) },
        None => fresh(token),
    }
}

fn fresh(token: Option<&str>) -> Attempt {
    Attempt { number: 0, token: token.unwrap_or_default().to_owned(), wait: None }
}

fn current(job: &JobView) -> Attempt {
    Attempt {
        number: job.annotation(ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(0),
        token: job.annotation(RETRY).unwrap_or_default().to_owned(),
        wait: None,
    }
}

fn next(current: Attempt) -> Attempt {
    Attempt { number: current.number.saturating_add(1), ..current }
}

fn pause(number: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(number.min(10))).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failed(number: &str, token: &str) -> JobView {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "m-modeller", "annotations": {ATTEMPT: number, RETRY: token}},
            "status": {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "1970-01-01T00:16:40Z"}]},
        }))
        .unwrap()
    }

    fn needs_auth(retry_after: Option<u64>) -> Outcome {
        Outcome::Failed { inputs: "i".into(), reason: "NeedsAuth".into(), message: String::new(), retry_after }
    }

    #[test]
    fn pauses_grow_and_end_in_the_next_try() {
        let (job, outcome) = (failed("1", ""), needs_auth(None));
        let waiting = attempt(Some(&job), 0, true, Some(&outcome), None, at(1010));
        assert_eq!(waiting, Attempt { number: 1, token: String::new(), wait: Some(Duration::from_secs(50)) });
        let due = attempt(Some(&job), 0, true, Some(&outcome), None, at(1060));
        assert_eq!((due.number, due.wait), (2, None));
        assert_eq!(pause(50), LONGEST_PAUSE);
    }

    #[test]
    fn source_may_ask_for_a_longer_pause() {
        let outcome = needs_auth(Some(500));
        let waiting = attempt(Some(&failed("0", "")), 0, true, Some(&outcome), None, at(1100));
        assert_eq!(waiting.wait, Some(Duration::from_secs(400)));
    }

    #[test]
    fn count_goes_on_while_no_job_is_there() {
        let between = attempt(None, 3, false, None, None, at(1000));
        assert_eq!((between.number, between.wait), (3, None));
    }

    #[test]
    fn annotation_starts_again_at_once() {
        let outcome = needs_auth(None);
        let again = attempt(Some(&failed("5", "old")), 5, true, Some(&outcome), Some("new"), at(1001));
        assert_eq!(again, Attempt { number: 0, token: "new".into(), wait: None });
    }

    #[test]
    fn container_runs_once_unless_somebody_says_again() {
        let job = failed("0", "old");
        assert_eq!(once(Some(&job), 0, true, None).token, "old");
        assert_eq!(once(Some(&job), 0, true, Some("old")).token, "old");
        assert_eq!(once(Some(&job), 0, true, Some("new")).token, "new");
        let running: JobView = serde_json::from_value(serde_json::json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "m", "annotations": {RETRY: "old"}}}))
        .unwrap();
        assert_eq!(once(Some(&running), 0, true, Some("new")).token, "old", "what runs is left alone");
    }

    #[test]
    fn publisher_that_says_nothing_has_the_container_run_again() {
        let ended = serde_json::json!([{"type": "Complete", "status": "True", "lastTransitionTime": "1970-01-01T00:16:40Z"}]);
        let mut job = failed("1", "");
        job.status.conditions = serde_json::from_value(ended).unwrap();
        assert_eq!(published(&job, None, None, at(1001)).number, 2);
        // The next Job is made when the one before it has gone.
        assert_eq!(once(None, 2, false, None).number, 2);
        let whole = Outcome::Complete { inputs: "i".into(), source: substratus_crds::SourceStatus::default(), reused: 0 };
        assert_eq!(published(&job, Some(&whole), None, at(9999)).number, 1);
        let denied = needs_auth(None);
        assert_eq!(published(&job, Some(&denied), None, at(1001)).wait, Some(Duration::from_secs(59)));
        assert_eq!(published(&job, Some(&denied), None, at(1060)).number, 2);
        assert_eq!(published(&job, Some(&denied), Some("again"), at(1001)).token, "again");
    }

    #[test]
    fn other_inputs_start_from_zero() {
        let again = attempt(Some(&failed("5", "")), 5, false, None, None, at(1001));
        assert_eq!(again, Attempt::default());
    }
}
