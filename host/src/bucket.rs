//! Where artifacts lie: bucket URLs, and the one sink that writes into a bucket. Knows nothing of plugins, hubs or pods.
//!
//! [`url`] is pure and is all the operator needs; [`sink`] is what the worker writes through, [`local`] its first backend.

pub mod local;
pub mod sink;
pub mod url;

pub use sink::{Sink, SinkError, SinkFile};
pub use url::{BucketUrl, BucketUrlError, artifact_hash};

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
