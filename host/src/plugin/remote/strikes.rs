//! Which component ended the sandbox how often, and whether it may be asked again. Pure: the clock is handed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::limits::{CRASHES, QUARANTINE};

/// Ends of the sandbox by digest, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Strikes(HashMap<String, Vec<Instant>>);

/// Not to be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Quarantine {
    pub(super) crashes: usize,
    pub(super) left: Duration,
}

impl Strikes {
    /// The sandbox ended, and nothing but this component ran in it.
    pub(super) fn add(&mut self, digest: &str, now: Instant) {
        self.forget(now);
        self.0.entry(digest.to_owned()).or_default().push(now);
    }

    /// Whether a component is not to be asked.
    pub(super) fn quarantine(&self, digest: &str, now: Instant) -> Option<Quarantine> {
        let crashes = self.0.get(digest)?;
        let last = crashes.last()?;
        let left = QUARANTINE.checked_sub(now.saturating_duration_since(*last)).filter(|left| !left.is_zero())?;
        (crashes.len() >= CRASHES).then_some(Quarantine { crashes: crashes.len(), left })
    }

    /// How many components are not to be asked.
    pub(super) fn quarantined(&self, now: Instant) -> usize {
        self.0.keys().filter(|digest| self.quarantine(digest, now).is_some()).count()
    }

    /// Forgets what is long ago: of a component that is in quarantine nothing, until that ends.
    fn forget(&mut self, now: Instant) {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < QUARANTINE;
        self.0.retain(|_, crashes| crashes.last().is_some_and(recent));
        for crashes in self.0.values_mut().filter(|crashes| crashes.len() < CRASHES) {
            crashes.retain(recent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn three_ends_in_ten_minutes_are_too_many() {
        let (mut strikes, start) = (Strikes::default(), Instant::now());
        for minute in 0..2 {
            strikes.add("a", start + MINUTE * minute);
            assert_eq!(strikes.quarantine("a", start + MINUTE * minute), None);
        }
        strikes.add("a", start + MINUTE * 2);
        let quarantine = strikes.quarantine("a", start + MINUTE * 3);
        assert_eq!(quarantine, Some(Quarantine { crashes: 3, left: MINUTE * 9 }));
        assert_eq!((strikes.quarantine("b", start), strikes.quarantined(start + MINUTE * 3)), (None, 1));
    }

    #[test]
    fn a_quarantine_ends_and_old_ends_do_not_count() {
        let (mut strikes, start) = (Strikes::default(), Instant::now());
        for minute in [0, 6, 12] {
            strikes.add("a", start + MINUTE * minute);
        }
        assert_eq!(strikes.quarantine("a", start + MINUTE * 12), None, "never three in ten minutes");
        strikes.add("a", start + MINUTE * 13);
        assert!(strikes.quarantine("a", start + MINUTE * 13).is_some());
        assert_eq!(strikes.quarantine("a", start + MINUTE * 23), None);
        strikes.add("a", start + MINUTE * 24);
        assert_eq!(strikes.quarantine("a", start + MINUTE * 24), None, "it begins anew");
    }
}
