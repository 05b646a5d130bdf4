//! Reads a Sigstore bundle, version 0.3, that a key made: a DSSE envelope around an in-toto statement about one digest. Checks
//! everything but the signature itself. Knows no registry and no key.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::Statement;

/// Of the bundle, and of the manifest that carries it.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// What the envelope holds.
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// What `cosign sign` says. An attestation says something else, and is no signature.
const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InToto {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

#[derive(Deserialize)]
struct Digest {
    sha256: String,
}

/// What a bundle about `digest` has signed; else why it proves nothing about it.
pub(super) fn read(bytes: &[u8], digest: &str) -> Result<Statement, String> {
    let bundle: Bundle = serde_json::from_slice(bytes).map_err(|_| "a bundle is no JSON of the known form".to_owned())?;
    if bundle.media_type != MEDIA_TYPE {
        return Err("a bundle is of another version than 0.3".to_owned());
    }
    // Here a certificate is to be checked, once policies can name identities.
    if bundle.verification_material.public_key.is_none() {
        return Err("a bundle is by an identity (keyless), and only keys are known here".to_owned());
    }
    let envelope = bundle.dsse_envelope.ok_or_else(|| "a bundle signs a blob and no image".to_owned())?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err("a bundle has another payload type than in-toto's".to_owned());
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(format!("a bundle has {} signatures instead of one", envelope.signatures.len()));
    };
    let base64 = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| "a bundle has broken base64".to_owned());
    let (payload, signature) = (base64(&envelope.payload)?, base64(&signature.sig)?);
    about(&payload, digest)?;
    Ok(Statement { message: pre_authentication(&payload), signature })
}

/// Whether a statement is a signature of this digest and of nothing else.
fn about(payload: &[u8], digest: &str) -> Result<(), String> {
    let statement: InToto =
        serde_json::from_slice(payload).map_err(|_| "a bundle's statement is not of the known form".to_owned())?;
    if statement.predicate_type != PREDICATE_TYPE {
        return Err("a bundle is an attestation and no signature".to_owned());
    }
    if statement.kind != STATEMENT_TYPE {
        return Err("a bundle's statement is of another version than in-toto's v1".to_owned());
    }
    match statement.subject.as_slice() {
        [subject] if digest.strip_prefix("sha256:") == Some(subject.digest.sha256.as_str()) => Ok(()),
        [_] => Err("a bundle signs another digest".to_owned()),
        subjects => Err(format!("a bundle is about {} things instead of one", subjects.len())),
    }
}

