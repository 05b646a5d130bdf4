//! What a Plugin's status says: one condition per step, in order, what answers, and the history. Pure: the time is handed in.

use jiff::Timestamp;
use substratus_crds::conditions::plugin::{
    ACTIVE, CLAIM_CONFLICT, COMPATIBLE, COMPILED, CONFIG_VALID, OK, RESOLVED, UP_TO_DATE, UPDATE_AVAILABLE, UPDATE_FAILED,
    VERIFIED, WAITING,
};
use substratus_crds::{Claims, Plugin, PluginStatus, RevisionState};

use super::bundle::{Place, Serves};
use super::failure::Failure;
use super::install::{Good, Installed};
use super::revisions::{self, Newest};
use crate::kinds::shared::conditions::{Say, set};

/// The steps before `Active`.
const STEPS: &[(&str, &str)] = &[
    (RESOLVED, "the image was resolved"),
    (VERIFIED, "it is verified"),
    (COMPATIBLE, "the component fits this host"),
    (COMPILED, "native code is in the cache"),
    (CONFIG_VALID, "spec.config fits the plugin's schema"),
];

/// The status.
pub fn status(object: &Plugin, installed: &Installed, place: &Place, now: Timestamp) -> PluginStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    status.observed_generation = generation;
    let serving = match place.serves {
        Serves::Newest => installed.candidate.as_ref(),
        Serves::Last => installed.last.as_ref(),
        Serves::None => None,
    };
    if let Some(good) = serving {
        describe(&mut status, good);
    }
    status.revisions = revisions::update(
        &status.revisions,
        newest(installed, place, serving).as_ref(),
        serving.map(|good| &good.revision),
        installed.withdrawn.as_deref(),
        object.spec.revision_history_limit,
        now,
    );
    for said in steps(installed) {
        set(&mut status.conditions, said, generation, now);
    }
    set(&mut status.conditions, active(installed, place, serving), generation, now);
    match update(installed, place, serving) {
        Some(said) => set(&mut status.conditions, said, generation, now),
        None => status.conditions.retain(|condition| condition.type_ != UPDATE_AVAILABLE),
    }
    status
}

fn describe(status: &mut PluginStatus, good: &Good) {
    let manifest = &good.active.manifest;
    status.role = Some(manifest.role);
    status.version = Some(manifest.version.clone());
    status.active = Some(good.active.digest.clone());
    status.resolved.clone_from(&good.revision.image);
    let claims = &manifest.claims;
    status.claims = Some(Claims {
        schemes: claims.schemes.clone(),
        images: claims.images.iter().map(|image| image.repository.clone()).collect(),
        builds: claims.images.iter().filter_map(|image| image.build.clone()).collect(),
        engines: claims.engines.clone(),
        clouds: claims.clouds.clone(),
    });
}

fn newest<'a>(installed: &'a Installed, place: &Place, serving: Option<&Good>) -> Option<Newest<'a>> {
    let revision = installed.newest.as_ref()?;
    if serving.is_some_and(|good| good.revision.is(revision)) {
        // It may have failed a step that it passed before: as long as it answers, that is what became of it.
        let message = installed.failed.as_ref().map(Failure::line);
        return Some(Newest { revision, state: RevisionState::Active, message });
    }
    let (state, message) = match (&installed.failed, &installed.waiting, &place.conflict) {
        (Some(failure), ..) => (RevisionState::Failed, Some(failure.line())),
        (None, Some((_, waits)), _) => (RevisionState::Waiting, Some(waits.message.clone())),
        (None, None, Some(conflict)) => (RevisionState::Waiting, Some(conflict.clone())),
        // It may answer and does not: its turn comes with the next pass.
        (None, None, None) => (RevisionState::Waiting, None),
    };
    Some(Newest { revision, state, message })
}

