//! Reads `spec.params`. A value may be a number, a boolean or the same as a string: the API allows integers and strings only.

use serde_json::Value;

use crate::{Failure, invalid};

/// The parameters of one request.
#[derive(Clone, Copy)]
pub struct Params<'a>(&'a [(String, String)]);

impl<'a> Params<'a> {
    /// Over the `params` of a request.
    pub fn new(params: &'a [(String, String)]) -> Self {
        Self(params)
    }

    /// The names, in the order given.
    pub fn names(self) -> impl Iterator<Item = &'a str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// A text. Numbers and booleans count as their text; an empty text counts as absent.
    pub fn text(self, name: &str) -> Result<Option<String>, Failure> {
        let Some((_, json)) = self.0.iter().find(|(key, _)| key == name) else { return Ok(None) };
        match serde_json::from_str(json) {
            Ok(Value::Null) => Ok(None),
            Ok(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Some(value.to_string())),
            Ok(_) => Err(problem(name, "must be a text")),
            Err(error) => Err(problem(name, &format!("is not JSON: {error}"))),
        }
    }

    /// Anything that reads from its text, such as a number; `expected` says what would be right.
    pub fn parsed<T: std::str::FromStr>(self, name: &str, expected: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| problem(name, &format!("is {text:?}, must be {expected}")))
    }

    /// `true` or `false`.
    pub fn flag(self, name: &str) -> Result<Option<bool>, Failure> {
        match self.text(name)?.as_deref().map(truth) {
            None => Ok(None),
            Some(Some(value)) => Ok(Some(value)),
            Some(None) => Err(problem(name, "must be true or false")),
        }
    }
}

/// What people write for yes and no.
pub fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" | "" => Some(false),
        _ => None,
    }
}

fn problem(name: &str, reason: &str) -> Failure {
    invalid(format!("spec.params.{name}"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, json)| ((*name).to_owned(), (*json).to_owned())).collect()
    }

    #[test]
    fn numbers_and_their_texts_are_the_same() {
        let pairs = given(&[("a", "4096"), ("b", "\"4096\""), ("c", "\"\"")]);
        let params = Params::new(&pairs);
        assert_eq!(params.parsed::<u32>("a", "an integer"), Ok(Some(4096)));
        assert_eq!(params.parsed::<u32>("b", "an integer"), Ok(Some(4096)));
        assert_eq!(params.parsed::<u32>("c", "an integer"), Ok(None));
        assert_eq!(params.parsed::<u32>("d", "an integer"), Ok(None));
    }

    #[test]
    fn a_mistake_names_the_parameter_and_what_would_be_right() {
        let pairs = given(&[("n", "\"many\""), ("list", "[1]"), ("flag", "\"maybe\"")]);
        let params = Params::new(&pairs);
        assert_eq!(params.parsed::<u32>("n", "an integer"), Err(invalid("spec.params.n", "is \"many\", must be an integer")));
        assert_eq!(params.text("list"), Err(invalid("spec.params.list", "must be a text")));
        assert_eq!(params.flag("flag"), Err(invalid("spec.params.flag", "must be true or false")));
    }
}
