//! What `substratus-bench` measures, side by side in one run on one machine. It judges nothing: no number here can fail a build.
//!
//! | question | file |
//! |---|---|
//! | How fast is a load, next to `curl`, `aria2c` and `huggingface_hub`, near and far, what does it cost, what bounds it? | [`load`] |
//! | How fast is an artifact copied into a bucket and out of it, next to `rclone` and `boto3`? | [`buckets`] |
//! | What does a killed load fetch twice? | [`killed`] |
//! | How fast are rows imported, next to Python, and what do more processes give? | [`datasets`] |
//! | What does a question to a plugin cost, cold and warm, here and across the socket? | [`plugins`] |
//! | What does a plugin that never ends cost the others? | [`neighbours`] |
//! | How soon can a plugin of a registry be asked, and what does a signature cost? | [`pulled`] |
//! | What does the process that runs plugins hold, and how soon is it back? | [`sandbox`] |
//! | How soon is the operator ready, what does it hold, what does it write at rest? | [`operator`] |
//! | How soon does a Notebook answer, beyond what its image takes? | [`notebook`] |
//! | How soon is an image built from source, next to the same builder by hand? | [`builds`] |
//! | How large is what is shipped? | [`sizes`] |

pub mod buckets;
pub mod builds;
pub mod child;
pub mod datasets;
pub mod killed;
pub mod load;
pub mod neighbours;
pub mod notebook;
pub mod operator;
mod peers;
mod place;
pub mod plugins;
pub mod pulled;
mod questions;
pub mod sandbox;
pub mod sizes;
mod stats;
pub mod table;
pub mod turns;

pub use peers::Own;
