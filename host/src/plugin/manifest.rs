//! What a plugin says of itself without being run: the custom section `substratus:manifest`, `plugin.yaml` at its author's.
//! Knows nothing about the component it lies in.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use substratus_crds::PluginRole;

use super::error::Refusal;
use super::schema;
use super::types::Problem;
use super::{HOST_VERSION, SecretScheme};
use crate::worker::allow::HostPattern;

/// A plugin's manifest, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// DNS label.
    pub name: String,
    /// Semantic version of the plugin.
    pub version: String,
    /// What it is for.
    pub role: PluginRole,
    /// One sentence.
    #[serde(default)]
    pub description: String,
    /// Versions of the package `substratus:plugin` that it runs on: `>=0.1, <0.2`.
    pub host: String,
    /// What it stands for.
    #[serde(default)]
    pub claims: ManifestClaims,
    /// Hosts it asks for.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Secrets it names.
    #[serde(default)]
    pub secrets: Vec<ManifestSecret>,
    /// Settings that say where the source's API is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<ManifestEndpoint>,
    /// Server adapters: prefixes of images it asks to run.
    #[serde(default)]
    pub images: Vec<String>,
    /// GPU policies: resource, toleration and selector keys it asks to set; `prefix/*` for all of a prefix.
    #[serde(default)]
    pub scheduling: Vec<String>,
    /// JSON Schema of `Plugin.spec.config`; the keywords are those of [`super::schema`].
    #[serde(default = "schema::nothing")]
    pub config: Value,
}

/// What a plugin stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestClaims {
    /// Schemes of `spec.source`.
    #[serde(default)]
    pub schemes: Vec<String>,
    /// Images it stands in for.
    #[serde(default)]
    pub images: Vec<ImageClaim>,
    /// Engine names.
    #[serde(default)]
    pub engines: Vec<String>,
    /// Values of the `CLOUD` setting.
    #[serde(default)]
    pub clouds: Vec<String>,
}

/// An image whose work a plugin does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageClaim {
    /// Repository without tag.
    pub repository: String,
    /// Where that image is built from, so that `spec.build` of it needs no build: `github.com/org/repository#folder`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// Values of `spec.command` that still mean the plugin; with any other the image runs as a container.
    #[serde(default)]
    pub commands: Vec<Vec<String>>,
}

/// A secret that a plugin names and never sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestSecret {
    /// Name of the use: what the guest says as `auth`.
    #[serde(rename = "use")]
    pub name: String,
    /// Environment variables of the object that carry it.
    pub env: Vec<String>,
    /// How it is sent.
    #[serde(rename = "as")]
    pub scheme: SecretScheme,
    /// Hosts it asks to send it to.
    pub hosts: Vec<String>,
}

/// A setting that says where the source's API is, and the variable that says so to the source's own client. In a cluster it means
/// nothing: there the administrator writes and grants. At a shell whoever names an address, by either, grants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestEndpoint {
    /// Member of the configuration that holds the URL.
    pub config: String,
    /// Environment variable; its name ends in `_ENDPOINT`, so that no plugin reads a variable that holds something else.
    pub env: String,
    /// Uses of secrets that go there too.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// Variables that change how the worker itself reaches the network: what a user's object sets must never be one of them.
const OF_THE_WORKER: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// How the names of those begin that say where the bucket is and who reads it, and what is loaded into a program.
const OF_THE_BUCKET: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "LD_"];

