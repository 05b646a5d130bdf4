//! Whose turn it is, from a Lease and the time it was last seen to change. Pure: no client, and the clock is handed in.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::time::Instant;

/// What a look at the Lease asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is none: make one.
    Create,
    /// Nobody holds it, or its holder stopped renewing: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else holds it.
    Wait {
        /// Who.
        holder: String,
    },
}

/// When the Lease was last seen to change, by our own clock. Times written by other machines are never compared with ours.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    version: Option<String>,
    since: Option<Instant>,
}

impl Seen {
    /// Remembers `now` where the Lease is not the one seen before.
    pub fn observe(&mut self, lease: Option<&Lease>, now: Instant) {
        let version = lease.and_then(|lease| lease.metadata.resource_version.clone());
        if self.since.is_none() || version != self.version {
            *self = Self { version, since: Some(now) };
        }
    }
}

/// Decides. `duration` is ours; the holder's own, if longer, counts.
pub fn decide(lease: Option<&Lease>, identity: &str, seen: &Seen, now: Instant, duration: Duration) -> Decision {
    let Some(lease) = lease else { return Decision::Create };
    let spec = lease.spec.as_ref();
    let holder = spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    if holder.is_empty() {
        return Decision::Take;
    }
    if holder == identity {
        return Decision::Renew;
    }
    let promised = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|seconds| u64::try_from(seconds).ok());
    let duration = promised.map_or(duration, |seconds| duration.max(Duration::from_secs(seconds)));
    let unchanged = seen.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
    if unchanged > duration { Decision::Take } else { Decision::Wait { holder: holder.to_owned() } }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::LeaseSpec;
    use kube::api::ObjectMeta;

    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() }),
        }
    }

    fn look(lease: Option<&Lease>, seen: &mut Seen, now: Instant) -> Decision {
        seen.observe(lease, now);
        decide(lease, "me", seen, now, DURATION)
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        let now = Instant::now();
        assert_eq!(look(None, &mut Seen::default(), now), Decision::Create);
        assert_eq!(look(Some(&lease("", "1")), &mut Seen::default(), now), Decision::Take);
        assert_eq!(look(Some(&Lease::default()), &mut Seen::default(), now), Decision::Take);
    }

    #[test]
    fn our_own_lease_is_renewed_even_after_a_restart() {
        assert_eq!(look(Some(&lease("me", "1")), &mut Seen::default(), Instant::now()), Decision::Renew);
    }

    #[test]
    fn a_silent_holder_is_replaced_after_the_duration_and_a_living_one_never() {
        let start = Instant::now();
        let wait = Decision::Wait { holder: "other".to_owned() };
        let mut seen = Seen::default();
        assert_eq!(look(Some(&lease("other", "1")), &mut seen, start), wait);
        assert_eq!(look(Some(&lease("other", "1")), &mut seen, start + DURATION), wait);
        assert_eq!(look(Some(&lease("other", "2")), &mut seen, start + DURATION * 2), wait, "it renewed");
        assert_eq!(look(Some(&lease("other", "2")), &mut seen, start + DURATION * 3 + Duration::from_millis(1)), Decision::Take);
    }

    #[test]
    fn a_holder_that_promised_longer_keeps_it_longer() {
        let start = Instant::now();
        let mut other = lease("other", "1");
        other.spec.as_mut().unwrap().lease_duration_seconds = Some(60);
        let mut seen = Seen::default();
        look(Some(&other), &mut seen, start);
        assert!(matches!(look(Some(&other), &mut seen, start + Duration::from_secs(59)), Decision::Wait { .. }));
        assert_eq!(look(Some(&other), &mut seen, start + Duration::from_secs(61)), Decision::Take);
    }
}
