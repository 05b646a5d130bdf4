//! Cuts what a manifest asks for down to what an administrator grants, and that down to what its source may be granted at most.
//! Knows nothing about who enforces the result.

use substratus_crds::{Ceiling, Grants};

use super::{Grant, GrantedSecret, Manifest};
use crate::worker::allow::HostPattern;

impl Manifest {
    /// What the plugin may do: the smaller of what it asks for and what is granted. `None` grants all that it asks for: a bundled
    /// plugin that no administrator has touched.
    ///
    /// One exact host or range of addresses, and one image repository in full, count even where the manifest does not know them: its author cannot
    /// know an administrator's mirror. Patterns and prefixes never widen what was asked for.
    pub fn grant(&self, granted: Option<&Grants>) -> Grant {
        let Some(granted) = granted else { return self.asked() };
        let secrets = self.secrets.iter().filter_map(|secret| {
            let named: Vec<String> =
                granted.secrets.iter().filter(|grant| grant.name == secret.name).flat_map(|grant| grant.hosts.clone()).collect();
            let hosts = smaller_hosts(&secret.hosts, &named);
            (!hosts.is_empty()).then(|| GrantedSecret {
                name: secret.name.clone(),
                env: secret.env.clone(),
                scheme: secret.scheme,
                hosts,
            })
        });
        Grant {
            hosts: smaller_hosts(&self.hosts, &granted.hosts),
            secrets: secrets.collect(),
            images: smaller(&self.images, &granted.images, prefix_covers, |image| !image.ends_with('/')),
            scheduling: smaller(&self.scheduling, &granted.scheduling, key_covers, |_| false),
        }
    }

    /// Whether everything that the host pattern `narrow` allows is allowed by `wide`; patterns that do not parse cover nothing.
    pub fn host_covers(wide: &str, narrow: &str) -> bool {
        host_covers(wide, narrow)
    }

    /// Whether an image, or a prefix of images, is among those of another.
    pub fn image_covers(wide: &str, narrow: &str) -> bool {
        image_covers(wide, narrow)
    }

    /// Whether a scheduling key, or a prefix of keys, is among those of another.
    pub fn key_covers(wide: &str, narrow: &str) -> bool {
        key_covers(wide, narrow)
    }

    fn asked(&self) -> Grant {
        let secrets = self.secrets.iter().map(|secret| GrantedSecret {
            name: secret.name.clone(),
            env: secret.env.clone(),
            scheme: secret.scheme,
            hosts: secret.hosts.clone(),
        });
        Grant {
            hosts: self.hosts.clone(),
            secrets: secrets.collect(),
            images: self.images.clone(),
            scheduling: self.scheduling.clone(),
        }
    }
}

impl Grant {
    /// The smaller of this and what a source may be granted at most. Nothing passes a ceiling because it was named in full.
    #[must_use]
    pub fn within(self, ceiling: &Ceiling) -> Self {
        let hosts = |granted: Vec<String>, most: Option<&Vec<String>>| match most {
            Some(most) => smaller(most, &granted, host_covers, |_| false),
            None => granted,
        };
        let secrets = self.secrets.into_iter().filter_map(|secret| {
            // A secret goes nowhere that a request may not go.
            let reachable = hosts(secret.hosts, ceiling.hosts.as_ref());
            let left = match &ceiling.secrets {
                Some(most) => {
                    let named = most.iter().filter(|most| most.name == secret.name).flat_map(|most| most.hosts.clone()).collect();
                    hosts(reachable, Some(&named))
                }
                None => reachable,
            };
            (!left.is_empty()).then_some(GrantedSecret { hosts: left, ..secret })
        });
        Self {
            secrets: secrets.collect(),
            hosts: hosts(self.hosts, ceiling.hosts.as_ref()),
            images: match &ceiling.images {
                Some(most) => smaller(most, &self.images, image_covers, |_| false),
                None => self.images,
            },
            scheduling: match &ceiling.scheduling {
                Some(most) => smaller(most, &self.scheduling, key_covers, |_| false),
                None => self.scheduling,
            },
        }
    }
}

fn smaller_hosts(asked: &[String], granted: &[String]) -> Vec<String> {
    smaller(asked, granted, host_covers, |host| host.parse::<HostPattern>().is_ok() && !host.contains("://*."))
}

