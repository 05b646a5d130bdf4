//! Reads the older form of cosign's signatures: an image behind the tag `sha256-<hex>.sig`, whose layers are payloads and whose
//! annotations are signatures. Checks everything but the signature itself. Knows no registry and no key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::Statement;

/// Of a layer.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// What errors call the tag's manifest.
pub(super) const WHAT: &str = "the signature tag";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What a payload calls itself.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: String,
}

/// Where signatures of a digest are.
pub(in crate::plugin) fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replacen(':', "-", 1))
}

/// What a layer about `digest` has signed; else why it proves nothing about it. The image's name in the payload is not compared:
/// mirrors and air gaps change it, and the digest says it all.
pub(super) fn read(payload: Vec<u8>, annotations: Option<&BTreeMap<String, String>>, digest: &str) -> Result<Statement, String> {
    let Some(signature) = annotations.and_then(|annotations| annotations.get(ANNOTATION)) else {
        return Err(format!("a layer of the signature tag has no annotation {ANNOTATION}"));
    };
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| "a signature is broken base64".to_owned())?;
    let parsed: Payload =
        serde_json::from_slice(&payload).map_err(|_| "a signature's payload is not of the known form".to_owned())?;
    if parsed.critical.kind != TYPE {
        return Err("a payload is of another type than cosign's".to_owned());
    }
    if parsed.critical.image.docker_manifest_digest != digest {
        return Err("a payload is about another digest".to_owned());
    }
    Ok(Statement { message: payload, signature })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::key::tests::{Pair, keys};
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn payload() -> Value {
        json!({
            "critical": {
                "identity": {"docker-reference": "elsewhere.example/plugin"},
                "image": {"docker-manifest-digest": DIGEST},
                "type": TYPE,
            },
            "optional": null,
        })
    }

    fn annotations(signature: &[u8]) -> BTreeMap<String, String> {
        [(ANNOTATION.to_owned(), BASE64_STANDARD.encode(signature))].into()
    }

    fn refused(payload: &Value) -> String {
        read(payload.to_string().into_bytes(), Some(&annotations(b"any")), DIGEST).unwrap_err()
    }

    #[test]
    fn what_is_signed_is_the_payload_as_it_is() {
        let pair = Pair::new();
        let bytes = format!("{}\n", payload()).into_bytes();
        let read = read(bytes.clone(), Some(&annotations(&pair.sign(&bytes))), DIGEST).unwrap();
        assert!(keys(&[&pair.pem()], 1).unwrap().signer(&read.message, &read.signature).is_some());
    }

    #[test]
    fn a_payload_about_anything_else_is_refused() {
        let with = |path: &str, value: Value| {
            let mut payload = payload();
            *payload.pointer_mut(path).unwrap() = value;
            refused(&payload)
        };
        let other = format!("sha256:{}", "f".repeat(64));
        assert_eq!(with("/critical/image/docker-manifest-digest", other.into()), "a payload is about another digest");
        assert_eq!(with("/critical/type", "atomic container signature".into()), "a payload is of another type than cosign's");
        assert!(with("/critical", Value::Null).contains("known form"));
        assert!(with("/critical/image", json!({})).contains("known form"));
    }

    #[test]
    fn a_layer_without_a_signature_is_refused() {
        let bytes = payload().to_string().into_bytes();
        for nothing in [None, Some(&BTreeMap::new())] {
            assert!(read(bytes.clone(), nothing, DIGEST).unwrap_err().contains("has no annotation"));
        }
        let broken = [(ANNOTATION.to_owned(), "!".to_owned())].into();
        assert!(read(bytes, Some(&broken), DIGEST).unwrap_err().contains("broken base64"));
    }

    #[test]
    fn a_digest_that_is_there_twice_is_not_read_at_all() {
        let image = format!(r#"{{"docker-manifest-digest":"{DIGEST}","docker-manifest-digest":"{DIGEST}"}}"#);
        let text = format!(r#"{{"critical":{{"image":{image},"type":"{TYPE}"}}}}"#);
        assert!(read(text.into_bytes(), Some(&annotations(b"any")), DIGEST).unwrap_err().contains("known form"));
    }

    #[test]
    fn the_tag_is_the_digest_in_letters_of_a_tag() {
        assert_eq!(tag(DIGEST), "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.sig");
    }

    proptest! {
        #[test]
        fn a_changed_payload_proves_nothing_to_a_key(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let pair = Pair::new();
            let mut bytes = payload().to_string().into_bytes();
            let annotations = annotations(&pair.sign(&bytes));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = read(bytes, Some(&annotations), DIGEST) {
                prop_assert!(keys(&[&pair.pem()], 1).unwrap().signer(&changed.message, &changed.signature).is_none());
            }
        }

        #[test]
        fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(bytes, Some(&annotations(b"any")), DIGEST).is_err());
        }
    }
}