impl Manifest {
    /// Parses and checks the JSON of the custom section.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > crate::limits::MANIFEST_BYTES {
            let reason = format!("{} bytes, and at most {} are taken", bytes.len(), crate::limits::MANIFEST_BYTES);
            return Err(mistake("(document)", reason));
        }
        // Through a value, so that a mistake has its path and no line of a file that its author never saw.
        let value: Value = serde_json::from_slice(bytes).map_err(|error| mistake("(document)", error.to_string()))?;
        let manifest: Self = serde_path_to_error::deserialize(value)
            .map_err(|error| mistake(&error.path().to_string(), error.inner().to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Parses and checks `plugin.yaml`.
    pub fn from_yaml(text: &str) -> Result<Self, Refusal> {
        let value: Value = serde_saphyr::from_str(text).map_err(|error| mistake("plugin.yaml", error.to_string()))?;
        Self::from_json(value.to_string().as_bytes())
    }

    /// The manifest as it is embedded: the same manifest gives the same bytes.
    pub fn to_json(&self) -> String {
        // A value sorts its members, and serialising plain data cannot fail.
        serde_json::to_value(self).unwrap_or_default().to_string()
    }

    /// The given configuration, checked against the manifest's schema, with defaults filled in.
    pub fn config(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Problem>> {
        schema::apply(&self.config, given)
    }

    fn check(&self) -> Result<(), Refusal> {
        if !is_label(&self.name) {
            return Err(mistake("name", "a DNS label is needed: lower-case letters, digits and '-', at most 63".to_owned()));
        }
        semver::Version::parse(&self.version).map_err(|error| mistake("version", error.to_string()))?;
        self.check_host()?;
        self.check_claims()?;
        check_hosts("hosts", &self.hosts)?;
        self.check_secrets()?;
        self.check_endpoints()?;
        unique("images", &self.images)?;
        unique("scheduling", &self.scheduling)?;
        schema::check(&self.config).map_err(|problem| mistake(&format!("config{}", problem.field), problem.reason))?;
        self.check_role()
    }

    fn check_host(&self) -> Result<(), Refusal> {
        let wanted = semver::VersionReq::parse(&self.host).map_err(|error| mistake("host", error.to_string()))?;
        let ours = semver::Version::parse(HOST_VERSION).map_err(|error| mistake("host", error.to_string()))?;
        if wanted.matches(&ours) {
            Ok(())
        } else {
            Err(Refusal::HostVersion { wanted: self.host.clone(), version: HOST_VERSION })
        }
    }

    fn check_claims(&self) -> Result<(), Refusal> {
        let claims = &self.claims;
        unique("claims.schemes", &claims.schemes)?;
        unique("claims.engines", &claims.engines)?;
        // The empty text is a `CLOUD` that nobody set.
        let clouds: Vec<String> = claims.clouds.iter().filter(|cloud| !cloud.is_empty()).cloned().collect();
        unique("claims.clouds", &clouds)?;
        let repositories: Vec<String> = claims.images.iter().map(|claim| claim.repository.clone()).collect();
        unique("claims.images", &repositories)?;
        for scheme in &claims.schemes {
            let good = scheme.starts_with(|c: char| c.is_ascii_lowercase())
                && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c));
            if !good {
                return Err(mistake("claims.schemes", format!("`{scheme}` is no URL scheme in lower case, without `://`")));
            }
        }
        Ok(())
    }

    fn check_secrets(&self) -> Result<(), Refusal> {
        let names: Vec<String> = self.secrets.iter().map(|secret| secret.name.clone()).collect();
        unique("secrets", &names)?;
        for (index, secret) in self.secrets.iter().enumerate() {
            let of_registry = secret.scheme == SecretScheme::Registry;
            if secret.env.is_empty() != of_registry {
                let reason = if of_registry {
                    "name none: accounts at registries come from pull Secrets"
                } else {
                    "name at least one environment variable"
                };
                return Err(mistake(&format!("secrets[{index}].env"), reason.to_owned()));
            }
            unique(&format!("secrets[{index}].env"), &secret.env)?;
            let is_ours = |env: &&String| {
                let name = env.to_ascii_uppercase();
                OF_THE_WORKER.contains(&name.as_str()) || OF_THE_BUCKET.iter().any(|prefix| name.starts_with(prefix))
            };
            if let Some(env) = secret.env.iter().find(is_ours) {
                let reason = format!("`{env}` says how the worker reaches the network or its bucket; choose another name");
                return Err(mistake(&format!("secrets[{index}].env"), reason));
            }
            check_hosts(&format!("secrets[{index}].hosts"), &secret.hosts)?;
        }
        Ok(())
    }

    fn check_endpoints(&self) -> Result<(), Refusal> {
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let at = |member: &str| format!("endpoints[{index}].{member}");
            if self.config.get("properties").and_then(|properties| properties.get(&endpoint.config)).is_none() {
                return Err(mistake(&at("config"), format!("`{}` is no property of `config`", endpoint.config)));
            }
            let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            if !endpoint.env.ends_with("_ENDPOINT") || !endpoint.env.chars().all(fits) {
                return Err(mistake(&at("env"), format!("`{}` must be capitals, and end in `_ENDPOINT`", endpoint.env)));
            }
            if let Some(name) = endpoint.secrets.iter().find(|name| !self.secrets.iter().any(|secret| secret.name == **name)) {
                return Err(mistake(&at("secrets"), format!("`{name}` is no `use` of `secrets`")));
            }
        }
        Ok(())
    }

    /// What only one role has is a mistake elsewhere: it would be granted and mean nothing.
    fn check_role(&self) -> Result<(), Refusal> {
        let fetches: &[PluginRole] = &[PluginRole::ModelLoader, PluginRole::DatasetImporter];
        let parts: [(&str, bool, &[PluginRole]); 8] = [
            ("claims.schemes", self.claims.schemes.is_empty(), fetches),
            ("hosts", self.hosts.is_empty(), fetches),
            ("secrets", self.secrets.is_empty(), fetches),
            ("endpoints", self.endpoints.is_empty(), fetches),
            ("claims.engines", self.claims.engines.is_empty(), &[PluginRole::ServerAdapter]),
            ("images", self.images.is_empty(), &[PluginRole::ServerAdapter]),
            ("claims.clouds", self.claims.clouds.is_empty(), &[PluginRole::GpuPolicy]),
            ("scheduling", self.scheduling.is_empty(), &[PluginRole::GpuPolicy]),
        ];
        match parts.iter().find(|(_, empty, roles)| !empty && !roles.contains(&self.role)) {
            Some((field, _, roles)) => {
                let whose: Vec<String> = roles.iter().map(|role| format!("{role:?}")).collect();
                let whose = whose.join(" or a ");
                Err(mistake(field, format!("only a {whose} has these, and this is a {:?}; leave it out", self.role)))
            }
            None => Ok(()),
        }
    }
}

