//! From a plugin's configuration (JSON text) to its own type. It knows no plugin's settings.

use serde::de::DeserializeOwned;

use crate::{Failure, invalid};

/// Reads `Plugin.spec.config`. What it leaves out is filled by the type's `#[serde(default)]`.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    let text = if json.trim().is_empty() { "{}" } else { json };
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "Plugin.spec.config".to_owned() } else { format!("Plugin.spec.config.{path}") };
        invalid(field, error.into_inner().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        image: String,
        limits: std::collections::BTreeMap<String, u32>,
    }

    #[test]
    fn absent_is_the_default() {
        assert_eq!(parse::<Settings>(""), Ok(Settings::default()));
        assert_eq!(parse::<Settings>("{}"), Ok(Settings::default()));
    }

    #[test]
    fn a_mistake_is_named_by_its_path() {
        let Err(Failure::Invalid(problems)) = parse::<Settings>(r#"{"limits": {"a": "x"}}"#) else { panic!("accepted") };
        assert_eq!(problems[0].field, "Plugin.spec.config.limits.a");
        assert!(problems[0].reason.contains("expected u32"), "{}", problems[0].reason);
    }
}
