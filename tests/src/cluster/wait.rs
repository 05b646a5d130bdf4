//! Waiting for something that happens by itself. It must not know what.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Tries until the probe finds something; its errors count as "not yet", and the last one explains a timeout.
pub async fn eventually<T>(what: &str, limit: Duration, mut probe: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        let outcome = probe().await;
        let last = match outcome {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => anyhow!("not yet there"),
            Err(error) => error,
        };
        if began.elapsed() > limit {
            return Err(last.context(format!("waited {} s for the {what}", limit.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
