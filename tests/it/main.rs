//! Integration tests.

mod engine;
mod hub;
