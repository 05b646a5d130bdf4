//! What a plugin may do for a person: what its manifest asks for, and what the person names. Whoever names the address of a
//! source's API, as a setting or in the variable that the source's own client reads, grants it, the token included.

use serde_json::{Map, Value};
use url::Url;

use super::{AskArgs, invalid, value_of};
use crate::bucket::Environment;
use crate::plugin::{Grant, GrantedSecret, Manifest, ManifestEndpoint, SecretScheme, describe_problems};
use crate::worker::failure::LoadError;
use crate::worker::oci::login::Accounts;
use crate::worker::oci::reference::{OciUrl, OciUrlError};

/// An address that a person named: its origin, and the uses of secrets that go there.
pub(super) struct Named {
    origin: String,
    secrets: Vec<String>,
}

impl AskArgs {
    /// The plugin's configuration, and the addresses in it that a person named.
    pub(super) fn config(&self, manifest: &Manifest, env: &Environment) -> Result<(Map<String, Value>, Vec<Named>), LoadError> {
        let mut given: Map<String, Value> = self.config.iter().map(|(name, value)| (name.clone(), value_of(value))).collect();
        let mut named = Vec::new();
        for endpoint in &manifest.endpoints {
            if let Some((value, origin)) = address(endpoint, &given, env)? {
                given.insert(endpoint.config.clone(), value.into());
                named.push(Named { origin, secrets: endpoint.secrets.clone() });
            }
        }
        let config =
            manifest.config(&given).map_err(|problems| invalid(format!("--config: {}", describe_problems(&problems))))?;
        Ok((config, named))
    }

    /// What the plugin asks for, and what a person adds.
    pub(super) fn grant(&self, manifest: &Manifest, named: &[Named]) -> Result<Grant, LoadError> {
        let sent = &self.send_secret;
        if let Some((name, _)) = sent.iter().find(|(name, _)| !manifest.secrets.iter().any(|secret| secret.name == *name)) {
            return Err(invalid(format!("--send-secret: plugin `{}` has no secret `{name}`", manifest.name)));
        }
        let secrets = manifest.secrets.iter().map(|secret| {
            let added = sent.iter().filter(|(name, _)| *name == secret.name).map(|(_, host)| with_scheme(host));
            let with_address = named.iter().filter(|named| named.secrets.contains(&secret.name));
            let hosts = secret.hosts.iter().cloned().chain(added).chain(with_address.map(|named| named.origin.clone()));
            GrantedSecret { name: secret.name.clone(), env: secret.env.clone(), scheme: secret.scheme, hosts: hosts.collect() }
        });
        let added = self.grant.iter().map(|host| with_scheme(host)).chain(named.iter().map(|named| named.origin.clone()));
        let hosts = manifest.hosts.iter().cloned().chain(added).collect();
        Ok(Grant { hosts, secrets: secrets.collect(), ..Grant::default() })
    }
}

impl AskArgs {
    /// Whoever names a registry as the source grants it, its account included.
    pub(super) fn grant_registry(&self, grant: &mut Grant, source: Option<&str>) -> Result<(), LoadError> {
        let Some(place) = registry(source)? else { return Ok(()) };
        let secure = !self.registry.plain().0.iter().any(|host| host == place.host());
        for secret in grant.secrets.iter_mut().filter(|secret| secret.scheme == SecretScheme::Registry) {
            secret.hosts.extend(place.origins(secure));
        }
        grant.hosts.extend(place.origins(secure));
        Ok(())
    }

    /// The account at the registry that is the source: what the arguments say, else docker's own settings.
    pub(in crate::worker) fn accounts(&self, source: Option<&str>) -> Result<Accounts, LoadError> {
        let Some(place) = registry(source)? else { return Ok(Accounts::default()) };
        let auth = self.registry.auth(&format!("{}/{}", place.host(), place.repository()));
        Ok(Accounts::at(place.host(), auth.map_err(|error| invalid(format!("{error:#}")))?))
    }
}

fn registry(source: Option<&str>) -> Result<Option<OciUrl>, LoadError> {
    let source = source.filter(|source| source.starts_with("oci://"));
    source.map(|source| source.parse().map_err(|error: OciUrlError| invalid(error.to_string()))).transpose()
}

/// The address that a person named, by `--config` or else by the variable, and its origin.
fn address(
    endpoint: &ManifestEndpoint,
    given: &Map<String, Value>,
    env: &Environment,
) -> Result<Option<(String, String)>, LoadError> {
    let by_variable = || env.iter().find(|(name, _)| *name == *endpoint.env).and_then(|(_, value)| value.to_str());
    let (value, whence) = match given.get(&endpoint.config) {
        Some(value) => (value.as_str(), format!("--config {}", endpoint.config)),
        None => (by_variable(), endpoint.env.clone()),
    };
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return Ok(None) };
    // What is in such a URL goes to the plugin, so it may hold no secret.
    let plain = |url: &Url| {
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        bare && url.has_host() && matches!(url.scheme(), "http" | "https")
    };
    match Url::parse(value).ok().filter(plain) {
        Some(url) => Ok(Some((value.to_owned(), url.origin().ascii_serialization()))),
        None => Err(invalid(format!(
            "{whence} is no plain URL; write scheme://host[:port][/path], such as https://hub.example, without a user and a query"
        ))),
    }
}

pub(in crate::worker) fn with_scheme(host: &str) -> String {
    if host.contains("://") { host.to_owned() } else { format!("https://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> ManifestEndpoint {
        ManifestEndpoint { config: "endpoint".into(), env: "HUB_ENDPOINT".into(), secrets: vec![] }
    }

    fn found(config: Option<&str>, variable: Option<&str>) -> Result<Option<(String, String)>, LoadError> {
        let given = config.map(|value| ("endpoint".to_owned(), value.into())).into_iter().collect();
        let env: Vec<_> = variable.map(|value| ("HUB_ENDPOINT".into(), value.into())).into_iter().collect();
        address(&endpoint(), &given, &env)
    }

    #[test]
    fn the_setting_comes_before_the_variable() {
        let both = found(Some("http://one:8080/hub/"), Some("https://two")).unwrap().unwrap();
        assert_eq!(both, ("http://one:8080/hub/".to_owned(), "http://one:8080".to_owned()));
        assert_eq!(found(None, Some(" https://two ")).unwrap().unwrap().1, "https://two");
        assert_eq!(found(None, Some("")).unwrap(), None);
        assert_eq!(found(None, None).unwrap(), None);
    }

    #[test]
    fn an_address_holds_no_secret_and_none_is_repeated() {
        for wrong in ["hub", "ftp://hub", "https://user:secret@hub", "https://hub?secret", "file:///secret"] {
            let error = found(None, Some(wrong)).unwrap_err();
            assert!(error.message.starts_with("HUB_ENDPOINT is no plain URL") && !error.message.contains("secret"), "{error}");
        }
    }
}
