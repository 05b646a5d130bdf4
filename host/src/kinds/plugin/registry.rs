//! Credentials for one registry out of a Secret of type `kubernetes.io/dockerconfigjson`. Pure.
//! Format: <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::plugin::RegistryAuth;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
}

/// Name and password for the registry of `image`.
pub fn credentials(config: &[u8], image: &str) -> Result<RegistryAuth, String> {
    let config: DockerConfig =
        serde_json::from_slice(config).map_err(|_| "the value of `.dockerconfigjson` is no Docker configuration".to_owned())?;
    let registry = host(image);
    let entry = config
        .auths
        .into_iter()
        .find(|(name, _)| host(name.trim_start_matches("https://").trim_start_matches("http://")) == registry)
        .map(|(_, entry)| entry)
        .ok_or_else(|| format!("it has no credentials for `{registry}`"))?;
    let (username, password) = match (entry.username, entry.password, entry.auth) {
        (Some(username), Some(password), _) => (username, password),
        (_, _, Some(auth)) => split(&auth).ok_or_else(|| format!("the `auth` of `{registry}` is not base64 of name:password"))?,
        _ => return Err(format!("the entry of `{registry}` has neither name and password nor `auth`")),
    };
    Ok(RegistryAuth::Basic { username, password })
}

fn host(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        None if image.contains(['.', ':']) => image,
        _ => "index.docker.io",
    }
}

fn split(auth: &str) -> Option<(String, String)> {
    // `ByteString` decodes standard base64, as Kubernetes writes it.
    let quoted = serde_json::Value::String(auth.trim().to_owned());
    let bytes: k8s_openapi::ByteString = serde_json::from_value(quoted).ok()?;
    let text = String::from_utf8(bytes.0).ok()?;
    text.split_once(':').map(|(username, password)| (username.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn both_spellings_are_read() {
        let config = br#"{"auths": {"registry.example:5000": {"auth": "dXNlcjpwYXNz"},
            "https://index.docker.io/v1/": {"username": "u", "password": "p"}}}"#;
        assert_eq!(credentials(config, "registry.example:5000/a/b:1").unwrap(), basic("user", "pass"));
        assert_eq!(credentials(config, "org/image").unwrap(), basic("u", "p"));
        assert_eq!(credentials(config, "other.example/a").unwrap_err(), "it has no credentials for `other.example`");
    }
}
