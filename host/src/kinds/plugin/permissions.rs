//! What a plugin asks for that it did not ask for before. Pure; whether that may be is an administrator's to say.

use crate::catalog::{normal_source, repository};
use crate::plugin::{Manifest, ManifestSecret, sentence};

/// Entries that a message lists.
const SHOWN: usize = 20;

/// Everything that `after` asks for and `before` did not, in order; empty where there is nothing.
pub fn increase(before: &Manifest, after: &Manifest) -> Vec<String> {
    let mut more = Vec::new();
    if before.role != after.role {
        more.push(format!("to be a {:?} and no {:?}", after.role, before.role));
    }
    let hosts = after.hosts.iter().filter(|host| !before.hosts.iter().any(|known| Manifest::host_covers(known, host)));
    more.extend(hosts.map(|host| format!("the host {host}")));
    for secret in &after.secrets {
        match before.secrets.iter().find(|known| known.name == secret.name) {
            None => more.push(format!("the secret `{}` for {}", secret.name, secret.hosts.join(", "))),
            Some(known) => more.extend(of_secret(known, secret)),
        }
    }
    let images = after.images.iter().filter(|image| !before.images.iter().any(|known| Manifest::image_covers(known, image)));
    more.extend(images.map(|image| format!("to run the image {image}")));
    let keys = after.scheduling.iter().filter(|key| !before.scheduling.iter().any(|known| Manifest::key_covers(known, key)));
    more.extend(keys.map(|key| format!("to set the scheduling key {key}")));
    let known = claims(before);
    more.extend(claims(after).into_iter().filter(|claim| !known.contains(claim)).map(|claim| format!("to stand for {claim}")));
    more
}

/// The same as one sentence of bounded length.
pub fn describe(more: &[String]) -> String {
    let shown: Vec<String> = more.iter().take(SHOWN).map(|entry| sentence(entry)).collect();
    let rest = more.len().saturating_sub(SHOWN);
    if rest == 0 { shown.join("; ") } else { format!("{}; and {rest} more", shown.join("; ")) }
}

fn of_secret(before: &ManifestSecret, after: &ManifestSecret) -> Vec<String> {
    let name = &after.name;
    let hosts = after.hosts.iter().filter(|host| !before.hosts.iter().any(|known| Manifest::host_covers(known, host)));
    let hosts = hosts.map(|host| format!("the secret `{name}` for {host}"));
    let env = after.env.iter().filter(|env| !before.env.contains(env));
    let env = env.map(|env| format!("the variable {env} as the secret `{name}`"));
    let scheme = (before.scheme != after.scheme).then(|| format!("the secret `{name}` as {:?}", after.scheme));
    hosts.chain(env).chain(scheme).collect()
}