fn check_hosts(field: &str, hosts: &[String]) -> Result<(), Refusal> {
    unique(field, hosts)?;
    for (index, host) in hosts.iter().enumerate() {
        host.parse::<HostPattern>().map_err(|error| mistake(&format!("{field}[{index}]"), error.to_string()))?;
    }
    Ok(())
}

fn unique(field: &str, values: &[String]) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let reason = if value.is_empty() || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
            "an entry is a word without white space"
        } else if !seen.insert(value) {
            "the entry is there twice"
        } else {
            continue;
        };
        return Err(mistake(&format!("{field}[{index}]"), reason.to_owned()));
    }
    Ok(())
}

fn is_label(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

fn mistake(field: &str, reason: String) -> Refusal {
    Refusal::Manifest { field: field.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MINIMAL: &str = r#"
name: loader-test
version: 0.1.0
role: ModelLoader
host: ">=0.1, <0.2"
claims: {schemes: [test]}
hosts: ["https://hub.example"]
secrets: [{use: hub, env: [HUB_TOKEN], as: bearer, hosts: ["https://hub.example"]}]
endpoints: [{config: endpoint, env: HUB_ENDPOINT, secrets: [hub]}]
config:
  type: object
  additionalProperties: false
  properties: {endpoint: {type: string, default: "https://hub.example"}}
"#;

    fn refused(from: &str, to: &str) -> String {
        assert!(MINIMAL.contains(from), "{from}");
        Manifest::from_yaml(&MINIMAL.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn embedded_form_reads_back_the_same() {
        let manifest = Manifest::from_yaml(MINIMAL).unwrap();
        assert_eq!(Manifest::from_json(manifest.to_json().as_bytes()).unwrap(), manifest);
        assert_eq!(manifest.role, PluginRole::ModelLoader);
    }

    #[test]
    fn mistakes_name_their_place() {
        insta::assert_snapshot!(refused("name: loader-test", "name: Loader"), @"the plugin's manifest is wrong at `name`: a DNS label is needed: lower-case letters, digits and '-', at most 63");
        insta::assert_snapshot!(refused("version: 0.1.0", "version: one"), @"the plugin's manifest is wrong at `version`: unexpected character 'o' while parsing major version number");
        insta::assert_snapshot!(refused("as: bearer", "as: cookie"), @"the plugin's manifest is wrong at `secrets[0].as`: unknown variant `cookie`, expected one of `bearer`, `basic`, `registry`");
        insta::assert_snapshot!(refused("schemes: [test]", "schemes: [test], flavours: [a]"), @"the plugin's manifest is wrong at `claims.flavours`: unknown field `flavours`, expected one of `schemes`, `images`, `engines`, `clouds`");
        insta::assert_snapshot!(refused(">=0.1, <0.2", ">=0.2"), @"the plugin runs on hosts >=0.2 and this is 0.1.0; rebuild it against this version, or correct `host` in plugin.yaml");
        insta::assert_snapshot!(refused("hosts: [\"https://hub.example\"]\ns", "hosts: [\"hub.example\"]\ns"), @"the plugin's manifest is wrong at `hosts[0]`: host pattern `hub.example` has no scheme http or https; write scheme://host[:port], https://*.example.com or scheme://address/bits[:port]");
        insta::assert_snapshot!(refused("env: [HUB_TOKEN]", "env: [https_proxy]"), @"the plugin's manifest is wrong at `secrets[0].env`: `https_proxy` says how the worker reaches the network or its bucket; choose another name");
        insta::assert_snapshot!(refused("env: [HUB_TOKEN]", "env: [AWS_ENDPOINT_URL]"), @"the plugin's manifest is wrong at `secrets[0].env`: `AWS_ENDPOINT_URL` says how the worker reaches the network or its bucket; choose another name");
        insta::assert_snapshot!(refused("config: endpoint", "config: host"), @"the plugin's manifest is wrong at `endpoints[0].config`: `host` is no property of `config`");
        insta::assert_snapshot!(refused("env: HUB_ENDPOINT", "env: AWS_SECRET_ACCESS_KEY"), @"the plugin's manifest is wrong at `endpoints[0].env`: `AWS_SECRET_ACCESS_KEY` must be capitals, and end in `_ENDPOINT`");
        insta::assert_snapshot!(refused("secrets: [hub]}", "secrets: [hf]}"), @"the plugin's manifest is wrong at `endpoints[0].secrets`: `hf` is no `use` of `secrets`");
        insta::assert_snapshot!(refused("schemes: [test]", "clouds: [gke]"), @"the plugin's manifest is wrong at `claims.clouds`: only a GpuPolicy has these, and this is a ModelLoader; leave it out");
        insta::assert_snapshot!(refused("type: string", "type: string, pattern: x"), @"the plugin's manifest is wrong at `config.properties.endpoint`: keyword `pattern` is not supported; supported: $schema, additionalProperties, default, description, enum, items, maximum, minimum, properties, required, title, type");
    }

    #[test]
    fn config_gets_defaults() {
        let manifest = Manifest::from_yaml(MINIMAL).unwrap();
        let config = manifest.config(&Map::new()).unwrap();
        assert_eq!(Value::from(config), json!({"endpoint": "https://hub.example"}));
    }

    /// Any JSON, with the members that manifests have among it.
    fn json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z0-9.:/*<>=, -]{0,16}",
            "\\PC{0,8}",
            prop::sample::select(vec![
                "ModelLoader",
                "GpuPolicy",
                "bearer",
                "0.1.0",
                "0.1",
                "https://hub.example",
                "object",
                "string"
            ])
            .prop_map(str::to_owned),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        let member = prop::sample::select(vec![
            "name",
            "version",
            "role",
            "host",
            "claims",
            "schemes",
            "images",
            "repository",
            "hosts",
            "secrets",
            "use",
            "env",
            "as",
            "config",
            "type",
            "properties",
            "default",
            "enum",
            "items",
            "required",
            "additionalProperties",
            "scheduling",
            "other",
        ]);
        leaf.prop_recursive(6, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((member.clone(), inner), 0..6).prop_map(|members| Value::Object(
                    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                )),
            ]
        })
    }

    proptest! {
        /// Whatever is put into a manifest, it is one that keeps the rules, or a mistake with its place.
        #[test]
        fn any_member_of_a_manifest_is_right_or_a_mistake_with_its_place(
            at in prop::sample::select(vec!["name", "version", "role", "host", "claims", "hosts", "secrets", "endpoints", "config", "images", "scheduling", "other"]),
            value in json(),
        ) {
            let mut document = serde_json::to_value(Manifest::from_yaml(MINIMAL).unwrap()).unwrap();
            document[at] = value;
            match Manifest::from_json(document.to_string().as_bytes()) {
                Ok(manifest) => {
                    prop_assert!(is_label(&manifest.name) && semver::Version::parse(&manifest.version).is_ok());
                    prop_assert!(manifest.hosts.iter().all(|host| host.parse::<HostPattern>().is_ok()));
                    let again = Manifest::from_json(manifest.to_json().as_bytes()).unwrap();
                    prop_assert_eq!(again.to_json(), manifest.to_json());
                }
                Err(Refusal::Manifest { field, reason }) => {
                    prop_assert!(!field.is_empty() && !reason.is_empty());
                }
                Err(Refusal::HostVersion { .. }) => {}
                Err(other) => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn any_bytes_are_a_manifest_or_a_mistake(bytes in prop::collection::vec(any::<u8>(), 0..512), text in "[{}\\[\\]:,a-z0-9\"' \n-]{0,80}") {
            prop_assert!(Manifest::from_json(&bytes).is_err());
            // What YAML takes for a document is hardly ever a manifest.
            let _ = Manifest::from_yaml(&text);
        }
    }
}
