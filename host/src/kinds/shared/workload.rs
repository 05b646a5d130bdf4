//! What every kind says about its container, seen one way. Knows no plugin and no cluster. Pure.

use std::collections::BTreeMap;

use substratus_crds::{Build, DatasetSpec, ModelSpec, NotebookSpec, Param, PodOptions, Resources, SecurityContext, ServerSpec};

use super::verdict::Verdict;
use super::{env, params, resources};

/// The part of a spec that says what runs.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// Image; never the empty text.
    pub image: Option<&'a str>,
    /// Build source.
    pub build: Option<&'a Build>,
    /// Entry point.
    pub command: Option<&'a [String]>,
    /// Arguments.
    pub args: &'a [String],
    /// Environment as written.
    pub env: Option<&'a BTreeMap<String, String>>,
    /// Parameters.
    pub params: Option<&'a BTreeMap<String, Param>>,
    /// Requests.
    pub resources: Option<&'a Resources>,
    /// More about the pod.
    pub pod: &'a PodOptions,
}

macro_rules! workload {
    ($($spec:ty),*) => { $(impl<'a> From<&'a $spec> for Workload<'a> {
        fn from(spec: &'a $spec) -> Self {
            Self {
                image: spec.image.as_deref().filter(|image| !image.is_empty()),
                build: spec.build.as_ref(),
                command: spec.command.as_deref(),
                args: spec.args.as_deref().unwrap_or_default(),
                env: spec.env.as_ref(),
                params: spec.params.as_ref(),
                resources: spec.resources.as_ref(),
                pod: &spec.pod,
            }
        }
    })* };
}
workload!(DatasetSpec, ModelSpec, NotebookSpec, ServerSpec);

impl Workload<'_> {
    /// Refuses what no pod can have, and reads the environment.
    pub fn check(&self) -> Result<BTreeMap<String, env::Value>, Verdict> {
        params::check(self.params)?;
        resources::check(self.resources)?;
        env::parse(self.env)
    }

    /// The entry point, as a container has it.
    pub fn command(&self) -> Vec<String> {
        self.command.unwrap_or_default().to_vec()
    }

    /// What of the pod's options a worker of ours takes: it has its own volumes and its own confinement.
    pub fn worker_options(&self) -> PodOptions {
        PodOptions { volumes: Vec::new(), security_context: None::<SecurityContext>, ..self.pod.clone() }
    }
}
