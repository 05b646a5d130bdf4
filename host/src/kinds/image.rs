//! The image of an object that names source code: which one is to be built, whether it is, and which one runs meanwhile. The same for
//! every kind; pure. It must not know what the image is for.
//!
//! 1. [`plan`] says what is to be there, and what became of it; [`handshake`] how sources come that a user sends.
//! 2. [`job`] makes the Job that builds it, where one has to run.
//! 3. [`conclude`] says it: the condition `Built`, the record in the status, and which image the rest of the pipeline sees.
//!
//! An image that was built is run by its digest, so that a build that follows is another image, whatever its tag. What runs or is ready
//! stays until that is there.

pub mod conclude;
pub mod handshake;
pub mod job;
pub mod observe;
pub mod plan;
pub mod source;
