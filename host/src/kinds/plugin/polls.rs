//! When the tag of a Plugin is asked next. In memory alone: a restart asks again within one interval, and writes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use substratus_crds::{Plugin, UpdateMode};

use crate::kinds::shared::duration;
use crate::plugin::ImageName;

/// Where the spec does not say.
const INTERVAL: Duration = Duration::from_mins(10);

/// The time between two questions; nothing where the spec follows no tag.
pub fn interval(object: &Plugin) -> Option<Duration> {
    let update = object.spec.update.as_ref().filter(|update| update.mode == Some(UpdateMode::Track))?;
    let image = ImageName::parse(object.spec.image.as_deref()?).ok()?;
    if image.digest.is_some() {
        return None;
    }
    Some(update.interval.as_deref().and_then(duration::read).unwrap_or(INTERVAL))
}

/// When each tag was asked.
#[derive(Debug, Default)]
pub struct Polls(Mutex<HashMap<String, Poll>>);

#[derive(Clone, Copy, Debug)]
struct Poll {
    since: Instant,
    count: u32,
}

impl Polls {
    /// How long until the tag is asked again. The first time anywhere within the interval, so that a restart asks neither at
    /// once nor for all Plugins together; later a fifth around it.
    pub fn wait(&self, name: &str, interval: Duration, now: Instant) -> Duration {
        let mut polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let poll = *polls.entry(name.to_owned()).or_insert(Poll { since: now, count: 0 });
        let part = fraction(name, poll.count);
        let part = if poll.count == 0 { part } else { 0.4f64.mul_add(part, 0.8) };
        (poll.since + interval.mul_f64(part)).saturating_duration_since(now)
    }

    /// It was asked.
    pub fn asked(&self, name: &str, now: Instant) {
        let mut polls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = polls.get(name).map_or(0, |poll| poll.count).saturating_add(1);
        polls.insert(name.to_owned(), Poll { since: now, count });
    }

    /// Forgets Plugins that are gone.
    pub fn retain(&self, names: &BTreeSet<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name));
    }
}

/// A number between 0 and 1 that differs from Plugin to Plugin and from time to time.
fn fraction(name: &str, count: u32) -> f64 {
    let digest = Sha256::new().chain_update(name).chain_update(count.to_be_bytes()).finalize();
    digest.first().map_or(0.5, |byte| f64::from(*byte) / 255.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plugin(spec: &serde_json::Value) -> Plugin {
        let object = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": {"name": "a"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_tags_are_followed_and_only_where_that_is_asked_for() {
        let image = "registry.example/a:1";
        let pinned = format!("{image}@sha256:{}", "0".repeat(64));
        for (spec, expected) in [
            (json!({"image": image}), None),
            (json!({"image": image, "update": {"mode": "Pinned"}}), None),
            (json!({"image": image, "update": {"mode": "Track"}}), Some(INTERVAL)),
            (json!({"image": image, "update": {"mode": "Track", "interval": "90s"}}), Some(Duration::from_secs(90))),
            (json!({"image": image, "update": {"mode": "Track", "interval": "0s"}}), Some(INTERVAL)),
            (json!({"image": pinned, "update": {"mode": "Track"}}), None),
            (json!({"update": {"mode": "Track"}}), None),
        ] {
            assert_eq!(interval(&plugin(&spec)), expected, "{spec}");
        }
    }

    #[test]
    fn questions_are_an_interval_apart_and_not_all_at_once() {
        let (polls, start, interval) = (Polls::default(), Instant::now(), Duration::from_secs(100));
        let first: BTreeSet<Duration> = (0..50).map(|n| polls.wait(&n.to_string(), interval, start)).collect();
        assert!(first.len() > 20 && first.iter().all(|wait| *wait <= interval), "{first:?}");
        for number in 0..50 {
            polls.asked(&number.to_string(), start);
        }
        let later: BTreeSet<Duration> = (0..50).map(|n| polls.wait(&n.to_string(), interval, start)).collect();
        let fits = |wait: &Duration| (80..=120).contains(&wait.as_secs());
        assert!(later.len() > 20 && later.iter().all(fits), "{later:?}");
        assert_eq!(polls.wait("1", interval, start + interval * 2), Duration::ZERO);
    }
}
