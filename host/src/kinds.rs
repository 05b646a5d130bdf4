//! One folder per kind, the same file names in each: `observe` reads, `validate` refuses, `plan` asks plugins, `build` makes
//! children, `conditions` says what became of it. `shared` holds what several kinds need.

pub mod model;
pub mod plugin;
pub mod server;
pub mod shared;
