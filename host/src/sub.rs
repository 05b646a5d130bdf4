//! (sub)