/// Of every pair the narrower one; and what was granted by its full name.
fn smaller(asked: &[String], granted: &[String], covers: fn(&str, &str) -> bool, named: fn(&str) -> bool) -> Vec<String> {
    let mut result = Vec::new();
    for grant in granted {
        if named(grant) {
            result.push(grant.clone());
            continue;
        }
        for ask in asked {
            if covers(ask, grant) {
                result.push(grant.clone());
            } else if covers(grant, ask) {
                result.push(ask.clone());
            }
        }
    }
    result.sort();
    result.dedup();
    result
}

/// Patterns that do not parse cover nothing.
fn host_covers(wide: &str, narrow: &str) -> bool {
    match (wide.parse::<HostPattern>(), narrow.parse::<HostPattern>()) {
        (Ok(wide), Ok(narrow)) => wide.covers(&narrow),
        _ => false,
    }
}

/// Whether an image, or a prefix of images, lies below a prefix. A prefix ends where a name ends: `a/vllm` does not cover `a/vllm-evil`.
pub(super) fn prefix_covers(prefix: &str, image: &str) -> bool {
    image.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with(['/', ':', '@']))
}

/// A prefix ends in a slash; anything else is one repository, as [`crate::reconcile::guard`] reads grants.
fn image_covers(wide: &str, narrow: &str) -> bool {
    let (wide, narrow) = (full_name(wide), full_name(narrow));
    if wide.ends_with('/') { narrow.starts_with(&wide) } else { wide == narrow }
}

/// An image or a prefix of images with its registry, and without tag and digest.
fn full_name(image: &str) -> String {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    let image = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    };
    let hub = ["docker.io/", "index.docker.io/", "registry-1.docker.io/"].iter().find_map(|hub| image.strip_prefix(hub));
    match (hub, image.split_once('/')) {
        (Some(path), _) if path.contains('/') || path.is_empty() => format!("docker.io/{path}"),
        (Some(name), _) => format!("docker.io/library/{name}"),
        (None, Some((host, _))) if host.contains(['.', ':']) || host == "localhost" => image.to_owned(),
        (None, Some(_)) => format!("docker.io/{image}"),
        (None, None) => format!("docker.io/library/{image}"),
    }
}

fn key_covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_suffix("/*") {
        Some(prefix) => wide == narrow || narrow.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')),
        None => wide == narrow,
    }
}

