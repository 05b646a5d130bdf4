//! Which places of the bucket a load may take files over from: artifacts of its own namespace and no others. A status says where
//! an artifact lies, and a status can be written by whoever may; so only a place that its object has by its name counts.

use std::str::FromStr;

use substratus_crds::ArtifactStatus;

use crate::bucket::BucketUrl;
use crate::context::Context;
use crate::kinds::shared::environment::Environment;
use crate::reconcile::caches;
use crate::reconcile::trigger::Trigger;

/// Objects that are offered.
const OBJECTS: usize = 12;
/// Earlier generations of the object itself that are offered. A load that failed is not on record any more once the next one is.
const GENERATIONS: i64 = 8;

/// Places that other artifacts of `namespace` have, the newest first.
pub(super) fn of_others(context: &Context, namespace: &str, own: &Trigger) -> Vec<String> {
    let objects = context.caches.siblings.of(namespace, OBJECTS);
    objects.iter().filter(|object| *object != own).flat_map(|object| places(context, object)).collect()
}

/// Places of earlier generations of the object itself, the newest first.
pub(super) fn of_earlier(environment: &Environment, namespace: &str, kind: &str, name: &str, generation: i64) -> Vec<String> {
    let first = environment.place(namespace, kind, name);
    let earlier = (1.max(generation - GENERATIONS)..generation).rev().map(|number| first.join(&format!("g{number}")));
    earlier.chain((generation > 1).then(|| first.clone())).map(|place| place.to_string()).collect()
}

fn places(context: &Context, object: &Trigger) -> Vec<String> {
    let (kind, namespace, name, status) = match object {
        Trigger::Dataset(namespace, name) => {
            let dataset = caches::get(&context.caches.datasets, namespace, name);
            ("dataset", namespace, name, dataset.and_then(|dataset| dataset.status.clone()))
        }
        Trigger::Model(namespace, name) => {
            let model = caches::get(&context.caches.models, namespace, name);
            ("model", namespace, name, model.and_then(|model| model.status.clone()))
        }
        Trigger::Notebook(..) | Trigger::Server(..) | Trigger::Plugin(_) | Trigger::Sources => return Vec::new(),
    };
    status.map(|status| own_places(&context.environment.place(namespace, kind, name), &status)).unwrap_or_default()
}

/// Where an artifact lies, and where the next one is being written, if both are the object's own place.
fn own_places(place: &BucketUrl, status: &ArtifactStatus) -> Vec<String> {
    let there = status.artifacts.as_ref().and_then(|artifacts| artifacts.url.as_deref());
    let next = status.plan.as_ref().and_then(|plan| plan.target.as_deref());
    let mut places: Vec<String> = Vec::new();
    for url in [there, next].into_iter().flatten().filter_map(|url| BucketUrl::from_str(url).ok()) {
        let is_own = url == *place || is_generation(&url, place);
        if is_own && !places.contains(&url.to_string()) {
            places.push(url.to_string());
        }
    }
    places
}

/// `g<number>` below a place.
fn is_generation(url: &BucketUrl, place: &BucketUrl) -> bool {
    let last = url.path().rsplit_once('/').map(|(_, last)| last);
    last.is_some_and(|last| {
        let number = last.strip_prefix('g').unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) && *url == place.join(last)
    })
}

#[cfg(test)]
mod tests {
    use substratus_crds::{Artifacts, PlanRecord};

    use super::*;
    use crate::kinds::shared::environment;

    fn status(url: &str, target: &str) -> ArtifactStatus {
        let plan = PlanRecord { target: Some(target.to_owned()), ..PlanRecord::default() };
        let artifacts = Some(Artifacts { url: Some(url.to_owned()) });
        ArtifactStatus { artifacts, plan: Some(plan), ..ArtifactStatus::default() }
    }

    #[test]
    fn a_place_that_is_not_the_objects_own_is_not_offered() {
        let environment = environment::of("local");
        let place = environment.place("team-a", "model", "m");
        let foreign = environment.place("team-b", "model", "secret").to_string();
        let (first, second) = (place.to_string(), place.join("g2").to_string());
        assert_eq!(own_places(&place, &status(&first, &first)), [first.as_str()]);
        assert_eq!(own_places(&place, &status(&first, &second)), [first.as_str(), second.as_str()]);
        assert!(own_places(&place, &status(&foreign, "nonsense")).is_empty());
        for url in
            [format!("{first}/g2/x"), format!("{first}x"), format!("{first}/gx"), format!("{first}/g"), format!("{first}/x2")]
        {
            assert!(own_places(&place, &status(&url, &url)).is_empty(), "{url}");
        }
    }

    #[test]
    fn earlier_generations_are_offered_newest_first_and_bounded() {
        let environment = environment::of("local");
        let first = environment.place("team-a", "model", "m").to_string();
        assert!(of_earlier(&environment, "team-a", "model", "m", 1).is_empty());
        let earlier = of_earlier(&environment, "team-a", "model", "m", 3);
        assert_eq!(earlier, [format!("{first}/g2"), format!("{first}/g1"), first.clone()]);
        assert_eq!(of_earlier(&environment, "team-a", "model", "m", 100).len(), 9);
    }
}
