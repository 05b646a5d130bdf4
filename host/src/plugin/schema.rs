//! Checks a plugin's configuration against the JSON Schema in its manifest, and fills in defaults. Knows only the keywords in
//! [`KEYWORDS`]: a schema that uses another is refused, so that no rule is silently ignored.

use serde_json::{Map, Value, json};

use super::types::Problem;

/// What a schema may use.
const KEYWORDS: [&str; 12] = [
    "$schema",
    "additionalProperties",
    "default",
    "description",
    "enum",
    "items",
    "maximum",
    "minimum",
    "properties",
    "required",
    "title",
    "type",
];
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// The schema of a plugin without configuration.
pub(super) fn nothing() -> Value {
    json!({"type": "object", "additionalProperties": false})
}

/// Whether the schema of a whole configuration is one that we understand; the problem's field is a path below it.
pub(super) fn check(schema: &Value) -> Result<(), Problem> {
    check_at("", schema)?;
    match schema.get("type") {
        Some(Value::String(kind)) if kind == "object" => Ok(()),
        _ => Err(problem(".type", "the configuration is an object: write `type: object`")),
    }
}

/// The configuration with defaults, or every mistake in it.
pub(super) fn apply(schema: &Value, given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut filled = Value::Object(given.clone());
    fill(schema, &mut filled);
    let mut problems = Vec::new();
    judge("spec.config", schema, &filled, &mut problems);
    match filled {
        Value::Object(map) if problems.is_empty() => Ok(map),
        _ => Err(problems),
    }
}

fn check_at(path: &str, schema: &Value) -> Result<(), Problem> {
    let Value::Object(members) = schema else { return Err(problem(path, "a schema is an object")) };
    if let Some(keyword) = members.keys().find(|keyword| !KEYWORDS.contains(&keyword.as_str())) {
        return Err(problem(path, &format!("keyword `{keyword}` is not supported; supported: {}", KEYWORDS.join(", "))));
    }
    match members.get("type") {
        Some(Value::String(kind)) if TYPES.contains(&kind.as_str()) => {}
        Some(_) => return Err(problem(&format!("{path}.type"), &format!("one of {} is needed", TYPES.join(", ")))),
        None if members.contains_key("enum") => {}
        None => return Err(problem(path, "`type` or `enum` is needed")),
    }
    if members.get("enum").is_some_and(|values| !values.is_array()) {
        return Err(problem(&format!("{path}.enum"), "a list is needed"));
    }
    if members.get("additionalProperties").is_some_and(|value| !value.is_boolean()) {
        return Err(problem(&format!("{path}.additionalProperties"), "true or false is needed"));
    }
    for bound in ["minimum", "maximum"] {
        if members.get(bound).is_some_and(|value| !value.is_number()) {
            return Err(problem(&format!("{path}.{bound}"), "a number is needed"));
        }
    }
    if let Some(required) = members.get("required") {
        let names = required.as_array().is_some_and(|names| names.iter().all(Value::is_string));
        if !names {
            return Err(problem(&format!("{path}.required"), "a list of names is needed"));
        }
    }
    if let Some(items) = members.get("items") {
        check_at(&format!("{path}.items"), items)?;
    }
    if let Some(properties) = members.get("properties") {
        let Value::Object(properties) = properties else {
            return Err(problem(&format!("{path}.properties"), "an object is needed"));
        };
        for (name, schema) in properties {
            check_at(&format!("{path}.properties.{name}"), schema)?;
        }
    }
    check_default(path, schema)
}

fn check_default(path: &str, schema: &Value) -> Result<(), Problem> {
    let Some(default) = schema.get("default") else { return Ok(()) };
    let mut problems = Vec::new();
    judge(&format!("{path}.default"), schema, default, &mut problems);
    problems.into_iter().next().map_or(Ok(()), Err)
}

/// Fills absent members that have a default, deepest last, so that a default object gets its own defaults.
fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let (false, Some(default)) = (members.contains_key(name), schema.get("default")) {
                    members.insert(name.clone(), default.clone());
                }
                if let Some(member) = members.get_mut(name) {
                    fill(schema, member);
                }
            }
        }
        Value::Array(values) => {
            if let Some(items) = schema.get("items") {
                for value in values {
                    fill(items, value);
                }
            }
        }
        _ => {}
    }
}