#[cfg(test)]
mod tests {
    use substratus_crds::SecretGrant;

    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn loader() -> Manifest {
        Manifest::from_yaml(
            r#"{name: a, version: 0.1.0, role: ModelLoader, host: "0.1", hosts: ["https://hub.example", "https://*.cdn.example"],
                secrets: [{use: hub, env: [T], as: bearer, hosts: ["https://hub.example"]}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn an_untouched_bundled_plugin_gets_what_it_asks_for() {
        let grant = loader().grant(None);
        assert_eq!(grant.hosts, texts(&["https://hub.example", "https://*.cdn.example"]));
        assert_eq!(grant.secrets[0].hosts, texts(&["https://hub.example"]));
    }

    #[test]
    fn empty_grants_grant_nothing() {
        assert_eq!(loader().grant(Some(&Grants::default())), Grant::default());
    }

    #[test]
    fn the_narrower_pattern_wins_and_exact_mirrors_count() {
        let granted = Grants {
            hosts: texts(&[
                "https://*.example.org",
                "https://*.eu.cdn.example",
                "https://*.hub.example",
                "https://mirror.internal",
            ]),
            secrets: vec![
                SecretGrant { name: "hub".into(), hosts: texts(&["https://mirror.internal"]) },
                SecretGrant { name: "other".into(), hosts: texts(&["https://hub.example"]) },
            ],
            ..Grants::default()
        };
        let grant = loader().grant(Some(&granted));
        assert_eq!(grant.hosts, texts(&["https://*.eu.cdn.example", "https://mirror.internal"]));
        assert_eq!(grant.secrets.len(), 1);
        assert_eq!(grant.secrets[0].hosts, texts(&["https://mirror.internal"]));
    }

    fn cut(grant: &Grants, ceiling: &Ceiling) -> Grant {
        loader().grant(Some(grant)).within(ceiling)
    }

    #[test]
    fn a_ceiling_bounds_what_was_granted_and_hosts_of_secrets_with_it() {
        let granted = Grants {
            hosts: texts(&["https://hub.example", "https://*.cdn.example", "https://mirror.internal"]),
            secrets: vec![SecretGrant { name: "hub".into(), hosts: texts(&["https://hub.example", "https://mirror.internal"]) }],
            ..Grants::default()
        };
        let all = cut(&granted, &Ceiling::default());
        assert_eq!(all, loader().grant(Some(&granted)), "a ceiling that says nothing bounds nothing");
        let hosts = Ceiling { hosts: Some(texts(&["https://hub.example", "https://*.eu.cdn.example"])), ..Ceiling::default() };
        let some = cut(&granted, &hosts);
        assert_eq!(some.hosts, texts(&["https://*.eu.cdn.example", "https://hub.example"]), "an exact mirror passes no ceiling");
        assert_eq!(some.secrets[0].hosts, texts(&["https://hub.example"]));
        let nothing = Ceiling { secrets: Some(Vec::new()), ..Ceiling::default() };
        assert!(cut(&granted, &nothing).secrets.is_empty());
        let mirror = SecretGrant { name: "hub".into(), hosts: texts(&["https://mirror.internal"]) };
        let secrets = Ceiling { secrets: Some(vec![mirror]), ..Ceiling::default() };
        assert_eq!(cut(&granted, &secrets).secrets[0].hosts, texts(&["https://mirror.internal"]));
        assert_eq!(cut(&granted, &secrets).hosts, all.hosts);
    }

    #[test]
    fn a_ceiling_bounds_images_and_keys() {
        let grant = |images: &[&str], keys: &[&str]| Grant { images: texts(images), scheduling: texts(keys), ..Grant::default() };
        let ceiling = |images: &[&str], keys: &[&str]| Ceiling {
            images: Some(texts(images)),
            scheduling: Some(texts(keys)),
            ..Ceiling::default()
        };
        for (granted, most, left) in [
            ("docker.io/", "docker.io/vllm/", vec!["docker.io/vllm/"]),
            ("docker.io/vllm/vllm-openai", "vllm/", vec!["docker.io/vllm/vllm-openai"]),
            ("docker.io/vllm/", "docker.io/vllm/vllm-openai", vec!["docker.io/vllm/vllm-openai"]),
            ("docker.io/vllm-evil/x", "docker.io/vllm/", vec![]),
            ("docker.io/vllm/x", "docker.io/vllm", vec![]),
            ("vllm/vllm-openai", "docker.io/", vec!["vllm/vllm-openai"]),
            ("docker.io/evil/x", "docker.io/library/", vec![]),
            ("busybox", "docker.io/library/", vec!["busybox"]),
            ("registry.example:5000/a", "registry.example:5000/", vec!["registry.example:5000/a"]),
        ] {
            let cut = grant(&[granted], &[]).within(&ceiling(&[most], &[]));
            assert_eq!(cut.images, texts(&left), "{granted} within {most}");
        }
        let cut = grant(&[], &["nvidia.com/gpu", "example.com/*"]).within(&ceiling(&[], &["nvidia.com/*", "example.com/a"]));
        assert_eq!(cut.scheduling, texts(&["example.com/a", "nvidia.com/gpu"]));
    }

    #[test]
    fn image_prefixes_end_at_names() {
        let asked = texts(&["docker.io/vllm/"]);
        let images = |granted: &[&str]| smaller(&asked, &texts(granted), prefix_covers, |image| !image.ends_with('/'));
        assert_eq!(images(&["docker.io/"]), texts(&["docker.io/vllm/"]));
        assert_eq!(images(&["docker.io/vllm/vllm-openai"]), texts(&["docker.io/vllm/vllm-openai"]));
        assert_eq!(images(&["registry.internal/"]), texts(&[]));
        assert!(!prefix_covers("docker.io/vllm", "docker.io/vllm-evil"));
        assert!(prefix_covers("docker.io/vllm/vllm-openai", "docker.io/vllm/vllm-openai:v1"));
    }

    #[test]
    fn keys_are_equal_or_below_a_prefix() {
        assert!(key_covers("cloud.google.com/*", "cloud.google.com/gke-accelerator"));
        assert!(!key_covers("cloud.google.com/*", "cloud.google.com.evil/x"));
        assert!(!key_covers("nvidia.com/gpu", "nvidia.com/gpu2"));
    }
}
