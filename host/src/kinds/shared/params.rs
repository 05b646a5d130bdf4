//! `spec.params` as plugins and containers see them. Pure.

use std::collections::BTreeMap;

use substratus_crds::Param;

use super::child::{Child, Owner};
use super::names;
use super::verdict::Verdict;

/// Refuses numbers that are no 64-bit integers: other programs would read them as something else.
pub fn check(params: Option<&BTreeMap<String, Param>>) -> Result<(), Verdict> {
    for (name, value) in params.into_iter().flatten() {
        if let Param::Number(number) = value {
            let why = format!("{number} is no 64-bit integer; write it as a string: \"{number}\"");
            return Err(Verdict::invalid(&format!("spec.params.{name}"), why));
        }
    }
    Ok(())
}

/// Name and JSON value.
pub fn to_json(params: Option<&BTreeMap<String, Param>>) -> BTreeMap<String, serde_json::Value> {
    params.into_iter().flatten().map(|(name, value)| (name.clone(), value.to_json())).collect()
}

/// Name and JSON text, as the WIT has them; sorted by name.
pub fn to_wit(params: Option<&BTreeMap<String, Param>>) -> Vec<(String, String)> {
    params.into_iter().flatten().map(|(name, value)| (name.clone(), value.to_json().to_string())).collect()
}

/// The text of `params.json`: two spaces of indentation, sorted keys, integers as numbers; `{}` where there are none.
pub fn file(params: Option<&BTreeMap<String, Param>>) -> String {
    serde_json::to_string_pretty(&to_json(params)).unwrap_or_else(|_| "{}".to_owned())
}

/// The ConfigMap with `params.json` of an object; `kind` in lower case.
pub fn child(owner: &Owner, kind: &str, params: Option<&BTreeMap<String, Param>>) -> Child {
    let data = BTreeMap::from([("params.json".to_owned(), file(params))]);
    Child::config_map(owner, names::params(&owner.reference.name, kind), data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_sorted_and_keeps_types() {
        let params = BTreeMap::from([("x".to_owned(), Param::from(123)), ("s".to_owned(), Param::from("abc"))]);
        assert_eq!(file(Some(&params)), "{\n  \"s\": \"abc\",\n  \"x\": 123\n}");
        assert_eq!(file(None), "{}");
    }

    #[test]
    fn number_beyond_64_bits_is_refused_with_a_way_out() {
        let params: BTreeMap<String, Param> = serde_json::from_str(r#"{"big": 18446744073709551615}"#).unwrap();
        let verdict = check(Some(&params)).unwrap_err();
        assert_eq!(
            verdict.message,
            "spec.params.big: 18446744073709551615 is no 64-bit integer; write it as a string: \"18446744073709551615\""
        );
    }
}
