//! One folder per kind, the same file names in each: `observe` reads, `validate` refuses, `plan` asks plugins, `build` makes
//! children, `conditions` says what became of it. `Model` and `Dataset` share theirs, `artifact`. `shared` holds what several
//! kinds need.

pub mod artifact;
pub mod dataset;
pub mod image;
pub mod model;
pub mod notebook;
pub mod plugin;
pub mod server;
pub mod shared;
