//! `Server`: an engine chosen by an adapter, or any image under the container contract, as Deployment and Service.

pub mod build;
pub mod conditions;
pub mod observe;
pub mod plan;
pub mod validate;
