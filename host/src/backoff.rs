//! Growing pauses per name. Knows nothing of what failed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often each name failed in a row.
#[derive(Debug)]
pub struct Failures<K> {
    first: Duration,
    longest: Duration,
    counts: Arc<Mutex<HashMap<K, u32>>>,
}

impl<K> Clone for Failures<K> {
    fn clone(&self) -> Self {
        Self { first: self.first, longest: self.longest, counts: Arc::clone(&self.counts) }
    }
}

impl<K: Hash + Eq + Clone> Failures<K> {
    /// Pauses that double from `first` to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, counts: Arc::default() }
    }

    /// One more failure: how long to wait.
    pub fn next(&self, name: &K) -> Duration {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(name.clone()).or_default();
        let pause = self.first.saturating_mul(2_u32.saturating_pow(*count)).min(self.longest);
        *count = count.saturating_add(1);
        pause
    }

    /// It worked.
    pub fn forget(&self, name: &K) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let failures = Failures::new(Duration::from_secs(1), Duration::from_secs(5));
        let pauses: Vec<u64> = (0..5).map(|_| failures.next(&"a").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        failures.forget(&"a");
        assert_eq!(failures.next(&"a").as_secs(), 1);
    }
}
