//! Credentials for one registry out of a Secret of type `kubernetes.io/dockerconfigjson`. Pure.
//! Format: <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>.

use crate::plugin::RegistryAuth;

/// Name and password for the registry of `image`. A pull secret without them is a mistake, not a wish to be anonymous.
pub fn credentials(config: &[u8], image: &str) -> Result<RegistryAuth, String> {
    let registry = host(image);
    match RegistryAuth::from_docker_config(config, registry) {
        Ok(RegistryAuth::Anonymous) => Err(format!("it has no credentials for `{registry}`")),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

fn host(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        None if image.contains(['.', ':']) => image,
        _ => "index.docker.io",
    }
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