/// What DSSE signs: type and content, each with its length, so that neither can pass for the other.
fn pre_authentication(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::key::tests::{Pair, keys};
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn statement() -> Value {
        json!({
            "_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE, "predicate": {},
            "subject": [{"digest": {"sha256": DIGEST.replace("sha256:", "")}, "annotations": {"a": "b"}}],
        })
    }

    fn bundle(statement: &Value, signature: &[u8]) -> Value {
        json!({
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": BASE64_STANDARD.encode(statement.to_string()), "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": BASE64_STANDARD.encode(signature)}],
            },
        })
    }

    fn refused(bundle: &Value) -> String {
        read(bundle.to_string().as_bytes(), DIGEST).unwrap_err()
    }

    #[test]
    fn what_is_signed_is_type_and_content_with_their_lengths() {
        let pair = Pair::new();
        let text = statement().to_string();
        let signed = format!("DSSEv1 28 application/vnd.in-toto+json {} {text}", text.len());
        let bundle = bundle(&statement(), &pair.sign(signed.as_bytes()));
        let read = read(bundle.to_string().as_bytes(), DIGEST).unwrap();
        assert_eq!(read.message, signed.as_bytes());
        assert!(keys(&[&pair.pem()], 1).unwrap().signer(&read.message, &read.signature).is_some());
    }

    #[test]
    fn a_signature_of_the_bare_content_is_none_of_the_envelope() {
        let pair = Pair::new();
        let bundle = bundle(&statement(), &pair.sign(statement().to_string().as_bytes()));
        let read = read(bundle.to_string().as_bytes(), DIGEST).unwrap();
        assert_eq!(keys(&[&pair.pem()], 1).unwrap().signer(&read.message, &read.signature), None);
    }

    #[test]
    fn a_statement_about_anything_else_is_refused() {
        let with = |change: fn(&mut Value)| {
            let mut statement = statement();
            change(&mut statement);
            refused(&bundle(&statement, b"any"))
        };
        let other = with(|statement| statement["subject"][0]["digest"]["sha256"] = "f".repeat(64).into());
        assert_eq!(other, "a bundle signs another digest");
        assert_eq!(with(|statement| statement["subject"] = json!([])), "a bundle is about 0 things instead of one");
        let two = with(|statement| {
            let first = statement["subject"][0].clone();
            statement["subject"].as_array_mut().unwrap().push(first);
        });
        assert_eq!(two, "a bundle is about 2 things instead of one");
        let attestation = with(|statement| statement["predicateType"] = "https://slsa.dev/provenance/v1".into());
        assert_eq!(attestation, "a bundle is an attestation and no signature");
        let old = with(|statement| statement["_type"] = "https://in-toto.io/Statement/v0.1".into());
        assert!(old.contains("another version than in-toto's v1"), "{old}");
        let short = with(|statement| statement["subject"][0]["digest"] = json!({"sha512": "00"}));
        assert!(short.contains("not of the known form"), "{short}");
    }

    #[test]
    fn an_envelope_of_another_kind_is_refused() {
        let with = |path: &str, value: Value| {
            let mut bundle = bundle(&statement(), b"any");
            *bundle.pointer_mut(path).unwrap() = value;
            refused(&bundle)
        };
        assert!(with("/mediaType", "application/vnd.dev.sigstore.bundle.v0.2+json".into()).contains("another version than 0.3"));
        assert!(with("/dsseEnvelope/payloadType", "text/plain".into()).contains("another payload type"));
        assert!(with("/dsseEnvelope/payload", "!".into()).contains("broken base64"));
        assert!(with("/dsseEnvelope/signatures", json!([])).contains("0 signatures instead of one"));
        assert!(with("/dsseEnvelope/signatures", json!([{"sig": ""}, {"sig": ""}])).contains("2 signatures instead of one"));
        assert!(with("/dsseEnvelope", Value::Null).contains("signs a blob"));
        let keyless = json!({"certificate": {"rawBytes": "AA=="}, "tlogEntries": []});
        assert!(with("/verificationMaterial", keyless).contains("by an identity (keyless)"));
        assert!(with("/verificationMaterial", Value::Null).contains("no JSON of the known form"));
    }

    #[test]
    fn a_member_that_is_there_twice_is_not_read_at_all() {
        let whole = bundle(&statement(), b"any").to_string();
        let twice = whole.replacen("\"mediaType\"", "\"mediaType\":\"x\",\"mediaType\"", 1);
        assert!(read(whole.as_bytes(), DIGEST).is_ok());
        assert!(read(twice.as_bytes(), DIGEST).unwrap_err().contains("known form"));
        // A statement with two subjects' members: which one is meant would be the reader's choice.
        let text = statement().to_string().replacen("\"subject\"", "\"subject\":[],\"subject\"", 1);
        assert!(about(text.as_bytes(), DIGEST).unwrap_err().contains("known form"));
    }

    #[test]
    fn deep_documents_are_refused_and_not_followed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes(), DIGEST).is_err());
        let inside = format!(r#"{{"mediaType":"{MEDIA_TYPE}","verificationMaterial":{{"publicKey":{deep}}}}}"#);
        assert!(read(inside.as_bytes(), DIGEST).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_bundle_never_proves_the_digest_to_a_key(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let pair = Pair::new();
            let signature = pair.sign(&pre_authentication(statement().to_string().as_bytes()));
            let mut bytes = bundle(&statement(), &signature).to_string().into_bytes();
            let whole = read(&bytes, DIGEST).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // Where the change is in a part that nobody signs, such as the hint, both are still as they were.
            if let Ok(changed) = read(&bytes, DIGEST) {
                let proved = keys(&[&pair.pem()], 1).unwrap().signer(&changed.message, &changed.signature).is_some();
                prop_assert!(!proved || changed == whole);
            }
        }

        #[test]
        fn nothing_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(read(&bytes, DIGEST).is_err());
            prop_assert!(about(&bytes, DIGEST).is_err());
        }
    }
}
