//! Whether somebody else changed what we applied: are all our fields still recorded as ours? Pure.
//! Format of the records: the API server's `managedFields` (structured-merge-diff, `FieldsV1`).

use serde_json::Value;

/// Is every field of a whole object in `owned`? Its kind is no field, and name, namespace and owners belong to nobody.
pub fn owns_object(object: &Value, owned: &Value) -> bool {
    fields(object).filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind")).all(|(name, value)| {
        let Some(owned) = owned.get(format!("f:{name}")) else { return false };
        match name.as_str() {
            "metadata" => fields(value)
                .filter(|(name, _)| !matches!(name.as_str(), "name" | "namespace" | "ownerReferences"))
                .all(|(name, value)| owned.get(format!("f:{name}")).is_some_and(|owned| owns(value, owned))),
            _ => owns(value, owned),
        }
    })
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null())
}

/// Is every field of `desired` in `owned`, the field set that the API server records for our manager?
fn owns(desired: &Value, owned: &Value) -> bool {
    let Some(owned) = owned.as_object() else { return false };
    // A leaf or an atomic list or map: owned as a whole.
    if owned.keys().all(|key| key == ".") {
        return true;
    }
    match desired {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .all(|(name, value)| owned.get(&format!("f:{name}")).is_some_and(|owned| owns(value, owned))),
        Value::Array(items) => items.iter().all(|item| {
            owned.iter().any(|(key, fields)| match key.split_once(':') {
                Some(("k", keys)) => has_keys(item, keys) && owns(item, fields),
                Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok_and(|value| &value == item),
                _ => false,
            })
        }),
        _ => true,
    }
}

/// The item of an associative list that these keys name. A key that the item leaves out was filled in by a default.
fn has_keys(item: &Value, keys: &str) -> bool {
    let Ok(Value::Object(keys)) = serde_json::from_str::<Value>(keys) else { return false };
    keys.iter().all(|(name, value)| item.get(name).is_none_or(|known| known == value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lost_field_is_noticed() {
        let desired = json!({"spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "serve", "image": "a"}]}}}});
        let ours = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"serve\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}});
        assert!(owns(&desired, &ours));
        let without = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"serve\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}});
        assert!(!owns(&desired, &without));
        let image_lost = json!({"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"serve\"}": {".": {}, "f:name": {}}}}}}});
        assert!(!owns(&desired, &image_lost));
    }

    #[test]
    fn what_belongs_to_nobody_is_not_looked_for() {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}, "metadata": {
            "name": "n", "namespace": "ns", "ownerReferences": [{"uid": "u"}], "labels": {"l": "1"}, "creationTimestamp": null}});
        let owned = json!({"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:l": {}}}});
        assert!(owns_object(&object, &owned));
        assert!(!owns_object(&object, &json!({"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:other": {}}}})));
        assert!(!owns_object(&object, &json!({"f:metadata": {"f:labels": {"f:l": {}}}})));
    }

    #[test]
    fn atomic_values_are_owned_whole() {
        assert!(owns(&json!({"selector": {"a": "b"}}), &json!({"f:selector": {}})));
        assert!(!owns(&json!({"selector": {"a": "b"}}), &json!({"f:other": {}})));
    }
}
