//! Registries as places of models: what a reference means, who we are there, and the layout that a model has. Knows no cluster.
//!
//! A model lies in a registry as the CNCF's `ModelPack` says: one manifest, one layer for each file, each as it is. So a blob's
//! digest is the file's own, and what is known of files everywhere else (ranges, resume, reuse by digest) holds here too.
//!
//! ```text
//! source: oci://…   loader-oci reads the manifest ─► files with their digests ─► asking: blob URLs ─► transfer, as from a hub
//! publish: oci://…  push ─► layout: manifest, config ─► blob: what lacks is sent in pieces ─► the manifest, last
//!                         both ways: egress ─► login: 401 ─► token of the realm ─► the request again
//! ```
//!
//! The plugin knows what a manifest means, and holds no credential: [`login`] answers a registry's challenge at the egress, for the
//! plugin's questions and for the bytes alike. Every host on the way (registry, realm, where a redirect leads) is one that was granted.

pub mod blob;
pub mod layout;
pub mod login;
pub mod reference;
pub mod registry;