/// The newest revision, step by step.
fn steps(installed: &Installed) -> Vec<Say> {
    let good = installed.candidate.as_ref().or_else(|| installed.waiting.as_ref().map(|(good, _)| good));
    let mut passed = true;
    let say = |(condition, message): &(&'static str, &str)| match &installed.failed {
        Some(failure) if failure.condition == *condition => {
            passed = false;
            Say::no(condition, failure.reason, failure.message.clone())
        }
        _ if !passed => Say::no(condition, WAITING, "an earlier step failed"),
        _ => match good {
            Some(good) if *condition == VERIFIED => Say::yes(condition, good.verified.0, good.verified.1.clone()),
            _ => Say::yes(condition, OK, *message),
        },
    };
    STEPS.iter().map(say).collect()
}

/// Why the newest revision does not answer: reason and message.
fn hindrance<'a>(installed: &'a Installed, place: &'a Place) -> Option<(&'a str, &'a str)> {
    let failed = installed.failed.as_ref().map(|failure| (failure.reason, failure.message.as_str()));
    let waits = || installed.waiting.as_ref().map(|(_, waits)| (waits.reason, waits.message.as_str()));
    let conflict = || place.conflict.as_deref().map(|conflict| (CLAIM_CONFLICT, conflict));
    failed.or_else(waits).or_else(conflict)
}

fn active(installed: &Installed, place: &Place, serving: Option<&Good>) -> Say {
    match (serving, hindrance(installed, place)) {
        (Some(good), None) => Say::yes(ACTIVE, OK, format!("version {} answers", good.active.manifest.version)),
        (Some(good), Some((reason, _))) => {
            let version = &good.active.manifest.version;
            let why = match (&installed.failed, reason) {
                (Some(failure), _) => format!("the new revision failed: {} {reason}", failure.condition),
                (None, CLAIM_CONFLICT) => "the new revision claims what another plugin has".to_owned(),
                (None, _) => "a new revision waits for an administrator".to_owned(),
            };
            Say::yes(ACTIVE, OK, format!("version {version} keeps answering; {why}"))
        }
        (None, Some((reason, message))) => Say::no(ACTIVE, reason, message),
        (None, None) => Say::no(ACTIVE, WAITING, ""),
    }
}

