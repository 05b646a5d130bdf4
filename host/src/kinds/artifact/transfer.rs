//! What the status says of a load that moves, from what its worker reports: seldom enough to be watched by many, and what deserves
//! an Event. Pure; all memory is the status itself, so that an operator that starts anew tells nothing twice.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use substratus_crds::TransferStatus;

use crate::kinds::shared::conditions::whole_second;
use crate::kinds::shared::verdict::Retry;
use crate::reconcile::News;
use crate::store::Report;
use crate::worker::progress::human;

/// A status that moves is written this far apart at least. Kubernetes keeps whole seconds, so one is added.
const EVERY: Duration = Duration::from_secs(5 + 1);
/// A load of which nothing came for so long has stalled. The worker itself replaces a silent connection after half of it.
const STALL: Duration = Duration::from_mins(1);

/// Reasons of Events.
const STARTED: &str = "LoadStarted";
const PROGRESSED: &str = "LoadProgressed";
const STALLED: &str = "LoadStalled";
const RESUMED: &str = "LoadResumed";
/// What a worker does, in Events.
const LOAD: &str = "Load";

/// What the status shows after a report, and when to look again although nobody reports.
pub(super) fn follow(known: Option<&TransferStatus>, report: &Report, now: Timestamp) -> (Option<TransferStatus>, Retry) {
    let new = &report.progress.transfer;
    // Whoever has every byte is looking at them. An operator that starts anew has seen nothing stand, but knows what stood.
    let waits = new.bytes_done < new.bytes_total;
    let stands = known.is_some_and(|known| known.stalled && !moved(known, new));
    let stalled = waits && (stands || report.still >= STALL);
    let look = if waits && !stalled { Retry::After(STALL.saturating_sub(report.still)) } else { Retry::OnChange };
    // Before its plan is made a worker knows no files, and one that goes on would seem to begin anew.
    let says_nothing = new.files_total == 0;
    let same = known.is_some_and(|known| known.stalled == stalled && !moved(known, new));
    if says_nothing || same {
        return (known.cloned(), look);
    }
    if let Some(left) = known.and_then(|known| too_soon(known, now)) {
        return (known.cloned(), Retry::After(left));
    }
    let announced = Some(quarter(new).max(known.and_then(|known| known.announced).unwrap_or(0)));
    let next = TransferStatus { stalled, announced, time: Some(Time(whole_second(now))), ..new.clone() };
    let next = if stalled { TransferStatus { bytes_per_second: 0, eta_seconds: None, ..next } } else { next };
    (Some(next), look)
}

/// Something that a person waits for is another.
fn moved(known: &TransferStatus, new: &TransferStatus) -> bool {
    let counts = |transfer: &TransferStatus| {
        (transfer.bytes_done, transfer.bytes_total, transfer.files_done, transfer.files_total, transfer.pod.clone())
    };
    counts(known) != counts(new)
}

/// How long to keep what was written last.
fn too_soon(known: &TransferStatus, now: Timestamp) -> Option<Duration> {
    let since = now.duration_since(known.time.as_ref()?.0);
    // A clock that was set back must not hold a status for long.
    let since = Duration::try_from(since).ok()?;
    EVERY.checked_sub(since).filter(|left| !left.is_zero())
}

/// The last quarter that is there: 0, 25, 50 or 75. The whole is the condition's to tell.
fn quarter(transfer: &TransferStatus) -> i32 {
    let quarters = (i128::from(transfer.bytes_done) * 4).checked_div(i128::from(transfer.bytes_total)).unwrap_or(0);
    i32::try_from(quarters.clamp(0, 3)).unwrap_or(0) * 25
}

