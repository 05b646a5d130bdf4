//! The worker: asks a loader what to fetch and moves the bytes. Runs in a Job's pod, or by hand as `substratus load`.

pub mod address;
pub mod allow;
pub mod egress;
pub mod report;
pub mod request;
pub mod secrets;