/// Whether there is something newer than what answers. Nothing is said where no tag is followed and nothing waits.
fn update(installed: &Installed, place: &Place, serving: Option<&Good>) -> Option<Say> {
    let newer = installed.newest.as_ref().filter(|newest| serving.is_none_or(|good| !good.revision.is(newest)));
    if installed.failed.is_none()
        && let (Some(_), Some((reason, message))) = (newer, hindrance(installed, place))
    {
        return Some(Say::yes(UPDATE_AVAILABLE, reason, message));
    }
    let (interval, trouble) = installed.followed.as_ref()?;
    if let Some(trouble) = trouble {
        return Some(Say::no(UPDATE_AVAILABLE, trouble.reason, format!("the tag could not be asked: {}", trouble.message)));
    }
    match (&installed.failed, newer) {
        (Some(failure), Some(newest)) => {
            let message =
                format!("the tag names {}, and {} {}: {}", newest.title(), failure.condition, failure.reason, failure.message);
            Some(Say::yes(UPDATE_AVAILABLE, UPDATE_FAILED, message))
        }
        (Some(failure), None) => Some(Say::no(UPDATE_AVAILABLE, failure.reason, failure.message.clone())),
        (None, _) => {
            let message = format!("the tag names what answers; it is asked every {} s or so", interval.as_secs());
            Some(Say::no(UPDATE_AVAILABLE, UP_TO_DATE, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use substratus_crds::conditions::plugin as said;

    use super::super::approval::Waits;
    use super::super::revisions::Revision;
    use super::*;
    use crate::catalog::Active;
    use crate::kinds::shared::conditions::find;
    use crate::plugin::{Grant, Manifest};

    fn good(version: &str) -> Good {
        let manifest = format!("{{name: a, version: {version}, role: ModelLoader, host: '0.1', claims: {{schemes: [acme]}}}}");
        let number: u64 = version.replace('.', "").parse().unwrap();
        let (digest, image) = (format!("sha256:c{version}"), format!("registry.example/a:1@sha256:{number:064}"));
        let active = Active {
            name: "a".to_owned(),
            manifest: Manifest::from_yaml(&manifest).unwrap(),
            digest: digest.clone(),
            config: serde_json::Map::new(),
            grant: Grant::default(),
            named: false,
            namespaces: Vec::new(),
        };
        let revision =
            Revision { digest, image: Some(image), version: Some(version.to_owned()), signed_by: vec!["sha256:k".to_owned()] };
        Good { revision, active, verified: (OK, "signed by sha256:k".to_owned()) }
    }

    fn plugin(status: Option<&PluginStatus>) -> Plugin {
        let object = json!({"apiVersion": "substratus.ai/v1alpha1", "kind": "Plugin", "spec": {}, "status": status,
            "metadata": {"name": "a", "generation": 1}});
        serde_json::from_value(object).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// The status after a pass, which a second pass over the same leaves as it is.
    fn next(before: Option<&PluginStatus>, installed: &Installed, place: &Place, second: i64) -> PluginStatus {
        let after = status(&plugin(before), installed, place, at(second));
        let again = status(&plugin(Some(&after)), installed, place, at(second + 1000));
        assert_eq!(after, again, "nothing is written at rest");
        after
    }

    fn reason(status: &PluginStatus, kind: &str) -> (String, String) {
        let condition = find(&status.conditions, kind).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }

    fn pair(status: &str, reason: &str) -> (String, String) {
        (status.to_owned(), reason.to_owned())
    }

    fn place(serves: Serves, conflict: Option<&str>) -> Place {
        Place { serves, conflict: conflict.map(str::to_owned) }
    }

    fn first() -> PluginStatus {
        let installed =
            Installed { newest: Some(good("0.1.0").revision), candidate: Some(good("0.1.0")), ..Installed::default() };
        next(None, &installed, &place(Serves::Newest, None), 10)
    }

    #[test]
    fn a_revision_that_passed_every_step_answers() {
        let status = first();
        for condition in [RESOLVED, VERIFIED, COMPATIBLE, COMPILED, CONFIG_VALID, ACTIVE] {
            assert_eq!(reason(&status, condition), pair("True", OK), "{condition}");
        }
        assert_eq!(find(&status.conditions, UPDATE_AVAILABLE), None);
        assert_eq!((status.active.as_deref(), status.revisions[0].state), (Some("sha256:c0.1.0"), RevisionState::Active));
        assert_eq!(status.revisions[0].signed_by, ["sha256:k"]);
    }

    #[test]
    fn what_waits_says_so_and_the_last_one_answers() {
        let waits = Waits { reason: said::PERMISSIONS, message: "it asks for more".to_owned() };
        let installed = Installed {
            newest: Some(good("0.2.0").revision),
            waiting: Some((good("0.2.0"), waits)),
            last: Some(good("0.1.0")),
            ..Installed::default()
        };
        let status = next(Some(&first()), &installed, &place(Serves::Last, None), 20);
        assert_eq!(reason(&status, UPDATE_AVAILABLE), pair("True", said::PERMISSIONS));
        assert_eq!(reason(&status, ACTIVE), pair("True", OK));
        assert_eq!(reason(&status, CONFIG_VALID), pair("True", OK));
        assert_eq!(status.active.as_deref(), Some("sha256:c0.1.0"));
        assert_eq!([status.revisions[0].state, status.revisions[1].state], [RevisionState::Waiting, RevisionState::Active]);
    }

    #[test]
    fn a_claim_that_another_has_leaves_the_last_one_at_work() {
        let installed = Installed {
            newest: Some(good("0.2.0").revision),
            candidate: Some(good("0.2.0")),
            last: Some(good("0.1.0")),
            ..Installed::default()
        };
        let status = next(Some(&first()), &installed, &place(Serves::Last, Some("`b` has it")), 20);
        assert_eq!(reason(&status, UPDATE_AVAILABLE), pair("True", CLAIM_CONFLICT));
        assert_eq!((reason(&status, ACTIVE), status.version.as_deref()), (pair("True", OK), Some("0.1.0")));
        let alone = Installed { last: None, ..installed };
        let status = next(None, &alone, &place(Serves::None, Some("`b` has it")), 20);
        assert_eq!(reason(&status, ACTIVE), pair("False", CLAIM_CONFLICT));
        assert_eq!((status.active, status.revisions[0].state), (None, RevisionState::Waiting));
    }

    #[test]
    fn what_answers_and_cannot_be_asked_for_again_stays_what_it_is() {
        let failed = Failure::new(RESOLVED, said::DIGEST_REQUIRED, "digests only");
        let installed = Installed {
            newest: Some(good("0.1.0").revision),
            failed: Some(failed),
            last: Some(good("0.1.0")),
            ..Installed::default()
        };
        let status = next(Some(&first()), &installed, &place(Serves::Last, None), 20);
        assert_eq!(reason(&status, RESOLVED), pair("False", said::DIGEST_REQUIRED));
        assert_eq!((reason(&status, VERIFIED), reason(&status, ACTIVE)), (pair("False", WAITING), pair("True", OK)));
        assert_eq!((status.revisions[0].state, &status.revisions[0].since), (RevisionState::Active, &first().revisions[0].since));
    }

    #[test]
    fn what_is_not_trusted_any_more_does_not_answer() {
        let failed = Failure::new(RESOLVED, said::NO_SOURCE, "nobody vouches for it");
        let installed = Installed {
            newest: Some(good("0.1.0").revision),
            withdrawn: Some(failed.line()),
            failed: Some(failed),
            ..Installed::default()
        };
        let status = next(Some(&first()), &installed, &place(Serves::None, None), 20);
        assert_eq!(reason(&status, ACTIVE), pair("False", said::NO_SOURCE));
        assert_eq!(status.revisions[0].state, RevisionState::Failed);
        assert_eq!(status.active.as_deref(), Some("sha256:c0.1.0"), "what a next one is held against");
    }

    #[test]
    fn a_tag_that_is_followed_says_what_it_names() {
        let followed = |trouble| Some((Duration::from_mins(1), trouble));
        let fine = Installed {
            newest: Some(good("0.1.0").revision),
            candidate: Some(good("0.1.0")),
            followed: followed(None),
            ..Installed::default()
        };
        let newest = place(Serves::Newest, None);
        let status = next(Some(&first()), &fine, &newest, 20);
        assert_eq!(reason(&status, UPDATE_AVAILABLE), pair("False", UP_TO_DATE));
        let down = Failure::new(RESOLVED, said::REGISTRY_UNAVAILABLE, "no answer");
        let unknown = Installed { followed: followed(Some(down)), ..fine };
        let status = next(Some(&status), &unknown, &newest, 30);
        assert_eq!(reason(&status, UPDATE_AVAILABLE), pair("False", said::REGISTRY_UNAVAILABLE));
        assert_eq!(reason(&status, RESOLVED), pair("True", OK));
        let bad = Installed {
            newest: Some(Revision { version: None, ..good("0.2.0").revision }),
            failed: Some(Failure::new(COMPATIBLE, said::NOT_A_COMPONENT, "no component")),
            last: Some(good("0.1.0")),
            followed: followed(None),
            ..Installed::default()
        };
        let status = next(Some(&status), &bad, &place(Serves::Last, None), 40);
        assert_eq!(reason(&status, UPDATE_AVAILABLE), pair("True", UPDATE_FAILED));
        let pinned = Installed { followed: None, ..bad };
        let status = next(Some(&status), &pinned, &place(Serves::Last, None), 50);
        assert_eq!(find(&status.conditions, UPDATE_AVAILABLE), None);
    }
}
