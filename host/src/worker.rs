//! The worker: asks a loader what to fetch and moves the bytes. Runs in a Job's pod, or by hand as `substratus load`.
//!
//! ```text
//! cli ─► load ─► resolve ── questions ──► plugin ── its HTTP ──► calls ─► egress ─► hub
//!          │        └► plan: paths, digests and URLs checked before the first byte
//!          ├───► reuse: files of the plan whose digest another artifact has ─► sink
//!          ├───► transfer ─► file ─► fetch ─► connect ── ranges ─────────► egress ─► hub, CDN
//!          │                  │        └► sink (`artifacts/*.partial`), journal
//!          │                  └► verify: SHA-256 follows the front of each file, then the file gets its name
//!          │                          └► repair: what came wrong is found range by range
//!          └───► manifest: the last write
//! ```
//!
//! [`stage`] fetches an artifact out of a bucket the same way, and [`publish`] writes a folder into one. [`push`] sends an artifact to
//! an OCI registry, and [`oci`] is what both ways know of registries.
//!
//! [`import`] does the same for data sets, shard by shard, with decoding and mapping between fetching and the bucket.

pub mod access;
pub mod address;
pub mod allow;
pub mod answer;
mod args;
mod asking;
pub mod beside;
pub mod by_hand;
pub mod calls;
pub mod cli;
mod connect;
pub mod counters;
pub mod egress;
pub mod expiry;
pub mod failure;
mod fetch;
mod file;
pub mod import;
pub mod journal;
pub mod listing;
pub mod load;
mod location;
pub mod look;
pub mod manifest;
pub mod network;
pub mod oci;
pub mod pace;
pub mod pickle;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod push;
pub mod quiet;
pub mod ranges;
mod repair;
pub mod report;
pub mod request;
pub mod resolve;
pub mod reuse;
pub mod seats;
pub mod secrets;
pub mod stage;
pub mod transfer;
pub mod verify;

pub use cli::LoadArgs;
