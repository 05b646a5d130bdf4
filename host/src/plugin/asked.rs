//! Cuts what a manifest asks for down to what an administrator grants. Knows nothing about who enforces the result.

use substratus_crds::Grants;

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
