//! The history of a Plugin: which revision is which, what became of each, and how many are kept. Pure: the time is handed in.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use substratus_crds::{PluginRevision, PluginStatus, RevisionState};

use crate::kinds::shared::conditions::whole_second;
use crate::plugin::{ImageName, sentence};

/// Older revisions that are kept where the spec does not say.
const KEPT: usize = 5;
/// The most, whatever the spec says: a status is no archive.
const MOST: usize = 20;

/// A revision on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Digest of the component.
    pub digest: String,
    /// Image with the digest of its manifest; nothing for a bundled plugin.
    pub image: Option<String>,
    /// Version of its manifest, where that was read already.
    pub version: Option<String>,
    /// Who signed it, where that was looked at already.
    pub signed_by: Vec<String>,
}

impl Revision {
    /// One that is on record.
    pub fn of(record: &PluginRevision) -> Self {
        Self {
            digest: record.digest.clone(),
            image: record.image.clone(),
            version: record.version.clone(),
            signed_by: record.signed_by.clone(),
        }
    }

    /// Whether both are the same: by the manifest that was signed, or for a bundled plugin by the component.
    pub fn is(&self, other: &Self) -> bool {
        same((&self.digest, self.image.as_deref()), (&other.digest, other.image.as_deref()))
    }

    fn is_record(&self, record: &PluginRevision) -> bool {
        same((&self.digest, self.image.as_deref()), (&record.digest, record.image.as_deref()))
    }

    /// The digest of the OCI manifest.
    pub fn manifest(&self) -> Option<&str> {
        self.image.as_deref()?.rsplit_once('@').map(|(_, digest)| digest)
    }

    /// How people call it.
    pub fn title(&self) -> String {
        self.version.as_ref().map_or_else(|| self.digest.clone(), |version| format!("version {version}"))
    }
}

fn same(one: (&str, Option<&str>), other: (&str, Option<&str>)) -> bool {
    match (one.1, other.1) {
        (None, None) => one.0 == other.0,
        (Some(one), Some(other)) => pinned(one).is_some_and(|name| Some(name) == pinned(other)),
        _ => false,
    }
}

/// Repository and digest, the tag aside.
fn pinned(image: &str) -> Option<(String, String)> {
    let image = ImageName::parse(image).ok()?;
    Some((image.name, image.digest?))
}

/// The image of a spec with the digest of its manifest: what pins it.
pub fn with_digest(image: &str, manifest: &str) -> String {
    format!("{}@{manifest}", bare(image))
}

fn bare(image: &str) -> &str {
    image.split_once('@').map_or(image, |(name, _)| name)
}

/// The newest revision on record that the image of a spec named: by this very tag, or by its digest.
pub fn known<'a>(history: &'a [PluginRevision], image: &str) -> Option<&'a PluginRevision> {
    let wanted = pinned(image);
    history.iter().find(|record| {
        let Some(recorded) = record.image.as_deref() else { return false };
        match &wanted {
            Some(_) => pinned(recorded) == wanted,
            None => bare(recorded) == image,
        }
    })
}

/// The revision that answers, or answered last.
pub fn last(status: &PluginStatus) -> Option<&PluginRevision> {
    let active = status.active.as_deref()?;
    let of_it = || status.revisions.iter().filter(|record| record.digest == active);
    of_it().find(|record| record.state == RevisionState::Active).or_else(|| of_it().next())
}

/// What became of the newest revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest<'a> {
    /// The revision.
    pub revision: &'a Revision,
    /// What became of it.
    pub state: RevisionState,
    /// Why.
    pub message: Option<String>,
}

