//! Whether a revision that passed every step may answer, or waits for an administrator. Pure.

use kube::ResourceExt;
use substratus_crds::conditions::plugin as said;
use substratus_crds::{Activation, Plugin, PluginRevision, RevisionState};

use super::permissions;
use super::revisions::Revision;
use crate::plugin::Manifest;

/// The annotation of a Plugin that names the digest of a revision which may answer.
pub const APPROVE: &str = "substratus.ai/approve";

/// What a revision waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What it waits for, and how to say yes.
    pub message: String,
}

/// What came before a revision.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// Nothing ever answered.
    Nothing,
    /// This.
    Manifest(&'a Manifest),
    /// Something of which nobody knows any more what it asked for.
    Unknown,
}

/// What the revision waits for, if for anything.
pub fn needed(
    object: &Plugin,
    history: &[PluginRevision],
    revision: &Revision,
    manifest: &Manifest,
    before: Before<'_>,
) -> Option<Waits> {
    // It came with the operator, whom an administrator updated.
    let image = revision.image.as_deref()?;
    let answered = |record: &PluginRevision| matches!(record.state, RevisionState::Active | RevisionState::Retired);
    if history.iter().any(|record| answered(record) && revision.is(&Revision::of(record))) || is_approved(object, revision) {
        return None;
    }
    let version = &manifest.version;
    let (reason, why) = match before {
        Before::Manifest(before) => {
            let more = permissions::increase(before, manifest);
            match (more.is_empty(), object.spec.activation) {
                (false, _) => {
                    let more = permissions::describe(&more);
                    (said::PERMISSIONS, format!("version {version} asks for more than {}: {more}", before.version))
                }
                (true, Some(Activation::Manual)) => manual(version),
                (true, _) => return None,
            }
        }
        Before::Unknown => (
            said::PERMISSIONS,
            format!("version {version} may ask for more than the one before it, which cannot be had any more"),
        ),
        Before::Nothing if object.spec.activation == Some(Activation::Manual) => manual(version),
        Before::Nothing => return None,
    };
    let command = format!("kubectl annotate plugin {} {APPROVE}={} --overwrite", object.name_any(), revision.digest);
    Some(Waits { reason, message: format!("{why}; look at {image}, and if it may answer: {command}") })
}

fn manual(version: &str) -> (&'static str, String) {
    (said::APPROVAL_NEEDED, format!("version {version} passed every step and waits, because spec.activation is Manual"))
}

/// Whether the annotation names this revision, by the digest of its component or of its manifest.
fn is_approved(object: &Plugin, revision: &Revision) -> bool {
    let approved = object.annotations().get(APPROVE).map(|text| text.trim());
    approved.is_some_and(|digest| digest == revision.digest || revision.manifest() == Some(digest))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const IMAGE: &str = "registry.example/a:1@sha256:0000000000000000000000000000000000000000000000000000000000000001";

    fn manifest(version: &str, more: &str) -> Manifest {
        Manifest::from_yaml(&format!("{{name: a, version: {version}, role: ModelLoader, host: '0.1', {more}}}")).unwrap()
    }

    fn plugin(spec: &Value, annotations: &Value) -> Plugin {
        let metadata = json!({"name": "loader", "annotations": annotations});
        let object = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "metadata": metadata, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn revision() -> Revision {
        Revision { digest: "sha256:c".to_owned(), image: Some(IMAGE.to_owned()), ..Revision::default() }
    }

    fn record(state: RevisionState) -> PluginRevision {
        serde_json::from_value(json!({"digest": "sha256:c", "image": IMAGE, "state": state, "since": "2026-01-01T00:00:00Z"}))
            .unwrap()
    }

    #[test]
    fn more_than_before_waits_and_says_what_and_how() {
        let (old, new) = (manifest("0.1.0", "hosts: []"), manifest("0.2.0", "hosts: ['https://evil.example']"));
        let object = plugin(&json!({}), &json!({}));
        let waits = needed(&object, &[], &revision(), &new, Before::Manifest(&old)).unwrap();
        assert_eq!(waits.reason, said::PERMISSIONS);
        assert_eq!(
            waits.message,
            format!(
                "version 0.2.0 asks for more than 0.1.0: the host https://evil.example; look at {IMAGE}, and if it may answer: \
                 kubectl annotate plugin loader substratus.ai/approve=sha256:c --overwrite"
            )
        );
        assert_eq!(needed(&object, &[], &revision(), &old, Before::Manifest(&new)), None, "less is no reason to wait");
        assert_eq!(needed(&object, &[], &revision(), &new, Before::Nothing), None, "the first is what was installed");
        assert_eq!(needed(&object, &[], &revision(), &old, Before::Unknown).unwrap().reason, said::PERMISSIONS);
    }

    #[test]
    fn manual_waits_for_every_revision() {
        let same = manifest("0.1.0", "");
        let object = plugin(&json!({"activation": "Manual"}), &json!({}));
        for before in [Before::Nothing, Before::Manifest(&same)] {
            assert_eq!(needed(&object, &[], &revision(), &same, before).unwrap().reason, said::APPROVAL_NEEDED);
        }
        let bundled = Revision { image: None, ..revision() };
        assert_eq!(needed(&object, &[], &bundled, &same, Before::Nothing), None);
    }

    #[test]
    fn only_the_digest_that_was_approved_answers() {
        let (old, new) = (manifest("0.1.0", ""), manifest("0.2.0", "hosts: ['https://evil.example']"));
        let manifest_digest = IMAGE.split_once('@').unwrap().1;
        for (approved, waits) in [("sha256:c", false), (manifest_digest, false), ("sha256:d", true), ("", true), ("yes", true)] {
            let object = plugin(&json!({"activation": "Manual"}), &json!({APPROVE: approved}));
            let needed = needed(&object, &[], &revision(), &new, Before::Manifest(&old));
            assert_eq!(needed.is_some(), waits, "{approved}");
        }
    }

    #[test]
    fn what_answered_before_may_come_back() {
        let (old, new) = (manifest("0.1.0", "hosts: ['https://hub.example']"), manifest("0.2.0", ""));
        let object = plugin(&json!({"activation": "Manual"}), &json!({}));
        for (state, waits) in [
            (RevisionState::Active, false),
            (RevisionState::Retired, false),
            (RevisionState::Skipped, true),
            (RevisionState::Waiting, true),
            (RevisionState::Failed, true),
        ] {
            let needed = needed(&object, &[record(state)], &revision(), &old, Before::Manifest(&new));
            assert_eq!(needed.is_some(), waits, "{state:?}");
        }
    }
}
