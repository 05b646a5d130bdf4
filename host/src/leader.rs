//! Leader election: of several operators the holder of a Lease acts. Gives the Lease back on a graceful stop, so that the
//! next one need not wait. Knows nothing of what the leader does.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

mod decide;

pub use decide::{Decision, Seen, decide};

/// How long leadership lasts.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Others may take a Lease that was not renewed for so long.
    pub lease: Duration,
    /// The holder stops acting when it could not renew for so long; shorter than `lease`, so that two never act at once.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// The Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The API server refused or did not answer.
    #[error("{verb} lease '{lease}'")]
    Api {
        /// What we were doing.
        verb: &'static str,
        /// The Lease.
        lease: String,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("renew lease '{lease}': no answer in time")]
    Timeout {
        /// The Lease.
        lease: String,
    },
}

/// Held until it is released, lost or dropped (a drop keeps the Lease until it runs out).
#[derive(Debug)]
pub struct Leadership {
    candidate: Candidate,
    lost: watch::Receiver<bool>,
    stop: CancellationToken,
    renewing: JoinHandle<()>,
}

impl Leadership {
    /// Resolves when somebody else may act: stop at once, without any further write.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.lost.clone();
        async move {
            // An error means that the renewing task is gone, and with it the leadership.
            let _ = lost.wait_for(|lost| *lost).await;
        }
    }

    /// Gives the Lease back. Call it after the last write.
    pub async fn release(mut self) -> Result<(), LeaderError> {
        self.stop.cancel();
        // A panic of the task would have ended the leadership; there is nothing to give back then.
        let _ = (&mut self.renewing).await;
        if *self.lost.borrow() {
            return Ok(());
        }
        self.candidate.release().await
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until this process holds the Lease, then renews it in the background. Errors of the API server are logged and tried again.
pub async fn acquire(client: kube::Client, identity: &str, namespace: &str, lease: &str, timing: Timing) -> Leadership {
    let candidate =
        Candidate { api: Api::namespaced(client, namespace), identity: identity.to_owned(), name: lease.to_owned(), timing };
    let mut seen = Seen::default();
    let mut logged = None;
    loop {
        match candidate.attempt(&mut seen).await {
            Ok(None) => break,
            Ok(Some(holder)) if logged.as_ref() == Some(&holder) => {}
            Ok(Some(holder)) => {
                tracing::info!(lease, holder, "waiting for the leader to end");
                logged = Some(holder);
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "leader election failed, trying again"),
        }
        sleep(timing.retry).await;
    }
    tracing::info!(lease, identity, "leading");
    let (sender, lost) = watch::channel(false);
    let stop = CancellationToken::new();
    let renewing = tokio::spawn(keep(candidate.clone(), seen, sender, stop.clone()));
    Leadership { candidate, lost, stop, renewing }
}

async fn keep(candidate: Candidate, mut seen: Seen, lost: watch::Sender<bool>, stop: CancellationToken) {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(candidate.timing.retry) => {}
        }
        let left = candidate.timing.renew_deadline.saturating_sub(renewed.elapsed());
        let started = Instant::now();
        let attempt = timeout(left, candidate.attempt(&mut seen)).await;
        match attempt.unwrap_or_else(|_| Err(LeaderError::Timeout { lease: candidate.name.clone() })) {
            // Counted from before the request: the time it was written lies after.
            Ok(None) => renewed = started,
            Ok(Some(holder)) => {
                tracing::error!(holder, "lease taken by somebody else");
                break;
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "lease not renewed, trying again"),
        }
        if renewed.elapsed() >= candidate.timing.renew_deadline {
            tracing::error!("lease not renewed in time");
            break;
        }
    }
    // Nobody listens when the process is on its way out already.
    let _ = lost.send(true);
}

#[derive(Clone, Debug)]
struct Candidate {
    api: Api<Lease>,
    identity: String,
    name: String,
    timing: Timing,
}

impl Candidate {
    /// One look at the Lease, and one write where it is ours to take. `None`: held by us; otherwise the name of the holder.
    async fn attempt(&self, seen: &mut Seen) -> Result<Option<String>, LeaderError> {
        let lease = self.api.get_opt(&self.name).await.map_err(|source| self.error("get", source))?;
        seen.observe(lease.as_ref(), Instant::now());
        let held = match decide(lease.as_ref(), &self.identity, seen, Instant::now(), self.timing.lease) {
            Decision::Wait { holder } => return Ok(Some(holder)),
            Decision::Create => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = self.held(Lease { metadata, spec: None });
                self.api.create(&PostParams::default(), &lease).await
            }
            Decision::Take | Decision::Renew => {
                // The resource version that was read goes back with it, so that of two takers one fails.
                let lease = self.held(lease.unwrap_or_default());
                self.api.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        // A conflict is an error like others: the next look tells who wrote.
        let lease = held.map_err(|source| self.error("write", source))?;
        seen.observe(Some(&lease), Instant::now());
        Ok(None)
    }

    fn held(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |count| count.saturating_add(1)));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.timing.lease.as_secs().max(1)).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        lease
    }

    async fn release(&self) -> Result<(), LeaderError> {
        let Some(mut lease) = self.api.get_opt(&self.name).await.map_err(|source| self.error("get", source))? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        *spec = LeaseSpec {
            // The form in which other election clients recognise a Lease that nobody holds.
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..spec.clone()
        };
        self.api.replace(&self.name, &PostParams::default(), &lease).await.map_err(|source| self.error("release", source))?;
        tracing::info!(lease = self.name, "released");
        Ok(())
    }

    fn error(&self, verb: &'static str, source: kube::Error) -> LeaderError {
        LeaderError::Api { verb, lease: self.name.clone(), source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests;
