//! The harness of the tests, the demo and the benches: real peers to run against. It knows nothing of the operator's insides.

pub mod guests;
