//! Finds a registry's credentials in a docker `config.json`, the format of pull secrets. Runs no credential helper.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::RegistryAuth;

/// Why a `config.json` gives no credentials.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    /// Another format.
    #[error("the docker configuration is not JSON of the known form")]
    Format(#[source] serde_json::Error),
    /// The entry is broken.
    #[error("the docker configuration's entry for `{0}` has no user name and password")]
    Entry(String),
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
}

impl RegistryAuth {
    /// What the configuration says for a registry (`host` or `host:port`, `docker.io` for Docker Hub); nothing is anonymous.
    pub fn from_docker_config(json: &[u8], registry: &str) -> Result<Self, DockerConfigError> {
        let config: Config = serde_json::from_slice(json).map_err(DockerConfigError::Format)?;
        let entry = config.auths.into_iter().find(|(name, _)| is_same(name, registry));
        let Some((name, entry)) = entry else { return Ok(Self::Anonymous) };
        if let (Some(username), Some(password)) = (entry.username, entry.password) {
            return Ok(Self::Basic { username, password });
        }
        let decoded = entry.auth.and_then(|auth| BASE64_STANDARD.decode(auth).ok()).and_then(|auth| String::from_utf8(auth).ok());
        match decoded.as_deref().and_then(|auth| auth.split_once(':')) {
            Some((username, password)) => Ok(Self::Basic { username: username.to_owned(), password: password.to_owned() }),
            None => Err(DockerConfigError::Entry(name)),
        }
    }
}

/// Entries are written as hosts or as URLs, and Docker Hub has names of its own.
fn is_same(entry: &str, registry: &str) -> bool {
    let host = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    let hub = ["docker.io", "index.docker.io", "registry-1.docker.io"];
    host == registry || (hub.contains(&host) && hub.contains(&registry))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &[u8] = br#"{"auths": {
        "registry.example:5000": {"auth": "dXNlcjpwYTpzcw=="},
        "https://index.docker.io/v1/": {"username": "u", "password": "p"},
        "broken.example": {"auth": "!"}}}"#;

    #[test]
    fn entries_are_found_by_host() {
        let basic = |username: &str, password: &str| RegistryAuth::Basic { username: username.into(), password: password.into() };
        let find = |registry| RegistryAuth::from_docker_config(CONFIG, registry);
        assert_eq!(find("registry.example:5000").unwrap(), basic("user", "pa:ss"));
        assert_eq!(find("docker.io").unwrap(), basic("u", "p"));
        assert_eq!(find("registry.example").unwrap(), RegistryAuth::Anonymous);
        assert!(matches!(find("broken.example"), Err(DockerConfigError::Entry(_))));
        assert!(matches!(RegistryAuth::from_docker_config(b"x", "a"), Err(DockerConfigError::Format(_))));
    }
}
