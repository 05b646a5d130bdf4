//! What several kinds need: names, environment, parameters, resources, pods, and the causes a pod gives for its state.

pub mod cause;
pub mod child;
pub mod conditions;
pub mod content;
pub mod duration;
pub mod env;
pub mod environment;
pub mod hash;
pub mod mounts;
pub mod names;
pub mod network;
pub mod network_policy;
pub mod offers;
pub mod options;
pub mod params;
pub mod pod;
pub mod reference;
pub mod resources;
pub mod route;
pub mod verdict;
pub mod workload;
pub mod workload_identity;
