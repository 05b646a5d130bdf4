//! `Model`: a load by a plugin's plan, or a container that loads or trains.

pub mod build;
pub mod conditions;
pub mod observe;
pub mod plan;
pub mod retry;
pub mod validate;
