//! Which plugin answers a person: the one that is named, as a file or in a registry, else a bundled one by what it claims.

use std::path::Path;

use substratus_crds::PluginRole;
use substratus_crds::conditions::reason;

use super::{AskArgs, invalid};
use crate::catalog::repository;
use crate::plugin::{Loaded, Manifest, PluginError, Plugins, RegistryError};
use crate::worker::failure::LoadError;

/// Whether a plugin claims what was asked for.
type Claims<'a> = dyn Fn(&Manifest) -> bool + 'a;

/// What a person wants, and who may answer.
pub(in crate::worker) struct Wanted<'a> {
    /// As in `spec.source`.
    pub(in crate::worker) source: Option<&'a str>,
    /// As in `spec.image`, in place of a source.
    pub(in crate::worker) image: Option<&'a str>,
    /// Who may answer, preferred first.
    pub(in crate::worker) roles: &'a [PluginRole],
    /// Format of the weights.
    pub(in crate::worker) format: Option<String>,
    /// Bucket URL of where it goes.
    pub(in crate::worker) target: String,
}

impl AskArgs {
    /// The plugin to ask.
    pub(super) async fn find(&self, plugins: &Plugins, wanted: &Wanted<'_>) -> Result<Loaded, LoadError> {
        let Some(named) = &self.plugin else { return bundled(plugins, wanted) };
        let loaded = if is_file(named) {
            plugins.add_file(Path::new(named)).map_err(|error| invalid(format!("cannot use plugin {named}: {error}")))?
        } else {
            self.pull(plugins, named.strip_prefix("oci://").unwrap_or(named)).await?
        };
        let role = loaded.manifest.role;
        if wanted.roles.contains(&role) {
            return Ok(loaded);
        }
        let asks = match role {
            PluginRole::ModelLoader => "; `substratus load` asks it",
            PluginRole::DatasetImporter => "; `substratus import` asks it",
            _ => "",
        };
        let roles: Vec<String> = wanted.roles.iter().map(|role| format!("{role:?}")).collect();
        Err(invalid(format!("plugin `{}` is a {role:?}, not a {}{asks}", loaded.manifest.name, roles.join(" or a "))))
    }

    async fn pull(&self, plugins: &Plugins, reference: &str) -> Result<Loaded, LoadError> {
        let auth = self.registry.auth(reference).map_err(|error| invalid(format!("{error:#}")))?;
        let pulled = plugins.pull(reference, auth, &self.registry.plain()).await.map_err(|error| {
            let reason = match &error {
                PluginError::Registry(RegistryError::NotFound { .. }) => reason::PLUGIN_NOT_FOUND,
                PluginError::Registry(RegistryError::Reference { .. }) => reason::INVALID,
                error if error.is_passing() => reason::UNAVAILABLE,
                _ => reason::PLUGIN_FAILED,
            };
            LoadError::new(reason, format!("cannot use plugin {reference}: {error}"))
        })?;
        tracing::info!(reference = pulled.reference_with_digest, "the plugin was pulled");
        Ok(Loaded { digest: pulled.digest, manifest: pulled.manifest, size: pulled.size })
    }
}

/// A registry's names neither begin like a path nor end like a component's file.
fn is_file(named: &str) -> bool {
    let is_wasm = Path::new(named).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("wasm"));
    !named.starts_with("oci://") && (named.starts_with(['/', '.']) || is_wasm || Path::new(named).is_file())
}

fn bundled(plugins: &Plugins, wanted: &Wanted<'_>) -> Result<Loaded, LoadError> {
    let (claims, what): (Box<Claims>, String) = match (wanted.source, wanted.image) {
        (Some(source), _) => {
            let Some((scheme, _)) = source.split_once("://") else {
                return Err(invalid(format!("source `{source}` has no scheme; write for example hf://org/name")));
            };
            (Box::new(move |manifest| manifest.claims.schemes.iter().any(|claimed| claimed == scheme)), format!("{scheme}://"))
        }
        (None, Some(image)) => {
            let wanted = repository(image);
            let claims =
                move |manifest: &Manifest| manifest.claims.images.iter().any(|claim| repository(&claim.repository) == wanted);
            (Box::new(claims), image.to_owned())
        }
        (None, None) => return Err(invalid("name a source, such as hf://org/name, or an image with --image")),
    };
    let bundled = plugins.bundled();
    let fits = |role: &PluginRole| bundled.iter().find(|loaded| loaded.manifest.role == *role && claims(&loaded.manifest));
    wanted.roles.iter().find_map(fits).cloned().ok_or_else(|| {
        let roles: Vec<String> = wanted.roles.iter().map(|role| format!("{role:?}")).collect();
        let message = format!(
            "no bundled {} claims {what}; name a plugin with --plugin FILE or REF, or a folder of plugins with --plugins DIR",
            roles.join(" or ")
        );
        LoadError::new(reason::PLUGIN_NOT_FOUND, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_references_are_told_apart() {
        for file in ["./loader", "/tmp/loader", "../x", "loader.wasm", "a/b.wasm"] {
            assert!(is_file(file), "{file}");
        }
        for reference in
            ["oci://registry.example/a:1", "registry.example/a/b:0.1", "registry.example:5000/a@sha256:00", "oci://a/b.wasm"]
        {
            assert!(!is_file(reference), "{reference}");
        }
    }
}