/// What is worth an Event between two statuses.
pub(super) fn news(before: Option<&TransferStatus>, now: Option<&TransferStatus>) -> Vec<News> {
    // One that is whole is announced no more.
    let Some((now, announced)) = now.and_then(|now| Some((now, now.announced?))) else { return Vec::new() };
    let told = |reason: &str, action: &str, note: String| News {
        warning: reason == STALLED,
        reason: reason.to_owned(),
        action: action.to_owned(),
        note,
    };
    let far = format!("{} of {}, {} of {} files", human(now.bytes_done), human(now.bytes_total), now.files_done, now.files_total);
    let pod = now.pod.as_deref().unwrap_or("unknown");
    let Some((before, earlier)) = before.and_then(|before| Some((before, before.announced?))) else {
        return vec![told(STARTED, LOAD, format!("pod `{pod}` loads: {far}"))];
    };
    let mut news = Vec::new();
    if before.pod != now.pod || (before.stalled && !now.stalled) {
        news.push(told(RESUMED, LOAD, format!("pod `{pod}` goes on: {far}")));
    }
    if now.stalled && !before.stalled {
        let note = format!("nothing has come for {} seconds: {far}; see why with: kubectl logs {pod}", STALL.as_secs());
        news.push(told(STALLED, LOAD, note));
    }
    if announced > earlier {
        news.push(told(PROGRESSED, &format!("Reach{announced}"), format!("{announced}% are there: {far}")));
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::report::Progress;

    fn report(percent: i64, still: u64) -> Report {
        let transfer = TransferStatus {
            bytes_done: percent,
            bytes_total: 100,
            bytes_per_second: 7,
            files_total: 1,
            pod: Some("p".to_owned()),
            ..TransferStatus::default()
        };
        Report { progress: Progress { inputs: "i".to_owned(), transfer }, still: Duration::from_secs(still) }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// What one pass after another writes and tells.
    fn story(steps: &[(i64, i64, u64)]) -> (usize, Vec<String>) {
        let (mut known, mut writes, mut told): (Option<TransferStatus>, _, _) = (None, 0, Vec::new());
        for (second, percent, still) in steps {
            let (next, _) = follow(known.as_ref(), &report(*percent, *still), at(*second));
            writes += usize::from(next != known);
            told.extend(news(known.as_ref(), next.as_ref()).into_iter().map(|news| news.reason));
            known = next;
        }
        (writes, told)
    }

    #[test]
    fn a_load_is_told_at_its_start_each_quarter_a_stall_and_when_it_goes_on() {
        let steps = [
            (0, 0, 0),
            (10, 10, 0),
            (20, 26, 0),
            (30, 30, 0),
            (99, 30, 60),
            (120, 30, 81),
            (130, 31, 0),
            (140, 80, 0),
            (150, 99, 0),
        ];
        let (writes, told) = story(&steps);
        assert_eq!(told, [STARTED, PROGRESSED, STALLED, RESUMED, PROGRESSED]);
        assert_eq!(writes, steps.len() - 1, "a stall is written once");
    }

    #[test]
    fn a_status_is_written_every_five_seconds_and_not_when_nothing_moved() {
        let steps: Vec<(i64, i64, u64)> = (0..60).map(|second| (second, second / 2, 0)).collect();
        assert_eq!(story(&steps).0, 10);
        assert_eq!(story(&[(0, 5, 0), (10, 5, 10), (20, 5, 20)]), (1, vec![STARTED.to_owned()]));
        let (_, retry) = follow(Some(&follow(None, &report(1, 0), at(0)).0.unwrap()), &report(2, 0), at(2));
        assert_eq!(retry, Retry::After(Duration::from_secs(4)), "what is held back is written later");
        assert_eq!(
            follow(None, &report(1, 20), at(0)).1,
            Retry::After(Duration::from_secs(40)),
            "a stall is seen though nobody says so"
        );
    }

    #[test]
    fn what_stood_before_a_restart_stands_after_it_and_who_has_all_does_not_stall() {
        let steps = [(0, 10, 0), (60, 10, 60), (70, 10, 0), (130, 10, 60), (140, 100, 0), (300, 100, 160)];
        let (writes, told) = story(&steps);
        assert_eq!((writes, told.as_slice()), (3, &[STARTED, STALLED, RESUMED, PROGRESSED].map(str::to_owned)[..]));
        assert_eq!(follow(None, &report(100, 90), at(0)).1, Retry::OnChange, "nobody looks every second");
    }

    #[test]
    fn another_pod_goes_on_and_repeats_no_quarter() {
        let (known, _) = follow(None, &report(60, 0), at(0));
        let mut other = report(10, 0);
        other.progress.transfer.pod = Some("q".to_owned());
        let (next, _) = follow(known.as_ref(), &other, at(10));
        let told = news(known.as_ref(), next.as_ref());
        assert!(told.len() == 1 && told[0].reason == RESUMED && told[0].note.contains("`q` goes on"), "{told:?}");
        let mut again = other;
        again.progress.transfer.bytes_done = 60;
        let (last, _) = follow(next.as_ref(), &again, at(20));
        assert!(news(next.as_ref(), last.as_ref()).is_empty());
        // A worker that has no plan yet says nothing.
        assert_eq!(
            follow(
                last.as_ref(),
                &Report { progress: Progress { inputs: "i".into(), transfer: TransferStatus::default() }, still: Duration::ZERO },
                at(30)
            )
            .0,
            last
        );
    }
}
