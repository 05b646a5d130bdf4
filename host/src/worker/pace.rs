//! How many connections are worth having: more as long as more bring more bytes a second, fewer when servers have enough of us.
//! Pure: it is told what was measured, and has no clock.

use std::time::Duration;

/// How long is measured before anything is concluded.
pub const ROUND: Duration = Duration::from_millis(250);
/// Connections to begin with.
const FIRST: usize = 16;
/// Rounds without an attempt at more, after one that did not pay or after trouble.
const REST: u32 = 8;
/// Rounds that one trouble counts for: connections that were opened together fail together.
const ONE_TROUBLE: u32 = 4;
/// Of the growth in connections, the part that bytes a second must grow by. A new one begins slowly, so it is not all of it.
const WORTH: f64 = 0.2;

/// A hill climb over the number of connections.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    limit: usize,
    most: usize,
    /// Nothing speaks against twice as many yet.
    doubling: bool,
    phase: Phase,
    /// Rounds since connections were taken away.
    since_trouble: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// More connections than `before`, when `rate` bytes a second came. One more round is given to those that are not open yet.
    Trying { before: usize, rate: f64, again: bool },
    /// So many rounds of rest.
    Resting(u32),
}

impl Pace {
    /// At most `most` connections.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { limit: FIRST.min(most), most, doubling: true, phase: Phase::Resting(0), since_trouble: ONE_TROUBLE }
    }

    /// Connections at the same time, now.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// A round is over: `rate` bytes a second came. Where nobody `wanted` another connection, that says nothing of more of them.
    pub fn round(&mut self, rate: f64, wanted: bool) {
        self.since_trouble = self.since_trouble.saturating_add(1);
        match self.phase {
            _ if !wanted => self.phase = Phase::Resting(0),
            Phase::Resting(0) => self.grow(rate),
            Phase::Resting(rounds) => self.phase = Phase::Resting(rounds - 1),
            Phase::Trying { before, rate: less, .. } if rate > less * (1.0 + WORTH * growth(before, self.limit)) => {
                self.grow(rate);
            }
            Phase::Trying { before, rate, again: false } => self.phase = Phase::Trying { before, rate, again: true },
            Phase::Trying { before, .. } => {
                (self.limit, self.doubling, self.phase) = (before, false, Phase::Resting(REST));
            }
        }
    }

    /// A server refused for now, or did not answer in time.
    pub fn trouble(&mut self) {
        if self.since_trouble >= ONE_TROUBLE {
            self.limit = (self.limit / 2).max(1);
            (self.doubling, self.phase, self.since_trouble) = (false, Phase::Resting(REST), 0);
        }
    }

    fn grow(&mut self, rate: f64) {
        let before = self.limit;
        let more = if self.doubling { before } else { (before / 4).max(1) };
        self.limit = before.saturating_add(more).min(self.most);
        self.phase = if self.limit > before { Phase::Trying { before, rate, again: false } } else { Phase::Resting(REST) };
    }
}

/// By which part of `before` the number grew.
#[expect(clippy::cast_precision_loss, reason = "hundreds at most")]
fn growth(before: usize, now: usize) -> f64 {
    now.saturating_sub(before) as f64 / before.max(1) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EACH: f64 = 40e6;

    /// So many rounds on a line where every connection brings 40 MB/s, and all of them together at most `line`.
    fn after(pace: &mut Pace, rounds: usize, line: f64) -> usize {
        for _ in 0..rounds {
            let rate = (f64::from(u32::try_from(pace.limit()).unwrap()) * EACH).min(line);
            pace.round(rate, true);
        }
        pace.limit()
    }

    #[test]
    fn it_grows_as_long_as_more_brings_more() {
        let mut pace = Pace::new(64);
        assert_eq!(pace.limit(), 16);
        assert_eq!(after(&mut pace, 2, f64::MAX), 64);
        assert_eq!(after(&mut pace, 100, f64::MAX), 64, "never more than allowed");
    }

    #[test]
    fn it_stays_near_what_a_line_can_carry() {
        let mut pace = Pace::new(64);
        after(&mut pace, 40, 24.0 * EACH);
        let most = (0..100).map(|_| after(&mut pace, 1, 24.0 * EACH)).max().unwrap();
        assert!((20..=40).contains(&pace.limit()) && most <= 40, "{pace:?} {most}");
        let mut pace = Pace::new(64);
        assert!(after(&mut pace, 40, EACH) <= 20, "more than enough is not added to: {pace:?}");
    }

    #[test]
    fn what_nobody_asked_for_is_not_given() {
        let mut pace = Pace::new(32);
        (0..50).for_each(|_| pace.round(1e9, false));
        assert_eq!(pace.limit(), 16);
    }

    #[test]
    fn connections_that_fail_together_count_once_and_growth_comes_back() {
        let mut pace = Pace::new(32);
        after(&mut pace, 4, f64::MAX);
        (0..32).for_each(|_| pace.trouble());
        assert_eq!(pace.limit(), 16);
        after(&mut pace, 4, f64::MAX);
        pace.trouble();
        assert_eq!(pace.limit(), 8);
        assert_eq!(after(&mut pace, 60, f64::MAX), 32);
    }

    proptest! {
        #[test]
        fn there_is_always_one_and_never_too_many(
            most in 1..300_usize,
            steps in prop::collection::vec((0.0..1e10_f64, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut pace = Pace::new(most);
            for (rate, wanted, trouble) in steps {
                if trouble {
                    pace.trouble();
                }
                pace.round(rate, wanted);
                prop_assert!((1..=most).contains(&pace.limit()));
            }
        }
    }
}
