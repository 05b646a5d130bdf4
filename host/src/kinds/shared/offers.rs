//! Places that a load may take files over from, as its worker sees them: folders for reading beside the one that it writes to,
//! or the same bucket. Pure.

use k8s_openapi::api::core::v1::VolumeMount;

use super::content::{self, CLAIM_DIR, parse};
use super::mounts::Mount;
use super::verdict::Verdict;
use crate::bucket::BucketUrl;
use crate::bucket::url::{ARTIFACTS, Scheme};

/// What is offered.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    /// What the worker is told, the best first.
    pub urls: Vec<String>,
    /// The folders, where they are such.
    pub mounts: Vec<Mount>,
}

/// The places among `urls` that a worker that writes to `target` can read, too: those in the same bucket. What lies within another
/// one is seen through its folder, so that nothing has to be made for it to be mounted.
pub fn to(target: &str, urls: &[String]) -> Result<Offers, Verdict> {
    let target = parse(target)?;
    let same = |url: &BucketUrl| url.scheme() == target.scheme() && url.bucket() == target.bucket() && *url != target;
    let places: Vec<BucketUrl> = urls.iter().filter_map(|url| parse(url).ok()).filter(same).collect();
    let roots: Vec<&BucketUrl> =
        places.iter().filter(|place| !places.iter().any(|other| within(place, other).is_some())).collect();
    let mut offers = Offers::default();
    for place in &places {
        offers.urls.push(match (place.scheme(), place.local_path()) {
            (Scheme::Pvc, _) => seen(&roots, place).unwrap_or_default(),
            _ => place.to_string(),
        });
    }
    offers.mounts = roots.iter().enumerate().filter_map(|(number, root)| mount(number, root)).collect();
    Ok(offers)
}

/// Where `place` is in the folder of `other`.
fn within<'a>(place: &'a BucketUrl, other: &BucketUrl) -> Option<&'a str> {
    place.path().strip_prefix(other.path().trim_end_matches('/'))?.strip_prefix('/')
}

/// A place of a claim, as the worker sees it.
fn seen(roots: &[&BucketUrl], place: &BucketUrl) -> Option<String> {
    let folder = |number: usize| format!("file:///{CLAIM_DIR}-{number}");
    roots.iter().enumerate().find_map(|(number, root)| match within(place, root) {
        Some(rest) => Some(format!("{}/{rest}", folder(number))),
        None => (*root == place).then(|| folder(number)),
    })
}

fn mount(number: usize, root: &BucketUrl) -> Option<Mount> {
    let volume = format!("reuse-{number}");
    let Mount { volume, mount } = match (root.scheme(), root.local_path()) {
        (_, Some(path)) => {
            // Under its own name, as the target is.
            let path = path.to_str()?;
            Mount { mount: content::mounted(&volume, path, String::new()), volume: content::host_path(&volume, path) }
        }
        (Scheme::Pvc, _) => {
            // The claim is the target's: one volume, seen in several places.
            let path = format!("{CLAIM_DIR}-{number}");
            let mount = content::mounted(ARTIFACTS, &path, root.path().to_owned());
            Mount { mount, volume: content::claim(ARTIFACTS, root.bucket()) }
        }
        _ => return None,
    };
    Some(Mount { volume, mount: VolumeMount { read_only: Some(true), ..mount } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(target: &str, urls: &[&str]) -> (Vec<String>, Vec<(String, String)>) {
        let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
        let offers = to(target, &urls).unwrap();
        let seen = |mount: &Mount| {
            assert_eq!(mount.mount.read_only, Some(true));
            let at = mount.volume.host_path.as_ref().map(|host| host.path.clone());
            (mount.mount.mount_path.clone(), at.or_else(|| mount.mount.sub_path.clone()).unwrap_or_default())
        };
        (offers.urls, offers.mounts.iter().map(seen).collect())
    }

    #[test]
    fn folders_are_mounted_for_reading_and_once() {
        let urls = ["tar:////bucket/m/g2", "tar:////bucket/m", "tar:////bucket/other", "s3://bucket/x", "tar:////bucket/m/g3"];
        let (told, mounts) = offered("tar:////bucket/m/g3", &urls);
        assert_eq!(told, [urls[0], urls[1], urls[2]]);
        let own = |path: &str| (path.to_owned(), path.to_owned());
        assert_eq!(mounts, [own("/bucket/m"), own("/bucket/other")]);
    }

    #[test]
    fn a_claim_is_seen_in_several_places_and_a_bucket_needs_no_folder() {
        let (told, mounts) = offered("pvc://c/m/g3", &["pvc://c/other", "pvc://c/m/g2", "pvc://c/m", "pvc://foreign/x"]);
        assert_eq!(told, ["file:////claim-0", "file:////claim-1/g2", "file:////claim-1"]);
        let at = |path: &str, sub: &str| (path.to_owned(), sub.to_owned());
        assert_eq!(mounts, [at("/claim-0", "other"), at("/claim-1", "m")]);
        assert_eq!(offered("s3://b/m", &["s3://b/other", "s3://c/x"]), (vec!["s3://b/other".to_owned()], vec![]));
    }
}
