//! Harness.

pub mod engine;
pub mod hub;
