//! Settings of image builds: who builds, where images go, and what the builder's pod may do. Knows nothing of how one is built.

use std::str::FromStr;

use clap::Args;

use super::given;
use crate::kinds::shared::environment::{Building, Profile};

/// The builder where nothing is said: `BuildKit`'s own image for builds without root; it has git and ssh, too.
pub const BUILDER_IMAGE: &str = "docker.io/moby/buildkit:v0.34.2-rootless";

/// What may be typed.
#[derive(Args, Clone, Debug)]
pub struct BuildSettings {
    /// Image of the builder: `buildkitd`, `buildctl`, `rootlesskit`, `newuidmap` and a user 1000
    #[arg(long, env = "BUILDER_IMAGE", default_value = BUILDER_IMAGE)]
    pub builder_image: String,
    /// Image that clones repositories: `git`, and `ssh` for those that are reached by it; the builder's own where none is named
    #[arg(long, env = "GIT_IMAGE")]
    pub git_image: Option<String>,
    /// More arguments of `buildkitd`, separated by spaces
    #[arg(long, env = "BUILDKITD_ARGS", value_delimiter = ' ', allow_hyphen_values = true)]
    pub buildkitd_args: Vec<String>,
    /// More arguments of `buildctl build`, separated by spaces
    #[arg(long, env = "BUILDCTL_ARGS", value_delimiter = ' ', allow_hyphen_values = true)]
    pub buildctl_args: Vec<String>,
    /// Name of the secret (`kubernetes.io/dockerconfigjson`), in the namespace of each object, that pushes built images
    #[arg(long, env = "REGISTRY_PUSH_SECRET")]
    pub registry_push_secret: Option<String>,
    /// Name of the secret, in the namespace of each object, that pulls built images into the pods that run them
    #[arg(long, env = "REGISTRY_PULL_SECRET")]
    pub registry_pull_secret: Option<String>,
    /// Seccomp profile of the builder: `Unconfined`, or `Localhost/FILE` of the nodes; where nothing is said, the nodes' default
    #[arg(long, env = "BUILDER_SECCOMP", value_parser = profile)]
    pub builder_seccomp: Option<Profile>,
    /// `AppArmor` profile of the builder: `Unconfined`, or `Localhost/NAME` of the nodes; where nothing is said, the nodes' default
    #[arg(long, env = "BUILDER_APPARMOR", value_parser = profile)]
    pub builder_apparmor: Option<Profile>,
}

impl BuildSettings {
    /// With every default filled in; `registry` is where images go.
    pub(super) fn check(self, registry: Option<String>) -> Building {
        let image = given(Some(self.builder_image)).unwrap_or_else(|| BUILDER_IMAGE.to_owned());
        let words = |words: Vec<String>| words.into_iter().filter(|word| !word.is_empty()).collect();
        Building {
            registry,
            git_image: given(self.git_image).unwrap_or_else(|| image.clone()),
            image,
            daemon_args: words(self.buildkitd_args),
            args: words(self.buildctl_args),
            push_secret: given(self.registry_push_secret),
            pull_secret: given(self.registry_pull_secret),
            seccomp: self.builder_seccomp.filter(|profile| *profile != Profile::Node),
            apparmor: self.builder_apparmor.filter(|profile| *profile != Profile::Node),
        }
    }
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::from_str(text.trim())
}
