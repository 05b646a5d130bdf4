//! The worker: asks a loader what to fetch and moves the bytes. Runs in a Job's pod, or by hand as `substratus load`.
//!
//! ```text
//! cli ─► load ─► resolve ── questions ──► plugin ── its HTTP ──► calls ─► egress ─► hub
//!          │        └► plan: paths, digests and URLs checked before the first byte
//!          ├───► reuse: files of the plan whose digest another artifact has ─► sink
//!          ├───► transfer ─► file ─► fetch ── ranges ────────────────────► egress ─► hub, CDN
//!          │                  │        └► sink (`artifacts/*.partial`), journal
//!          │                  └► verify: SHA-256 follows the front of each file, then the file gets its name
//!          └───► manifest: the last write
//! ```
//!
//! [`stage`] fetches an artifact out of a bucket the same way, and [`publish`] writes a folder into one.
//!
//! [`import`] does the same for data sets, shard by shard, with decoding and mapping between fetching and the bucket.

pub mod address;
pub mod allow;
pub mod answer;
mod args;
mod asking;
pub mod by_hand;
pub mod calls;
pub mod cli;
pub mod counters;
pub mod egress;
pub mod failure;
mod fetch;
mod file;
pub mod import;
pub mod journal;
pub mod load;
pub mod manifest;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod ranges;
pub mod report;
pub mod request;
pub mod resolve;
pub mod reuse;
pub mod secrets;
pub mod stage;
pub mod transfer;
pub mod verify;

pub use cli::LoadArgs;
