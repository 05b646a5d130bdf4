//! Hashes of JSON documents: sorted keys, so the same document has the same hash. Pure.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The first 16 hexadecimal digits of the document's SHA-256.
pub fn of(document: &impl Serialize) -> String {
    // `serde_json::Map` is a BTreeMap here, so a value made from any type has its keys sorted.
    let value = serde_json::to_value(document).unwrap_or(Value::Null);
    let digest = Sha256::digest(value.to_string().as_bytes());
    hex::encode(digest).chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_order_does_not_count() {
        let one: Value = serde_json::from_str(r#"{"b":1,"a":[1,2]}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":[1,2],"b":1}"#).unwrap();
        assert_eq!(of(&one), of(&two));
        assert_ne!(of(&one), of(&serde_json::json!({"a": [2, 1], "b": 1})));
    }
}
