//! What a Plugin's status says: one condition per step, in order. Pure: the time is handed in.

use jiff::Timestamp;
use substratus_crds::conditions::plugin::{
    ACTIVE, CLAIM_CONFLICT, COMPATIBLE, COMPILED, CONFIG_VALID, OK, RESOLVED, VERIFIED, WAITING,
};
use substratus_crds::{Claims, Plugin, PluginStatus};

use super::install::Installed;
use crate::kinds::shared::conditions::{Say, set};

/// The steps before `Active`.
const STEPS: &[(&str, &str)] = &[
    (RESOLVED, "the image was resolved"),
    (VERIFIED, "the digest was checked; this version verifies no signatures"),
    (COMPATIBLE, "the component fits this host"),
    (COMPILED, "native code is in the cache"),
    (CONFIG_VALID, "spec.config fits the plugin's schema"),
];

/// The status.
pub fn status(object: &Plugin, installed: &Installed, conflict: Option<&str>, now: Timestamp) -> PluginStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    status.observed_generation = generation;
    status.resolved.clone_from(&installed.resolved);
    if let Some(active) = &installed.active {
        status.role = Some(active.manifest.role);
        status.version = Some(active.manifest.version.clone());
        status.active = Some(active.digest.clone());
        let claims = &active.manifest.claims;
        status.claims = Some(Claims {
            schemes: claims.schemes.clone(),
            images: claims.images.iter().map(|image| image.repository.clone()).collect(),
            builds: claims.images.iter().filter_map(|image| image.build.clone()).collect(),
            engines: claims.engines.clone(),
            clouds: claims.clouds.clone(),
        });
    }
    let mut passed = true;
    for (condition, message) in STEPS {
        let said = match &installed.failed {
            Some((failed, reason, why)) if failed == condition => {
                passed = false;
                Say::no(condition, reason, why.clone())
            }
            _ if passed => Say::yes(condition, OK, *message),
            _ => Say::no(condition, WAITING, "an earlier step failed"),
        };
        set(&mut status.conditions, said, generation, now);
    }
    let active = match (&installed.active, conflict, &installed.failed) {
        (_, Some(conflict), _) => Say::no(ACTIVE, CLAIM_CONFLICT, conflict),
        (Some(active), None, None) => Say::yes(ACTIVE, OK, format!("version {} answers", active.manifest.version)),
        (Some(active), None, Some((condition, reason, _))) => Say::yes(
            ACTIVE,
            OK,
            format!("version {} keeps answering; the new revision failed: {condition} {reason}", active.manifest.version),
        ),
        (None, None, failed) => {
            let (reason, message) = failed.as_ref().map_or((WAITING, ""), |(_, reason, message)| (reason, message.as_str()));
            Say::no(ACTIVE, reason, message)
        }
    };
    set(&mut status.conditions, active, generation, now);
    status
}
