//! One Plugin's way from an image name to a compiled component, step by step; the first step that fails is named.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value};
use substratus_crds::Plugin;
use substratus_crds::conditions::plugin as said;

use crate::catalog::Active;
use crate::context::Context;
use crate::kinds::shared::conditions::find;
use crate::plugin::{Manifest, PluginError, Refusal, RegistryAuth, RegistryError, describe_problems};

/// How far a Plugin came.
#[derive(Clone, Debug, Default)]
pub struct Installed {
    /// What answers from now on: the new component, or the last good one.
    pub active: Option<Active>,
    /// Image reference with the digest of its manifest.
    pub resolved: Option<String>,
    /// The step that failed: condition type, reason, message.
    pub failed: Option<(&'static str, &'static str, String)>,
    /// When to try again.
    pub retry: Option<Duration>,
}

impl Installed {
    /// For metrics.
    pub fn category(&self) -> &'static str {
        self.failed.as_ref().map_or("ok", |(_, reason, _)| reason)
    }

    fn fail(mut self, condition: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        self.failed = Some((condition, reason, message.into()));
        self
    }
}

/// Takes every step; what cannot be taken leaves the last good component in place.
pub async fn install(object: &Plugin, context: &Context) -> Installed {
    let mut installed = Installed { resolved: resolved(object), ..Installed::default() };
    let (digest, manifest) = match component(object, context, &mut installed.resolved).await {
        Ok(found) => found,
        Err(failure) => return failure.keep(object, context, installed),
    };
    if let Err(error) = context.plugins.prepare(&digest).await {
        return Failure::of(&error).keep(object, context, installed);
    }
    match activate(object, digest, manifest) {
        Ok(active) => Installed { active: Some(active), ..installed },
        Err(message) => {
            Failure { condition: said::CONFIG_VALID, reason: said::CONFIG, message, retry: None }.keep(object, context, installed)
        }
    }
}

/// A checked component with the configuration and grants of its Plugin object.
pub fn activate(object: &Plugin, digest: String, manifest: Manifest) -> Result<Active, String> {
    let given: Map<String, Value> = object.spec.config.clone().unwrap_or_default();
    let config = manifest.config(&given).map_err(|problems| format!("spec.config: {}", describe_problems(&problems)))?;
    // A bundled plugin came with the operator and is trusted with what it asks for; any other gets what it is granted.
    let nothing = substratus_crds::Grants::default();
    let granted = match (&object.spec.grants, &object.spec.image) {
        (Some(grants), _) => Some(grants),
        (None, None) => None,
        (None, Some(_)) => Some(&nothing),
    };
    let grant = manifest.grant(granted);
    Ok(Active { name: object.name_any(), manifest, digest, config, grant })
}

async fn component(object: &Plugin, context: &Context, resolved: &mut Option<String>) -> Result<(String, Manifest), Failure> {
    let name = object.name_any();
    let Some(image) = object.spec.image.as_deref() else {
        let bundled = context.plugins.bundled().into_iter().find(|loaded| loaded.manifest.name == name);
        return match bundled {
            Some(loaded) => Ok((loaded.digest, loaded.manifest)),
            None => Err(Failure {
                condition: said::RESOLVED,
                reason: said::IMAGE_NOT_FOUND,
                message: format!("no bundled plugin is called `{name}`; name an OCI image in spec.image"),
                retry: None,
            }),
        };
    };
    // A revision that was resolved for this very spec and is in the store needs no registry.
    if let Some(found) = stored(object, context).filter(|_| resolved.is_some()) {
        return Ok(found);
    }
    let auth = auth(object, image, context).await?;
    match context.plugins.pull(image, auth, &context.plain_http).await {
        Ok(pulled) => {
            *resolved = Some(pulled.reference_with_digest);
            Ok((pulled.digest, pulled.manifest))
        }
        Err(error) => Err(Failure::of(&error)),
    }
}

