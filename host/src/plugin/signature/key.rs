//! Public keys of a policy: read strictly, told apart by what they are and not by how they are written. The only file that names
//! the crypto library.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;

use super::{SignatureError, SignaturePolicy};
use crate::limits;
use crate::plugin::cache::digest_of;

/// What stands before the point of every P-256 key in DER: `ecPublicKey`, `prime256v1`, and the head of an uncompressed point.
const HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// Bytes of the whole key.
const DER_BYTES: usize = HEAD.len() + 64;

/// A policy that can be held to: different keys by fingerprint, fewer needed than there are.
#[derive(Debug)]
pub(super) struct Keys {
    keys: BTreeMap<String, ParsedPublicKey>,
    pub(super) minimum: usize,
}

impl Keys {
    /// Reads a policy; a key that is there twice is one key.
    pub(super) fn of(policy: &SignaturePolicy) -> Result<Self, SignatureError> {
        let wrong = |reason: String| SignatureError::Policy { reason };
        if policy.keys.len() > limits::SIGNATURE_KEYS {
            return Err(wrong(format!("it has {} keys, and at most {} are taken", policy.keys.len(), limits::SIGNATURE_KEYS)));
        }
        let mut keys = BTreeMap::new();
        for (index, pem) in policy.keys.iter().enumerate() {
            let (fingerprint, key) = read(pem).map_err(|reason| wrong(format!("key {} {reason}", index + 1)))?;
            keys.insert(fingerprint, key);
        }
        if keys.is_empty() {
            return Err(wrong("it has no key".to_owned()));
        }
        if policy.minimum == 0 || policy.minimum > keys.len() {
            let reason = format!("it wants signatures by {} of {} different keys", policy.minimum, keys.len());
            return Err(wrong(reason));
        }
        Ok(Self { keys, minimum: policy.minimum })
    }

    /// The fingerprint of the key that made this signature.
    pub(super) fn signer(&self, message: &[u8], signature: &[u8]) -> Option<&str> {
        let found = self.keys.iter().find(|(_, key)| key.verify_sig(message, signature).is_ok());
        found.map(|(fingerprint, _)| fingerprint.as_str())
    }

    /// All fingerprints, sorted.
    pub(super) fn fingerprints(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }
}

/// One key and its fingerprint. What is refused is not repeated: it may be a private key.
fn read(pem: &str) -> Result<(String, ParsedPublicKey), String> {
    if pem.len() > limits::SIGNATURE_KEY_BYTES {
        return Err(format!("has {} bytes, and at most {} are taken", pem.len(), limits::SIGNATURE_KEY_BYTES));
    }
    let mut sections = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes());
    let der = match (sections.next(), sections.next()) {
        (Some(Ok(der)), None) => der,
        (None, _) if pem.contains("PRIVATE KEY") => {
            return Err("is a private key; give the public one, and change this one".to_owned());
        }
        (None, _) => return Err("is no PEM text with `-----BEGIN PUBLIC KEY-----`".to_owned()),
        (Some(Ok(_)), Some(_)) => return Err("is more than one key; list them one by one".to_owned()),
        (Some(Err(_)), _) => return Err("is broken PEM text".to_owned()),
    };
    let other = || "is not ECDSA P-256, the kind that `cosign generate-key-pair` makes".to_owned();
    if der.len() != DER_BYTES || !der.starts_with(&HEAD) {
        return Err(other());
    }
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &*der).map_err(|_| other())?;
    Ok((digest_of(&der), key))
}

#[cfg(test)]
pub(super) mod tests {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// A key pair of a test.
    pub(in super::super) struct Pair(EcdsaKeyPair);

    impl Pair {
        pub(in super::super) fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
        }

        pub(in super::super) fn pem(&self) -> String {
            pem(self.0.public_key().as_der().unwrap().as_ref())
        }

