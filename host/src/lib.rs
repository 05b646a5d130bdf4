//! Substratus turns Kubernetes into a machine-learning platform: `Model`, `Dataset`, `Server` and `Notebook` objects become
//! weights, data, running engines and `JupyterLab`s. What the operator knows of the outside world — hubs, GPU labels of
//! clouds, inference engines — lives in sandboxed WebAssembly components that anybody can write and an administrator installs.
//!
//! # The picture
//!
//! ```text
//!            kubectl apply                                                     the cluster
//!                 │                                                                 ▲
//!                 ▼                                                                 │
//! operator   observe ─► validate ─► plan ─► build ─► guard ─► apply ───────────► status
//!              I/O        pure       │       pure     pure      SSA                SSA
//!                                    │ typed questions, typed answers (WIT)
//!                                    ▼
//! sandbox    a process of its own, without token, files and network: gpu-policy · server-adapter (pure tier: no clock)
//!
//! worker     a Job's pod: a model-loader answers "what to fetch", a dataset-importer plans shards and maps rows, both in a
//!            sandbox of the worker; native code moves the bytes: parallel ranges, resume, sha256, progress ──► artifact bucket
//!
//! registry   plugin components ──► resolve digest ─► verify signature ─► check manifest ─► compile (AOT cache) ─► approve ─► activate
//! ```
//!
//! # Invariants
//!
//! * Only `reconcile::observe`, `reconcile::apply`, `reconcile::status`, `reconcile::image` and `reconcile::suspend` talk to the API
//!   server; `run` makes the client. Specs belong to users: only `suspend` and `image` write one, where the user asked for it.
//! * Only [`plugin`] names `wasmtime`. Only [`bucket`] knows what a bucket URL means, and names `object_store`.
//! * `kinds::*::build` is pure: the same object and answers make the same children, byte for byte; no clock, sorted maps.
//! * A plugin never writes a Kubernetes object. It fills a record that cannot express `privileged`, `hostPath`, a service
//!   account or another namespace; `reconcile::guard` checks the result all the same.
//! * A plugin never holds a credential: it names a use, and [`worker`] adds the header towards granted hosts only. Nor does the
//!   process that runs it ([`plugin::remote`]): it gets questions and native code over a socket, and nothing else.
//! * A reconcile that changes nothing writes nothing; so does a restart.
//! * Every failure ends in a condition that a user can act on, and in an Event.
//!
//! # Where is …?
//!
//! | question | answer |
//! |---|---|
//! | What happens when an object changes? | `reconcile.rs`, first screen; then `kinds/<kind>/` in file order |
//! | What may a plugin do, and who decides? | `wit/worlds.wit`, then `plugin/manifest.rs` and `plugin/asked.rs` |
//! | Whose plugins are trusted, and how far? | `crds/src/plugin_source.rs`, `kinds/plugin/source.rs` |
//! | What happens when a plugin is updated, or a bad one comes? | `kinds/plugin.rs`, first screen; proof in `tests/it/plugins` |
//! | Which updates wait for an administrator? | `kinds/plugin/approval.rs`, `kinds/plugin/permissions.rs` |
//! | Which of two plugins answers in a namespace? | `catalog.rs`; who may claim what: `kinds/plugin/bundle.rs` |
//! | What stops a plugin that never returns or eats memory? | `plugin/store.rs`; proof in `tests/it/hostile.rs` |
//! | Who signed a plugin, and what does not pass for a signature? | `plugin/signature.rs`; proof in `tests/it/plugin_signatures.rs` |
//! | How do plugins get into a cluster without a way out? | `plugin/export.rs` and `plugin/import.rs` |
//! | What could a plugin do that breaks out of its instance? | nothing more: `plugin/remote/confine.rs`; proof in its tests and in `tests/it/sandbox/` |
//! | What happens when the process that runs plugins ends? | `plugin/remote/client.rs`; proof in `tests/it/sandbox.rs` |
//! | What becomes of a file that somebody put into the plugin store, and of old ones? | `plugin/alarm.rs`, `plugin/cache/sweep.rs`; told by `kinds/plugin/keeping.rs` |
//! | Who compiles a plugin, and why is its code trusted? | `plugin/remote/compiler.rs`, signed by `plugin/cache.rs` |
//! | What stops a plugin that asks for too much? | `reconcile/guard.rs`; proof in its tests and in `tests/it/badinput/guests.rs` |
//! | What may a worker's pod connect to? | `kinds/shared/network_policy.rs`, below the names that `worker/allow.rs` checks |
//! | How does source code become an image, and what may the pod that builds it? | `kinds/image.rs`, `kinds/image/job.rs`; in that pod: `builder.rs` |
//! | How do sources come from a laptop, and who may send what? | `kinds/image/handshake.rs`, `uploads.rs`, `store/upload.rs` |
//! | Why did a build fail, in whose words? | `builder/failure.rs` |
//! | Which objects do we delete, and why is that safe? | `reconcile/apply.rs`, doc of `prune` |
//! | What does each condition mean? | `crds/src/conditions.rs` |
//! | Where is timeout X set? | `limits.rs` |
//! | Who suspends a Notebook that nobody uses? | `idle.rs` in its pod says so, `reconcile/suspend.rs` does it |
//! | What does a second operator do? | `run.rs`: it stands by; `leader.rs` says whose turn it is |
//! | What moves the bytes of a model? | `worker.rs`, first screen |
//! | What is not fetched twice, and why never from another namespace? | `worker/reuse.rs`; `kinds/artifact/siblings.rs` |
//! | What is told of a load that runs, and how often? | `kinds/artifact/transfer.rs` |
//! | How does a model get into an object store? | `bucket/upload.rs`; which store, and with whose credentials: `bucket/reach.rs`; refusals and their words: `bucket/refusal.rs` |
//! | How does a cloud know who a pod is? | `kinds/shared/workload_identity.rs` |
//! | How does a pod read and write a bucket without a driver? | `worker/stage.rs`, `worker/publish.rs` |
//! | How does a model get into an OCI registry, and back? | `worker/oci.rs`, first screen; `worker/push.rs`, `plugins/loader-oci`, `kinds/artifact/push.rs` |
//! | Who may get a registry's password? | `worker/oci/login.rs` |
//! | How is a data set imported, and by several pods? | `worker/import.rs`, first screen; `kinds/artifact/jobs.rs` |
//! | What does a user type beside kubectl? | `sub.rs` |
//! | How do I add a plugin? | `plugins/README.md` |
//! | How do I give plugins something more to call? | an interface of its own in `wit/`, imported by a world of `wit/worlds.wit`; then as `plugin/http.rs` does |
//! | How do I add a kind? | the type beside `crds/src/notebook.rs`, its steps beside `kinds/notebook/`, and [`reconcile::Kind`] for it |
//! | What does a good run look like? | `examples/README.md`, `make demo` |

pub mod admin;
pub mod backoff;
pub mod bucket;
pub mod builder;
pub mod catalog;
mod causes;
pub mod context;
pub mod controllers;
pub mod explain;
pub mod idle;
pub mod kinds;
pub mod leader;
pub mod limits;
pub mod metrics;
pub mod plugin;
pub mod reconcile;
pub mod run;
pub mod settings;
pub mod store;
pub mod sub;
pub mod telemetry;
pub mod uploads;
pub mod worker;
