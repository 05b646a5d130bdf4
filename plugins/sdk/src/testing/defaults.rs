//! What a case file may leave out, and how it is filled in. It knows no file and no plugin.

use serde_json::{Value, json};

/// What a case may leave out. One table for all calls: members that a record does not have are ignored when it is read.
pub(super) fn request_defaults(kind: &str) -> Value {
    let mut defaults = json!({
        "subject": {"kind": kind, "namespace": "default", "name": "example"},
        "config": "{}", "extensions": [], "params": [], "env": [], "nodes": [],
        "files": {"include": [], "exclude": []},
        "count": 1, "cloud": "",
        "model": {"name": "example", "mount_path": "/content/model"},
    });
    if let (true, Some(members)) = (kind == "Server", defaults.as_object_mut()) {
        // Filled only where a GPU is given.
        members.insert("gpu".into(), json!({OPTIONAL: true, "count": 1}));
    }
    defaults
}

/// A shard to be mapped.
pub(super) fn shard_defaults() -> Value {
    json!({"name": "example", "inputs": [], "decoding": {"Rows": {}}, "mapped": true, "output": "", "context": "{}",
        "extensions": []})
}

pub(super) fn placement_defaults() -> Value {
    json!({OPTIONAL: true, "node_selector": [], "tolerations": [], "limits": [], "claims": [], "reason": "",
        "alternatives": [], "extensions": []})
}

/// Marks the defaults of a record that may be absent as a whole.
const OPTIONAL: &str = "(optional)";

/// Fills what `given` leaves out, recursively through objects.
pub(super) fn with_defaults(given: Value, defaults: Value) -> Value {
    match (given, defaults) {
        (Value::Null, Value::Object(defaults)) if defaults.contains_key(OPTIONAL) => Value::Null,
        (Value::Null, Value::Object(defaults)) => with_defaults(json!({}), Value::Object(defaults)),
        (Value::Object(mut given), Value::Object(defaults)) => {
            for (name, default) in defaults.into_iter().filter(|(name, _)| name != OPTIONAL) {
                let value = given.remove(&name).unwrap_or(Value::Null);
                given.insert(name, with_defaults(value, default));
            }
            Value::Object(given)
        }
        (Value::Null, default) => default,
        (given, _) => given,
    }
}

/// Without nulls and empty lists: what a case may leave out of an answer.
pub(super) fn compact(value: Value) -> Value {
    match value {
        Value::Object(members) => Value::Object(
            members
                .into_iter()
                .map(|(name, member)| (name, compact(member)))
                .filter(|(_, member)| !member.is_null() && member.as_array().is_none_or(|items| !items.is_empty()))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(compact).collect()),
        other => other,
    }
}

/// The first member of `given` that the record, as read, does not have: a misspelt option would otherwise be absent.
pub(super) fn unknown_member(given: &Value, known: &Value, at: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let at = format!("{at}.{name}");
            known.get(name).map_or_else(|| Some(at.clone()), |known| unknown_member(value, known, &at))
        }),
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).find_map(|(given, known)| unknown_member(given, known, at))
        }
        _ => None,
    }
}