        pub(in super::super) fn sign(&self, message: &[u8]) -> Vec<u8> {
            self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        }
    }

    fn pem(der: &[u8]) -> String {
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    pub(in super::super) fn keys(keys: &[&str], minimum: usize) -> Result<Keys, SignatureError> {
        Keys::of(&SignaturePolicy { keys: keys.iter().map(|key| (*key).to_owned()).collect(), minimum })
    }

    fn refused(pem: &str) -> String {
        keys(&[pem], 1).unwrap_err().to_string()
    }

    #[test]
    fn a_key_is_known_by_what_it_is() {
        let (one, other) = (Pair::new(), Pair::new());
        let spaced = one.pem().replace('\n', "\r\n");
        let both = keys(&[&one.pem(), &other.pem(), &spaced], 2).unwrap();
        assert_eq!(both.fingerprints().count(), 2);
        let fingerprint = digest_of(one.0.public_key().as_der().unwrap().as_ref());
        assert_eq!(both.signer(b"text", &one.sign(b"text")), Some(fingerprint.as_str()));
        assert_eq!(both.signer(b"test", &one.sign(b"text")), None);
        assert_eq!(both.signer(b"text", &Pair::new().sign(b"text")), None);
    }

    #[test]
    fn the_same_key_written_twice_does_not_make_two() {
        let one = Pair::new();
        let spaced = one.pem().replace('\n', "\r\n");
        let error = keys(&[&one.pem(), &spaced], 2).unwrap_err().to_string();
        assert_eq!(error, "the signature policy cannot be used: it wants signatures by 2 of 1 different keys");
        assert!(keys(&[&one.pem()], 0).is_err());
        assert!(keys(&[], 0).unwrap_err().to_string().ends_with("it has no key"));
        let many = vec![one.pem(); limits::SIGNATURE_KEYS + 1];
        assert!(keys(&many.iter().map(String::as_str).collect::<Vec<_>>(), 1).is_err());
    }

    #[test]
    fn other_kinds_of_keys_are_refused_and_not_repeated() {
        let larger = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
        let larger = pem(larger.public_key().as_der().unwrap().as_ref());
        assert!(refused(&larger).contains("key 1 is not ECDSA P-256"), "{}", refused(&larger));
        let secret = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
        let text = refused(secret);
        assert!(text.contains("is a private key") && !text.contains("c2VjcmV0"), "{text}");
        assert!(refused("ssh-rsa AAAA").contains("is no PEM text"));
        assert!(refused("").contains("is no PEM text"));
        let one = Pair::new().pem();
        assert!(refused(&format!("{one}{}", Pair::new().pem())).contains("is more than one key"));
        assert!(refused(one.trim_end().trim_end_matches('-')).contains("is broken PEM text"));
        assert!(refused(&format!("{one}{}", " ".repeat(limits::SIGNATURE_KEY_BYTES))).contains("bytes, and at most"));
        // A point that is not on the curve.
        let off: Vec<u8> = HEAD.into_iter().chain([7; 64]).collect();
        assert!(refused(&pem(&off)).contains("is not ECDSA P-256"));
    }

    proptest! {
        #[test]
        fn a_key_that_was_changed_is_another_one_or_none(at in 0..DER_BYTES, bit in 0..8_u32) {
            let pair = Pair::new();
            let mut der = pair.0.public_key().as_der().unwrap().as_ref().to_vec();
            der[at] ^= 1 << bit;
            if let Ok(keys) = keys(&[&pem(&der)], 1) {
                prop_assert_eq!(keys.signer(b"text", &pair.sign(b"text")), None);
            }
        }

        #[test]
        fn a_signature_that_was_changed_proves_nothing(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let pair = Pair::new();
            let mut signature = pair.sign(b"text");
            let at = at.index(signature.len());
            signature[at] ^= 1 << bit;
            prop_assert!(keys(&[&pair.pem()], 1).unwrap().signer(b"text", &signature).is_none());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,200}") {
            prop_assert!(keys(&[&text], 1).is_err());
            let _ = keys(&[&format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----")], 1);
        }
    }
}