/// What a manifest claims, each in words; every command of an image that still means the plugin is a claim of its own.
pub fn claims(manifest: &Manifest) -> Vec<String> {
    let claims = &manifest.claims;
    let schemes = claims.schemes.iter().map(|scheme| format!("the scheme `{scheme}`"));
    let images = claims.images.iter().map(|image| format!("the image `{}`", repository(&image.repository)));
    let builds = claims.images.iter().filter_map(|image| image.build.as_deref());
    let builds = builds.map(|build| format!("the build source `{}`", normal_source(build)));
    let commands = claims.images.iter().flat_map(|image| {
        image.commands.iter().map(|command| format!("the image `{}` with the command {command:?}", repository(&image.repository)))
    });
    let engines = claims.engines.iter().map(|engine| format!("the engine `{engine}`"));
    let clouds = claims.clouds.iter().map(|cloud| format!("the cloud `{cloud}`"));
    schemes.chain(images).chain(builds).chain(commands).chain(engines).chain(clouds).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loader(more: &str) -> Manifest {
        Manifest::from_yaml(&format!("{{name: a, version: 0.1.0, role: ModelLoader, host: '0.1', {more}}}")).unwrap()
    }

    const BEFORE: &str = "hosts: ['https://hub.example', 'https://*.cdn.example'],
        claims: {schemes: [acme], images: [{repository: acme/loader, commands: [[load.sh]]}]},
        secrets: [{use: hub, env: [HUB_TOKEN], as: bearer, hosts: ['https://hub.example']}]";

    #[test]
    fn less_and_the_same_is_no_more() {
        let before = loader(BEFORE);
        for after in [
            BEFORE,
            "hosts: []",
            "hosts: ['https://eu.cdn.example', 'https://*.us.cdn.example']",
            "claims: {images: [{repository: 'docker.io/acme/loader'}]}",
        ] {
            assert_eq!(increase(&before, &loader(after)), Vec::<String>::new(), "{after}");
        }
    }

    #[test]
    fn every_thing_more_is_named() {
        let before = loader(BEFORE);
        let differences = |after: &str| increase(&before, &loader(after));
        for (after, expected) in [
            ("hosts: ['https://evil.example']", "the host https://evil.example"),
            ("hosts: ['https://*.example']", "the host https://*.example"),
            ("hosts: ['http://hub.example']", "the host http://hub.example"),
            ("hosts: ['http://169.254.169.254']", "the host http://169.254.169.254"),
            (
                "secrets: [{use: other, env: [T], as: bearer, hosts: ['https://a.example', 'https://b.example']}]",
                "the secret `other` for https://a.example, https://b.example",
            ),
            (
                "secrets: [{use: hub, env: [HUB_TOKEN], as: bearer, hosts: ['https://evil.example']}]",
                "the secret `hub` for https://evil.example",
            ),
            (
                "secrets: [{use: hub, env: [OTHERS_SECRET_KEY], as: bearer, hosts: ['https://hub.example']}]",
                "the variable OTHERS_SECRET_KEY as the secret `hub`",
            ),
            ("secrets: [{use: hub, env: [HUB_TOKEN], as: basic, hosts: ['https://hub.example']}]", "the secret `hub` as Basic"),
            ("claims: {schemes: [acme, hf]}", "to stand for the scheme `hf`"),
            ("claims: {images: [{repository: other/loader}]}", "to stand for the image `other/loader`"),
            (
                "claims: {images: [{repository: acme/loader, build: 'github.com/a/b#c'}]}",
                "to stand for the build source `github.com/a/b#c`",
            ),
            (
                "claims: {images: [{repository: acme/loader, commands: [[train.sh]]}]}",
                "to stand for the image `acme/loader` with the command [\"train.sh\"]",
            ),
        ] {
            assert_eq!(differences(after), [expected], "{after}");
        }
    }

    #[test]
    fn other_roles_ask_for_other_things() {
        let manifest = |more: &str| Manifest::from_yaml(&format!("{{name: a, version: 0.1.0, host: '0.1', {more}}}")).unwrap();
        let adapter = manifest("role: ServerAdapter, images: ['docker.io/vllm/']");
        let more =
            manifest("role: ServerAdapter, images: ['docker.io/vllm/vllm-openai', 'docker.io/'], claims: {engines: [vllm]}");
        assert_eq!(increase(&adapter, &more), ["to run the image docker.io/", "to stand for the engine `vllm`"]);
        let policy = manifest("role: GpuPolicy, scheduling: ['nvidia.com/*']");
        let more = manifest("role: GpuPolicy, scheduling: ['nvidia.com/gpu', 'cpu'], claims: {clouds: [gke]}");
        assert_eq!(increase(&policy, &more), ["to set the scheduling key cpu", "to stand for the cloud `gke`"]);
        assert_eq!(increase(&adapter, &policy)[0], "to be a GpuPolicy and no ServerAdapter");
    }

    #[test]
    fn a_long_list_is_cut() {
        let more: Vec<String> = (0..25).map(|number| format!("the host {number}")).collect();
        assert!(describe(&more).ends_with("; the host 19; and 5 more"), "{}", describe(&more));
    }
}
