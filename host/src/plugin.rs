//! The plugin host: the only place that knows what a component is.

pub mod bindings;
mod grant;

pub use grant::{Grant, GrantedSecret, SecretScheme};
