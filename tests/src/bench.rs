//! What `substratus-bench` measures, side by side in one run on one machine. It judges nothing: no number here can fail a build.
//!
//! | question | file |
//! |---|---|
//! | How fast is a load, next to `curl` and `aria2c`, and what does it cost? | [`load`] |
//! | What does a question to a plugin cost, cold and warm? | [`plugins`] |
//! | How soon is the operator ready, what does it hold, what does it write at rest? | [`operator`] |

pub mod child;
pub mod load;
pub mod operator;
pub mod plugins;
mod questions;
mod stats;
pub mod table;
