//! Counts who signed and what else was there, and says so in one sentence. Knows no registry and no format.

use std::collections::BTreeSet;

use super::key::Keys;
use super::{Read, SignatureError, Signed, legacy};
use crate::limits;
use crate::plugin::registry::RegistryError;
use crate::plugin::text::sentence;

/// Different reasons that an error names.
const REASONS: usize = 3;

/// Hexadecimal digits of a fingerprint that tell a person which key it is.
const DIGITS: usize = 16;

/// What was found so far.
pub(super) struct Tally<'a> {
    keys: &'a Keys,
    by: BTreeSet<String>,
    /// Signatures by keys that the policy does not name.
    others: usize,
    /// Attachments that would be signatures and prove nothing.
    refused: usize,
    reasons: BTreeSet<String>,
    /// Attachments that are something else.
    unrelated: usize,
    /// Whether there were more than we look at.
    more: bool,
    left: usize,
}

impl<'a> Tally<'a> {
    pub(super) fn new(keys: &'a Keys) -> Self {
        Self {
            keys,
            by: BTreeSet::new(),
            others: 0,
            refused: 0,
            reasons: BTreeSet::new(),
            unrelated: 0,
            more: false,
            left: limits::SIGNATURE_ATTACHMENTS,
        }
    }

    /// As many of these as are still looked at.
    pub(super) fn bounded<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        self.more |= all.len() > self.left;
        all.truncate(self.left);
        self.left -= all.len();
        all
    }

    /// Counts what an attachment came to; a registry that fails ends the look.
    pub(super) fn count(&mut self, read: Read) -> Result<(), RegistryError> {
        match read {
            Read::Statement(statement) => match self.keys.signer(&statement.message, &statement.signature) {
                Some(fingerprint) => _ = self.by.insert(fingerprint.to_owned()),
                None => self.others += 1,
            },
            Read::Other => self.unrelated += 1,
            Read::Refused(reason) => self.refuse(&reason),
            Read::Registry(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts something that proves nothing.
    pub(super) fn refuse(&mut self, reason: &str) {
        self.refused += 1;
        if self.reasons.len() < REASONS {
            self.reasons.insert(sentence(reason));
        }
    }

    /// Who signed, if they are enough. A key counts once, however often it signed.
    pub(super) fn verdict(&self) -> Option<Signed> {
        (self.by.len() >= self.keys.minimum).then(|| Signed { by: self.by.iter().cloned().collect() })
    }

    /// Why they are not.
    pub(super) fn refusal(&self, reference: &str, digest: &str) -> SignatureError {
        let reference = reference.to_owned();
        if self.by.is_empty() && self.others == 0 && self.refused == 0 && !self.more {
            return SignatureError::Unsigned { reference, tag: legacy::tag(digest) };
        }
        SignatureError::Untrusted { reference, missing: self.missing(), found: self.found() }
    }

    fn missing(&self) -> String {
        let absent: Vec<String> = self.keys.fingerprints().filter(|key| !self.by.contains(*key)).map(short).collect();
        let absent = match absent.as_slice() {
            [key] => format!("no signature by key {key}"),
            keys => format!("no signature by any of the keys {}", keys.join(", ")),
        };
        if self.keys.minimum == 1 {
            return absent;
        }
        let by: Vec<String> = self.by.iter().map(|key| short(key)).collect();
        let by = if by.is_empty() { String::new() } else { format!(" ({})", by.join(", ")) };
        format!("{} keys must have signed and {} did{by}, {absent}", self.keys.minimum, self.by.len())
    }

    fn found(&self) -> String {
        let count = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let mut found = vec![count(self.others, "signature by another key", "signatures by other keys")];
        if self.refused > 0 {
            let reasons: Vec<&str> = self.reasons.iter().map(String::as_str).collect();
            found.push(format!("{} not used ({})", count(self.refused, "attachment", "attachments"), reasons.join("; ")));
        }
        if self.unrelated > 0 {
            found.push(count(self.unrelated, "attachment that is no signature", "attachments that are no signatures"));
        }
        if self.more {
            found.push(format!("of the attachments only {} were looked at", limits::SIGNATURE_ATTACHMENTS));
        }
        found.join(", ")
    }
}

/// Enough of a fingerprint.
fn short(fingerprint: &str) -> String {
    let digits = fingerprint.get(.."sha256:".len() + DIGITS).unwrap_or(fingerprint);
    format!("{digits}…")
}

#[cfg(test)]
mod tests {
    use super::super::Statement;
    use super::super::key::tests::{Pair, keys};
    use super::*;

    const DIGEST: &str = "sha256:00";

    fn signed(pair: &Pair) -> Read {
        Read::Statement(Statement { message: b"text".to_vec(), signature: pair.sign(b"text") })
    }

    fn words(tally: &Tally<'_>) -> String {
        assert_eq!(tally.verdict(), None);
        tally.refusal("registry.example/plugin@sha256:00", DIGEST).to_string()
    }

    #[test]
    fn the_same_key_twice_is_one_key() {
        let (one, other) = (Pair::new(), Pair::new());
        let keys = keys(&[&one.pem(), &other.pem()], 2).unwrap();
        let mut tally = Tally::new(&keys);
        tally.count(signed(&one)).unwrap();
        tally.count(signed(&one)).unwrap();
        let text = words(&tally);
        assert!(text.contains("2 keys must have signed and 1 did (sha256:"), "{text}");
        tally.count(signed(&other)).unwrap();
        let by = tally.verdict().unwrap().by;
        assert_eq!(by.len(), 2);
        assert!(by.is_sorted());
    }

    #[test]
    fn what_was_there_instead_is_told() {
        let one = Pair::new();
        let keys = keys(&[&one.pem()], 1).unwrap();
        let mut tally = Tally::new(&keys);
        tally.count(Read::Other).unwrap();
        assert!(
            words(&tally).contains("is not signed: neither a Sigstore bundle nor the tag sha256-00.sig"),
            "{}",
            words(&tally)
        );
        tally.count(signed(&Pair::new())).unwrap();
        tally.count(signed(&Pair::new())).unwrap();
        tally.count(Read::Refused("a bundle signs\u{1b}[31m another digest".into())).unwrap();
        let fingerprint = keys.fingerprints().next().unwrap();
        assert_eq!(
            words(&tally),
            format!(
                "registry.example/plugin@sha256:00 is not signed as it must be: no signature by key {}… found; 2 signatures by \
                 other keys, 1 attachment not used (a bundle signs [31m another digest), 1 attachment that is no signature",
                fingerprint.get(..23).unwrap(),
            )
        );
    }

    #[test]
    fn attachments_are_bounded_and_the_bound_is_told() {
        let one = Pair::new();
        let keys = keys(&[&one.pem()], 1).unwrap();
        let mut tally = Tally::new(&keys);
        assert_eq!(tally.bounded(vec![(); 3]).len(), 3);
        assert_eq!(tally.bounded(vec![(); limits::SIGNATURE_ATTACHMENTS]).len(), limits::SIGNATURE_ATTACHMENTS - 3);
        assert_eq!(tally.bounded(vec![(); 1]).len(), 0);
        for number in 0..10 {
            tally.refuse(&format!("reason {number}"));
        }
        let text = words(&tally);
        assert!(text.contains("only 32 were looked at") && text.matches("reason").count() == REASONS, "{text}");
    }
}
