//! The integration tests: one binary, so that they share one cluster. Each module is about one thing that must hold.

mod cluster;
mod engine;
mod hub;
mod image;
mod manners;
mod tidy;