/// The history as it is now: `serves` answers, and `withdrawn` says why the last one that did may not any more.
pub fn update(
    history: &[PluginRevision],
    newest: Option<&Newest<'_>>,
    serves: Option<&Revision>,
    withdrawn: Option<&str>,
    limit: Option<i32>,
    now: Timestamp,
) -> Vec<PluginRevision> {
    let now = Time(whole_second(now));
    let mut revisions: Vec<PluginRevision> = history.to_vec();
    if let Some(newest) = newest {
        let known = revisions.iter().position(|record| newest.revision.is_record(record)).map(|at| revisions.remove(at));
        revisions.insert(0, entry(newest, known, &now));
    }
    // What the newest came to is said already.
    for record in revisions.iter_mut().skip(usize::from(newest.is_some())) {
        let answers = serves.is_some_and(|serves| serves.is_record(record));
        match (answers, record.state) {
            (true, _) => mark(record, RevisionState::Active, None, &now),
            (false, RevisionState::Active) if serves.is_some() => mark(record, RevisionState::Retired, None, &now),
            (false, RevisionState::Active) => {
                if let Some(why) = withdrawn {
                    mark(record, RevisionState::Failed, Some(why.to_owned()), &now);
                }
            }
            (false, RevisionState::Waiting) if newest.is_some() => mark(record, RevisionState::Skipped, None, &now),
            (false, _) => {}
        }
    }
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(KEPT).min(MOST);
    trim(revisions, newest.is_some(), serves, limit)
}

fn entry(newest: &Newest<'_>, known: Option<PluginRevision>, now: &Time) -> PluginRevision {
    let revision = newest.revision.clone();
    let mut record = known.unwrap_or_else(|| PluginRevision {
        digest: revision.digest.clone(),
        image: revision.image.clone(),
        version: None,
        signed_by: Vec::new(),
        state: newest.state,
        message: None,
        since: now.clone(),
    });
    record.version = revision.version.or(record.version);
    if !revision.signed_by.is_empty() {
        record.signed_by = revision.signed_by;
    }
    mark(&mut record, newest.state, newest.message.as_deref().map(sentence), now);
    record
}

fn mark(record: &mut PluginRevision, state: RevisionState, message: Option<String>, now: &Time) {
    if record.state != state {
        record.state = state;
        record.since = now.clone();
    }
    record.message = message;
}

