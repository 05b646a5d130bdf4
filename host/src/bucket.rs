//! Where artifacts lie: bucket URLs, and the one sink that writes into a bucket. Knows nothing of plugins, hubs or pods.
//!
//! [`url`] is pure and is all the operator needs. [`sink`] is what the worker writes through: into a folder ([`local`]), or into
//! an object store ([`object`], file by file [`upload`], of which [`held`] is left to another run), which is a [`store`] that
//! `reach` has reached; what its client cannot ask, `raw` does. [`records`] are our own, beside the files. [`source`] is another
//! artifact that files can be taken over from.

pub mod held;
pub mod local;
pub mod object;
mod part;
pub mod raw;
mod reach;
pub mod records;
mod refusal;
pub mod sink;
pub mod source;
pub mod store;
pub mod upload;
pub mod url;

pub use records::Records;
pub use sink::{Sink, SinkError, SinkFile};
pub use source::Source;
pub use store::Environment;
pub use url::{BucketUrl, BucketUrlError, artifact_hash};
