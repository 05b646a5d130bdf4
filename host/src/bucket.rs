//! Where artifacts lie: bucket URLs, and the one sink that writes into a bucket. Knows nothing of plugins, hubs or pods.
//!
//! [`url`] is pure and is all the operator needs; [`sink`] is what the worker writes through, [`local`] its first backend.

pub mod local;
pub mod sink;
pub mod url;

pub use sink::{Sink, SinkError, SinkFile};
pub use url::{BucketUrl, BucketUrlError, artifact_hash};
