//! The credentials of a load: taken from the environment by the names that the grant lists, and by no other. Sends nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use thiserror::Error;
use url::Url;

use super::allow::{AllowList, PatternError, Verdict};
use crate::plugin::{Grant, GrantedSecret, SecretScheme};

/// Why the credentials of a grant cannot be used. Never holds a value.
#[derive(Debug, Error)]
pub enum SecretError {
    /// A host pattern of the grant is broken.
    #[error("secret `{0}`: {1}")]
    Pattern(String, PatternError),
    /// The value cannot be a header.
    #[error("secret `{name}`: the value of {env} holds characters that no HTTP header may have; store it without line breaks")]
    Value {
        /// The use.
        name: String,
        /// The variable.
        env: String,
    },
}

/// The credentials that are there.
#[derive(Default)]
pub struct Secrets {
    bound: Vec<Bound>,
}

struct Bound {
    name: String,
    hosts: AllowList,
    header: HeaderValue,
    value: String,
}

impl Secrets {
    /// Picks the variables that `grant` names out of `env`; everything else is not looked at.
    pub fn from_env(grant: &Grant, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, SecretError> {
        let env: BTreeMap<OsString, OsString> = env.into_iter().collect();
        let bound = grant.secrets.iter().filter_map(|secret| bind(secret, &env).transpose()).collect::<Result<_, _>>()?;
        Ok(Self { bound })
    }

    /// The `Authorization` header of `use_` towards `url`, where there is a value and the host may get it.
    pub fn header(&self, use_: &str, url: &Url) -> Option<HeaderValue> {
        let fits = |bound: &&Bound| bound.name == use_ && bound.hosts.check(url) != Verdict::Denied;
        self.bound.iter().find(fits).map(|bound| bound.header.clone())
    }

    /// `text` without any value in it.
    pub fn redact(&self, text: &str) -> String {
        self.bound.iter().fold(text.to_owned(), |text, bound| text.replace(&bound.value, "[redacted]"))
    }
}

/// Values never show in a debug line.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.bound.iter().map(|bound| &bound.name)).finish()
    }
}

fn bind(secret: &GrantedSecret, env: &BTreeMap<OsString, OsString>) -> Result<Option<Bound>, SecretError> {
    let broken = |env: &str| SecretError::Value { name: secret.name.clone(), env: env.to_owned() };
    for name in &secret.env {
        let Some(value) = env.get(&OsString::from(name)) else { continue };
        let value = value.to_str().ok_or_else(|| broken(name))?.trim();
        if value.is_empty() {
            continue;
        }
        let text = match secret.scheme {
            SecretScheme::Bearer => format!("Bearer {value}"),
            SecretScheme::Basic => format!("Basic {}", STANDARD.encode(value)),
            // In no variable: `oci/login.rs` knows them.
            SecretScheme::Registry => continue,
        };
        let mut header = HeaderValue::from_str(&text).map_err(|_| broken(name))?;
        header.set_sensitive(true);
        let hosts = AllowList::parse(&secret.hosts).map_err(|error| SecretError::Pattern(secret.name.clone(), error))?;
        return Ok(Some(Bound { name: secret.name.clone(), hosts, header, value: value.to_owned() }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(scheme: SecretScheme) -> Grant {
        let secret = GrantedSecret {
            name: "hf".into(),
            env: vec!["HF_TOKEN".into(), "HUGGING_FACE_HUB_TOKEN".into()],
            scheme,
            hosts: vec!["https://huggingface.co".into()],
        };
        Grant { secrets: vec![secret], ..Grant::default() }
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_first_variable_that_is_set_goes_to_its_hosts_only() {
        let secrets = Secrets::from_env(
            &grant(SecretScheme::Bearer),
            env(&[("HF_TOKEN", " "), ("HUGGING_FACE_HUB_TOKEN", "hf_x\n"), ("OTHER", "y")]),
        )
        .unwrap();
        assert_eq!(secrets.header("hf", &url("https://huggingface.co/api")).unwrap(), "Bearer hf_x");
        assert_eq!(secrets.header("hf", &url("https://cdn.hf.co/api")), None);
        assert_eq!(secrets.header("hf", &url("http://huggingface.co/api")), None);
        assert_eq!(secrets.header("other", &url("https://huggingface.co/api")), None);
    }

    #[test]
    fn values_show_nowhere() {
        let secrets = Secrets::from_env(&grant(SecretScheme::Bearer), env(&[("HF_TOKEN", "hf_x")])).unwrap();
        assert_eq!(secrets.redact("got hf_x back"), "got [redacted] back");
        assert_eq!(format!("{secrets:?}"), r#"["hf"]"#);
        let error = Secrets::from_env(&grant(SecretScheme::Bearer), env(&[("HF_TOKEN", "a\nb")])).unwrap_err();
        assert!(!error.to_string().contains("a\nb"));
    }

    #[test]
    fn basic_is_encoded() {
        let secrets = Secrets::from_env(&grant(SecretScheme::Basic), env(&[("HF_TOKEN", "user:pass")])).unwrap();
        assert_eq!(secrets.header("hf", &url("https://huggingface.co/")).unwrap(), "Basic dXNlcjpwYXNz");
    }
}