fn judge(path: &str, schema: &Value, value: &Value, problems: &mut Vec<Problem>) {
    if let Some(kind) = schema.get("type").and_then(Value::as_str)
        && !is_a(kind, value)
    {
        problems.push(problem(path, &format!("a value of type {kind} is needed")));
        return;
    }
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        problems.push(problem(path, &format!("one of {} is needed", allowed.join(", "))));
    }
    judge_bounds(path, schema, value, problems);
    match value {
        Value::Object(members) => judge_members(path, schema, members, problems),
        Value::Array(values) => {
            if let Some(items) = schema.get("items") {
                for (index, value) in values.iter().enumerate() {
                    judge(&format!("{path}[{index}]"), items, value, problems);
                }
            }
        }
        _ => {}
    }
}

fn judge_bounds(path: &str, schema: &Value, value: &Value, problems: &mut Vec<Problem>) {
    let Some(number) = value.as_f64() else { return };
    if let Some(minimum) = schema.get("minimum").and_then(Value::as_f64).filter(|minimum| number < *minimum) {
        problems.push(problem(path, &format!("at least {minimum} is needed")));
    }
    if let Some(maximum) = schema.get("maximum").and_then(Value::as_f64).filter(|maximum| number > *maximum) {
        problems.push(problem(path, &format!("at most {maximum} is possible")));
    }
}

fn judge_members(path: &str, schema: &Value, members: &Map<String, Value>, problems: &mut Vec<Problem>) {
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            problems.push(problem(&format!("{path}.{name}"), "the member is missing"));
        }
    }
    let known = schema.get("properties").and_then(Value::as_object);
    let open = schema.get("additionalProperties").and_then(Value::as_bool).unwrap_or(true);
    for (name, value) in members {
        match known.and_then(|known| known.get(name)) {
            Some(schema) => judge(&format!("{path}.{name}"), schema, value, problems),
            None if open => {}
            None => {
                let names: Vec<&str> = known.into_iter().flat_map(Map::keys).map(String::as_str).collect();
                let hint = if names.is_empty() { "there are none".to_owned() } else { format!("there are {}", names.join(", ")) };
                problems.push(problem(&format!("{path}.{name}"), &format!("no such member; {hint}")));
            }
        }
    }
}

fn is_a(kind: &str, value: &Value) -> bool {
    match kind {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        _ => false,
    }
}

fn problem(field: &str, reason: &str) -> Problem {
    Problem { field: field.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object", "additionalProperties": false, "required": ["endpoint"],
            "properties": {
                "endpoint": {"type": "string"},
                "retries": {"type": "integer", "default": 3, "minimum": 0, "maximum": 9},
                "mode": {"enum": ["fast", "slow"], "default": "fast"},
                "mirrors": {"type": "array", "items": {"type": "object", "properties": {"weight": {"type": "number", "default": 1}}}},
            },
        })
    }

    fn applied(given: &Value) -> Result<Value, Vec<String>> {
        apply(&schema(), given.as_object().unwrap())
            .map(Value::Object)
            .map_err(|problems| problems.into_iter().map(|p| format!("{}: {}", p.field, p.reason)).collect())
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        assert_eq!(check(&schema()), Ok(()));
        assert_eq!(
            applied(&json!({"endpoint": "e", "mirrors": [{}, {"weight": 2}]})).unwrap(),
            json!({"endpoint": "e", "retries": 3, "mode": "fast", "mirrors": [{"weight": 1}, {"weight": 2}]}),
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_path() {
        let problems = applied(&json!({"retries": 10, "mode": "mad", "mirrors": [{"weight": "x"}], "extra": 1})).unwrap_err();
        assert_eq!(
            problems,
            [
                "spec.config.endpoint: the member is missing",
                "spec.config.extra: no such member; there are endpoint, mirrors, mode, retries",
                "spec.config.mirrors[0].weight: a value of type number is needed",
                "spec.config.mode: one of \"fast\", \"slow\" is needed",
                "spec.config.retries: at most 9 is possible",
            ],
        );
    }

    #[test]
    fn a_rule_that_would_be_ignored_is_refused() {
        for schema in [
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}),
            json!({"type": "object", "allOf": []}),
            json!({"type": ["object", "null"]}),
            json!({"type": "string"}),
            json!({"type": "object", "properties": {"a": {}}}),
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 1}}}),
        ] {
            assert!(check(&schema).is_err(), "{schema}");
        }
    }
}
