//! Which servers are left alone for now: one that asks one connection to wait is not asked by any other, for a file or for a
//! plugin's question alike. Times are counted by a clock that nobody sets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use url::{Origin, Url};

/// Most servers that are remembered; those whose time is over are forgotten first.
const MOST: usize = 256;

/// Servers and until when. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Quiet(Arc<Mutex<HashMap<Origin, Instant>>>);

impl Quiet {
    /// The server of `url` is not asked for so long; what it said before may have been longer.
    pub fn keep(&self, url: &Url, wait: Duration) {
        let now = Instant::now();
        let mut all = self.all();
        if all.len() >= MOST {
            all.retain(|_, until| *until > now);
        }
        let until = all.entry(url.origin()).or_insert(now);
        *until = (*until).max(now + wait);
    }

    /// Time until the server of `url` may be asked; nothing where it may be now.
    pub fn left(&self, url: &Url) -> Option<Duration> {
        let left = self.all().get(&url.origin())?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Origin, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_left_alone_and_its_neighbour_is_not() {
        let url = |text| Url::parse(text).unwrap();
        let quiet = Quiet::default();
        quiet.keep(&url("https://hub.example/a"), Duration::from_millis(300));
        quiet.clone().keep(&url("https://hub.example/b"), Duration::from_millis(100));
        let left = quiet.left(&url("https://hub.example/c?d")).unwrap();
        assert!(left > Duration::from_millis(100) && left <= Duration::from_millis(300), "{left:?}");
        assert_eq!(quiet.left(&url("https://cdn.example/a")), None);
        assert_eq!(quiet.left(&url("https://hub.example:444/a")), None);
        tokio::time::sleep(left).await;
        assert_eq!(quiet.left(&url("https://hub.example/a")), None);
    }
}
