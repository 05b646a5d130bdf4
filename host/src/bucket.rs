//! (bucket)
