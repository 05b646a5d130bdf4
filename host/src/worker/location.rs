//! Where a file is: the URL that its loader gave, where redirects led from there, and how long each works. Asks nobody.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use url::Url;

use super::expiry::lifetime;
use super::plan::Origin;

/// How often in a row a loader is asked where a file is now, without a byte from where it said.
pub(super) const MAX_REFRESHES: u32 = 2;

/// Where a file is.
#[derive(Clone, Debug)]
pub(super) struct Location {
    pub(super) origin: Origin,
    /// Where redirects led to: later ranges go there at once, sparing the hub.
    pub(super) direct: Option<Url>,
    /// Counts answers of the loader.
    pub(super) generation: u32,
    /// Those of them that have brought nothing yet.
    pub(super) fruitless: u32,
    /// When each of the URLs runs out, by a clock that nobody sets.
    origin_ends: Option<Instant>,
    direct_ends: Option<Instant>,
}

impl Location {
    /// What the plan says.
    pub(super) fn new(origin: Origin) -> Self {
        let origin_ends = ends(&origin, now());
        Self { origin, direct: None, generation: 0, fruitless: 0, origin_ends, direct_ends: None }
    }

    /// What the loader says now.
    pub(super) fn renewed(&self, origin: Origin) -> Self {
        Self { generation: self.generation + 1, fruitless: self.fruitless + 1, ..Self::new(origin) }
    }

    /// The URL to ask.
    pub(super) fn url(&self) -> &Url {
        self.direct.as_ref().unwrap_or(&self.origin.url)
    }

    /// The URL of `asked` gave bytes, after redirects from `led_to`, by whose clock it is `date` now.
    pub(super) fn answered(&mut self, asked: &Self, led_to: &Url, date: Option<i64>) {
        if self.generation != asked.generation {
            return;
        }
        self.fruitless = 0;
        if asked.direct.is_none() && *led_to != asked.origin.url {
            self.direct = Some(led_to.clone());
            self.direct_ends = lifetime(led_to, date.unwrap_or_else(now)).and_then(|left| Instant::now().checked_add(left));
        }
    }

    /// Goes back to where redirects begin, unless somebody did already.
    pub(super) fn back(&mut self, tried: &Self) {
        if self.direct == tried.direct {
            (self.direct, self.direct_ends) = (None, None);
        }
    }

    /// Something that takes `time` would not end before the URL that redirects led to does.
    pub(super) fn direct_is_over(&self, time: Duration) -> bool {
        self.direct.is_some() && is_over(self.direct_ends, time)
    }

    /// The same of the loader's own URL. One that comes too late from the loader twice is used as it is: perhaps it is our clock
    /// that is wrong.
    pub(super) fn origin_is_over(&self, time: Duration) -> bool {
        self.direct.is_none() && self.fruitless < MAX_REFRESHES && is_over(self.origin_ends, time)
    }
}

fn is_over(ends: Option<Instant>, time: Duration) -> bool {
    ends.is_some_and(|ends| ends.saturating_duration_since(Instant::now()) < time)
}

/// The loader's word counts, and what the URL says of itself where that is sooner.
fn ends(origin: &Origin, now: i64) -> Option<Instant> {
    let told = origin.expires.map(|expires| Duration::from_secs(expires.saturating_sub(now.unsigned_abs())));
    let left = [told, lifetime(&origin.url, now)].into_iter().flatten().min()?;
    Instant::now().checked_add(left)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str, expires: Option<u64>) -> Origin {
        Origin { url: Url::parse(url).unwrap(), headers: http::HeaderMap::new(), auth: None, expires }
    }

    #[tokio::test]
    async fn a_url_is_left_before_it_runs_out_by_the_clock_of_its_signer() {
        let hub = Location::new(origin("https://hub.example/f", None));
        let signed = Url::parse("https://cdn.example/f?Expires=1100").unwrap();
        let mut location = hub.clone();
        // Our clock is years away from the signer's.
        location.answered(&hub, &signed, Some(1000));
        assert_eq!(location.url(), &signed);
        assert!(!location.direct_is_over(Duration::from_secs(90)) && location.direct_is_over(Duration::from_secs(110)));
        let tried = location.clone();
        location.back(&tried);
        assert_eq!(location.url(), &hub.origin.url);
        assert!(!location.origin_is_over(Duration::from_mins(1)), "nobody said that it ends");
    }

    #[tokio::test]
    async fn the_loader_is_asked_in_time_and_not_for_ever() {
        let soon = origin("https://hub.example/f", Some(u64::try_from(now()).unwrap() + 20));
        let need = Duration::from_secs(30);
        let mut location = Location::new(soon.clone());
        assert!(location.origin_is_over(need) && !location.origin_is_over(Duration::from_secs(5)));
        location = location.renewed(soon.clone());
        assert!(location.origin_is_over(need));
        location = location.renewed(soon.clone());
        assert!(!location.origin_is_over(need), "it is no better the second time");
        let asked = location.clone();
        location.answered(&asked, &soon.url, None);
        assert_eq!((location.fruitless, location.generation), (0, 2));
    }
}