/// The reference that the status records, where it is for the spec of now.
fn resolved(object: &Plugin) -> Option<String> {
    let status = object.status.as_ref()?;
    let condition = find(&status.conditions, said::RESOLVED)?;
    let current = condition.status == "True" && condition.observed_generation == object.meta().generation;
    status.resolved.clone().filter(|_| current)
}

fn stored(object: &Plugin, context: &Context) -> Option<(String, Manifest)> {
    let digest = object.status.as_ref()?.active.clone()?;
    let manifest = context.plugins.manifest(&digest).ok()?;
    Some((digest, manifest))
}

async fn auth(object: &Plugin, image: &str, context: &Context) -> Result<RegistryAuth, Failure> {
    let Some(name) = object.spec.pull_secret.as_deref() else { return Ok(RegistryAuth::Anonymous) };
    let fail = |message: String| Failure {
        condition: said::RESOLVED,
        reason: said::REGISTRY_AUTH,
        message,
        retry: Some(Duration::from_mins(1)),
    };
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &context.namespace);
    let secret = secrets
        .get(name)
        .await
        .map_err(|error| fail(format!("read the pull secret `{name}` in namespace `{}`: {error}", context.namespace)))?;
    let data = secret.data.unwrap_or_default();
    let config = data.get(".dockerconfigjson").ok_or_else(|| {
        fail(format!("secret `{name}` has no key `.dockerconfigjson`; make it with `kubectl create secret docker-registry`"))
    })?;
    super::registry::credentials(&config.0, image).map_err(|why| fail(format!("secret `{name}`: {why}")))
}

/// A step that failed.
struct Failure {
    condition: &'static str,
    reason: &'static str,
    message: String,
    retry: Option<Duration>,
}

impl Failure {
    fn of(error: &PluginError) -> Self {
        let (condition, reason) = match error {
            PluginError::Registry(RegistryError::NotFound { .. }) => (said::RESOLVED, said::IMAGE_NOT_FOUND),
            PluginError::Registry(RegistryError::Auth { .. }) => (said::RESOLVED, said::REGISTRY_AUTH),
            PluginError::Registry(RegistryError::TooLarge { .. }) => (said::RESOLVED, said::TOO_LARGE),
            PluginError::Registry(RegistryError::DigestMismatch { .. }) => (said::VERIFIED, said::DIGEST_MISMATCH),
            PluginError::Registry(RegistryError::NotAPlugin { .. }) => (said::COMPATIBLE, said::NOT_A_COMPONENT),
            PluginError::Registry(_) => (said::RESOLVED, said::REGISTRY_UNAVAILABLE),
            PluginError::Refused(Refusal::TooLarge { .. }) => (said::COMPATIBLE, said::TOO_LARGE),
            PluginError::Refused(Refusal::NotWasm | Refusal::CoreModule | Refusal::NativeCode | Refusal::Invalid(_)) => {
                (said::COMPATIBLE, said::NOT_A_COMPONENT)
            }
            PluginError::Refused(Refusal::NoManifest | Refusal::ManyManifests | Refusal::Manifest { .. }) => {
                (said::COMPATIBLE, said::MANIFEST)
            }
            PluginError::Refused(_) => (said::COMPATIBLE, said::WORLD),
            _ => (said::COMPILED, said::COMPILE),
        };
        let retry = error.is_passing().then_some(Duration::from_secs(30)).or_else(|| {
            // A registry may get the image, or the right to it, later.
            matches!(error, PluginError::Registry(_)).then_some(Duration::from_mins(5))
        });
        Self { condition, reason, message: error.to_string(), retry }
    }

    /// The last good component keeps answering.
    fn keep(self, object: &Plugin, context: &Context, installed: Installed) -> Installed {
        let active = stored(object, context).and_then(|(digest, manifest)| activate(object, digest, manifest).ok());
        let failed = Installed { active, retry: self.retry, ..installed };
        failed.fail(self.condition, self.reason, self.message)
    }
}
