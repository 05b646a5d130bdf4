//! `spec.env` with its secret references: `${{ secrets.NAME.KEY }}`. Pure; never sees a value of a Secret.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, SecretKeySelector};

use super::verdict::Verdict;

/// A reference to a key of a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// Name of the Secret: a DNS subdomain.
    pub name: String,
    /// Key, which may contain dots (`tls.crt`).
    pub key: String,
}

/// One variable of `spec.env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Passed as it is.
    Literal(String),
    /// Taken from a Secret by the kubelet.
    Secret(SecretRef),
}

/// Reads `spec.env`; an expression that looks like a secret reference and is none is a mistake, not a literal.
pub fn parse(env: Option<&BTreeMap<String, String>>) -> Result<BTreeMap<String, Value>, Verdict> {
    env.into_iter()
        .flatten()
        .map(|(name, text)| {
            let value = parse_value(text).map_err(|why| Verdict::invalid(&format!("spec.env.{name}"), why))?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn parse_value(text: &str) -> Result<Value, String> {
    let Some((_, rest)) = text.split_once("${{") else {
        // `{{ secrets.a.b }}`, `${secrets.a.b}`: braces were forgotten, and nobody means these words.
        let is_near =
            text.split_once('{').is_some_and(|(_, inside)| inside.trim_start_matches('{').trim().starts_with("secrets."));
        return if is_near { Err(teach(text)) } else { Ok(Value::Literal(text.to_owned())) };
    };
    let expression = rest.split_once("}}").map(|(inside, _)| inside.trim());
    let reference = expression.and_then(|inside| inside.strip_prefix("secrets.")).and_then(|path| path.split_once('.'));
    match reference {
        Some((name, key)) if is_secret_name(name.trim()) && is_secret_key(key.trim()) => {
            Ok(Value::Secret(SecretRef { name: name.trim().to_owned(), key: key.trim().to_owned() }))
        }
        _ => Err(teach(text)),
    }
}

fn teach(text: &str) -> String {
    format!(
        "`{text}` is no secret reference; write ${{{{ secrets.NAME.KEY }}}} with the name of a Secret of this namespace and one of its keys"
    )
}

fn is_secret_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_secret_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The container's variables, sorted by name; later ones of `own` stand before the user's, which win by name.
pub fn to_container(own: &[(String, String)], user: &BTreeMap<String, Value>) -> Vec<EnvVar> {
    let mut all: BTreeMap<String, EnvVar> = own.iter().map(|(name, value)| (name.clone(), literal(name, value))).collect();
    all.extend(user.iter().map(|(name, value)| {
        let variable = match value {
            Value::Literal(text) => literal(name, text),
            Value::Secret(reference) => secret(name, reference, false),
        };
        (name.clone(), variable)
    }));
    all.into_values().collect()
}

/// The variables that a plugin's secrets name, taken from the user's: optional, so that a missing Secret is the worker's
/// typed failure and not a pod that never starts. Everything else of `spec.env` is ignored by a worker. The administrator's `own`
/// variables win by name.
pub fn to_worker<'a>(
    own: &[(String, String)],
    names: impl Iterator<Item = &'a str>,
    user: &BTreeMap<String, Value>,
) -> Vec<EnvVar> {
    let wanted: std::collections::BTreeSet<&str> = names.collect();
    let users = user.iter().filter(|(name, _)| wanted.contains(name.as_str())).map(|(name, value)| match value {
        Value::Literal(text) => (name, literal(name, text)),
        Value::Secret(reference) => (name, secret(name, reference, true)),
    });
    let all: BTreeMap<&String, EnvVar> = users.chain(own.iter().map(|(name, value)| (name, literal(name, value)))).collect();
    all.into_values().collect()
}

fn literal(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() }
}

fn secret(name: &str, reference: &SecretRef, optional: bool) -> EnvVar {
    let selector =
        SecretKeySelector { name: reference.name.clone(), key: reference.key.clone(), optional: optional.then_some(true) };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Value, String> {
        parse_value(text)
    }

    fn reference(name: &str, key: &str) -> Value {
        Value::Secret(SecretRef { name: name.to_owned(), key: key.to_owned() })
    }

    #[test]
    fn secrets_are_found_with_and_without_spaces() {
        assert_eq!(parsed("${{ secrets.ai.HF_TOKEN }}"), Ok(reference("ai", "HF_TOKEN")));
        assert_eq!(parsed("${{secrets.ai.HF_TOKEN}}"), Ok(reference("ai", "HF_TOKEN")));
    }

    #[test]
    fn key_may_contain_dots() {
        assert_eq!(parsed("${{ secrets.web.tls.crt }}"), Ok(reference("web", "tls.crt")));
    }

    #[test]
    fn typo_is_a_mistake_and_not_a_literal() {
        for typo in [
            "${{ secret.ai.TOKEN }}",
            "${{ secrets.ai }}",
            "${{ secrets.ai.TOKEN",
            "${{ secrets..X }}",
            "{{ secrets.ai.TOKEN }}",
            "${secrets.ai.TOKEN}",
        ] {
            assert!(parsed(typo).is_err(), "{typo}");
        }
        assert_eq!(parsed("$(OTHER)"), Ok(Value::Literal("$(OTHER)".to_owned())));
    }

    #[test]
    fn a_worker_gets_what_its_plugin_names_and_what_the_administrator_says() {
        let users = ["HF_TOKEN", "NO_PROXY", "OTHER"].map(|name| (name.to_owned(), Value::Literal("user".to_owned())));
        let own = [("NO_PROXY".to_owned(), "admin".to_owned())];
        let all = to_worker(&own, ["NO_PROXY", "HF_TOKEN"].into_iter(), &users.into());
        let shown: Vec<_> = all.iter().map(|one| (one.name.as_str(), one.value.as_deref().unwrap())).collect();
        assert_eq!(shown, [("HF_TOKEN", "user"), ("NO_PROXY", "admin")]);
    }
}