/// The newest, the one that answers (or would, once it can be had again), and so many others.
fn trim(revisions: Vec<PluginRevision>, has_newest: bool, serves: Option<&Revision>, limit: usize) -> Vec<PluginRevision> {
    let mut others = 0;
    let kept = revisions.into_iter().enumerate().filter(|(at, record)| {
        let needed = (*at == 0 && has_newest)
            || record.state == RevisionState::Active
            || serves.is_some_and(|serves| serves.is_record(record));
        others += usize::from(!needed);
        needed || others <= limit
    });
    kept.map(|(_, record)| record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn digest(number: usize) -> String {
        format!("sha256:{number:064}")
    }

    fn revision(number: usize) -> Revision {
        Revision {
            digest: digest(number + 1000),
            image: Some(with_digest("registry.example/a:1", &digest(number))),
            version: Some(format!("0.{number}.0")),
            signed_by: vec!["k".to_owned()],
        }
    }

    fn next(
        history: &[PluginRevision],
        number: usize,
        state: RevisionState,
        serves: Option<usize>,
        second: i64,
    ) -> Vec<PluginRevision> {
        let revision = revision(number);
        let newest = Newest { revision: &revision, state, message: None };
        update(history, Some(&newest), serves.map(self::revision).as_ref(), None, Some(2), at(second))
    }

    fn told(history: &[PluginRevision]) -> Vec<(String, RevisionState)> {
        history.iter().map(|record| (record.version.clone().unwrap_or_default(), record.state)).collect()
    }

    fn states(pairs: &[(&str, RevisionState)]) -> Vec<(String, RevisionState)> {
        pairs.iter().map(|(version, state)| ((*version).to_owned(), *state)).collect()
    }

    use RevisionState::{Active, Failed, Retired, Skipped, Waiting};

    #[test]
    fn the_same_again_changes_nothing() {
        let first = next(&[], 1, Active, Some(1), 10);
        assert_eq!(next(&first, 1, Active, Some(1), 99), first);
        assert_eq!(first[0].since, Time(at(10)));
    }

    #[test]
    fn a_bad_one_is_recorded_and_the_good_one_stays() {
        let good = next(&[], 1, Active, Some(1), 10);
        let bad = next(&good, 2, Failed, Some(1), 20);
        assert_eq!(told(&bad), states(&[("0.2.0", Failed), ("0.1.0", Active)]));
        assert_eq!(bad[1], good[0], "nothing of the good one changed");
        let better = next(&bad, 3, Active, Some(3), 30);
        assert_eq!(told(&better), states(&[("0.3.0", Active), ("0.2.0", Failed), ("0.1.0", Retired)]));
        assert_eq!(better[2].since, Time(at(30)));
    }

    #[test]
    fn one_that_waited_and_was_passed_over_is_not_taken_for_one_that_answered() {
        let one = next(&[], 1, Active, Some(1), 10);
        let two = next(&one, 2, Waiting, Some(1), 20);
        let three = next(&two, 3, Active, Some(3), 30);
        assert_eq!(told(&three), states(&[("0.3.0", Active), ("0.2.0", Skipped), ("0.1.0", Retired)]));
    }

    #[test]
    fn going_back_makes_the_old_one_the_newest() {
        let one = next(&[], 1, Active, Some(1), 10);
        let two = next(&one, 2, Active, Some(2), 20);
        let back = next(&two, 1, Active, Some(1), 30);
        assert_eq!(told(&back), states(&[("0.1.0", Active), ("0.2.0", Retired)]));
    }

    #[test]
    fn the_history_is_bounded_and_never_loses_the_one_that_answers() {
        let mut history = next(&[], 1, Active, Some(1), 10);
        for number in 2..30 {
            history = next(&history, number, Failed, Some(1), 20);
        }
        assert_eq!(told(&history), states(&[("0.29.0", Failed), ("0.28.0", Failed), ("0.27.0", Failed), ("0.1.0", Active)]));
        let newest = revision(30);
        let newest = Newest { revision: &newest, state: Failed, message: None };
        assert_eq!(update(&history, Some(&newest), None, None, Some(0), at(40)).len(), 2, "what answered last is kept, too");
        let many: Vec<PluginRevision> = (0..100).flat_map(|n| next(&[], n, Failed, None, 1)).collect();
        assert_eq!(update(&many, Some(&newest), None, None, Some(i32::MAX), at(40)).len(), 1 + MOST);
    }

    #[test]
    fn what_may_not_answer_any_more_says_why() {
        let one = next(&[], 1, Active, Some(1), 10);
        let gone = update(&one, None, None, Some("no PluginSource fits"), None, at(20));
        assert_eq!((gone[0].state, gone[0].message.as_deref()), (Failed, Some("no PluginSource fits")));
        assert_eq!(update(&one, None, None, None, None, at(20)), one, "what only cannot be had keeps its place");
    }

    #[test]
    fn a_spec_finds_its_revision_by_tag_and_by_digest() {
        let history = next(&next(&[], 1, Active, Some(1), 10), 2, Active, Some(2), 20);
        let found = |image: &str| known(&history, image).map(|record| record.version.clone().unwrap());
        assert_eq!(found("registry.example/a:1").as_deref(), Some("0.2.0"), "the newest of the tag");
        assert_eq!(found(&format!("registry.example/a@{}", digest(1))).as_deref(), Some("0.1.0"));
        assert_eq!(found(&format!("registry.example/a:other@{}", digest(1))).as_deref(), Some("0.1.0"));
        assert_eq!(found("registry.example/a:2"), None);
        assert_eq!(found(&format!("registry.evil/a@{}", digest(1))), None);
    }

    #[test]
    fn the_one_that_answered_last_is_found_by_its_digest() {
        let revisions = next(&next(&[], 1, Active, Some(1), 10), 2, Failed, Some(1), 20);
        let status = PluginStatus { active: Some(digest(1001)), revisions, ..PluginStatus::default() };
        assert_eq!(last(&status).unwrap().version.as_deref(), Some("0.1.0"));
        assert_eq!(last(&PluginStatus::default()), None);
    }
}
