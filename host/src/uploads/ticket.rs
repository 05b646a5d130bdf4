//! What allows to send one upload: the object, the bytes and the time are in the URL, and so is our signature of them. Pure.

use std::collections::BTreeMap;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use substratus_crds::UploadSource;
use url::Url;

/// Longest URL that is looked at.
const MAX_QUERY: usize = 4096;

/// An object of ours that an image is built for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Subject {
    /// Its kind in lower case.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Subject {
    /// Whether its parts are names of folders that lead nowhere else.
    pub fn is_named_well(&self) -> bool {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
        [&self.kind, &self.namespace, &self.name]
            .into_iter()
            .all(|part| !part.is_empty() && part.len() <= 253 && !part.starts_with('.') && part.bytes().all(good))
    }

    fn path(&self) -> String {
        format!("uploads/{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// What may be sent, for which object, until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ticket {
    /// The object.
    pub subject: Subject,
    /// What is to be sent.
    #[serde(flatten)]
    pub asked: Asked,
}

/// The part of a ticket that is in the query of its URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Which request of the user's it answers.
    pub request: String,
    /// MD5 of the bytes, in lower-case hexadecimal.
    pub md5: String,
    /// SHA-256 of them, where the user says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How many, where the user says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// End of the ticket, in seconds since 1970.
    pub expires: i64,
}

/// No such ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTicket {
    /// We signed nothing of the kind.
    #[error("this URL is none of ours: take the one in status.buildUpload as it is")]
    Unsigned,
    /// Its time is over.
    #[error("this URL has ended; another spec.build.upload.requestID asks for a new one")]
    Expired,
}

/// Signs tickets: for as long as this process lives.
#[derive(Clone)]
pub struct Signer([u8; 32]);

impl Signer {
    /// Signs with this key, which nobody else has.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The URL of a ticket below `base`.
    pub fn url(&self, base: &Url, ticket: &Ticket) -> Url {
        let mut url = base.clone();
        url.set_path(&format!("{}/{}", base.path().trim_end_matches('/'), ticket.subject.path()));
        let mut query = url.query_pairs_mut();
        let asked = &ticket.asked;
        query.append_pair("request", &asked.request).append_pair("md5", &asked.md5);
        if let Some(sha256) = &asked.sha256 {
            query.append_pair("sha256", sha256);
        }
        if let Some(size) = asked.size {
            query.append_pair("size", &size.to_string());
        }
        query.append_pair("expires", &asked.expires.to_string());
        query.append_pair("signature", &hex::encode(self.seal(ticket).finalize().into_bytes()));
        drop(query);
        url
    }

    /// The ticket that a URL is, at the time `now`.
    pub fn check(&self, subject: Subject, query: &str, now: i64) -> Result<Ticket, NoTicket> {
        let ticket = (query.len() <= MAX_QUERY).then(|| read(subject, query)).flatten();
        let (ticket, signature) = ticket.ok_or(NoTicket::Unsigned)?;
        self.seal(&ticket).verify_slice(&signature).map_err(|_| NoTicket::Unsigned)?;
        if now >= ticket.asked.expires { Err(NoTicket::Expired) } else { Ok(ticket) }
    }

    fn seal(&self, ticket: &Ticket) -> Hmac<Sha256> {
        // The block size of SHA-256, zeros behind the key: what HMAC does with a short key.
        let mut block = [0; 64];
        block.iter_mut().zip(self.0).for_each(|(byte, key)| *byte = key);
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        // JSON keeps the parts apart, whatever is in them.
        mac.update(&serde_json::to_vec(ticket).unwrap_or_default());
        mac
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// A ticket and its signature, whether that is ours or not.
fn read(subject: Subject, query: &str) -> Option<(Ticket, Vec<u8>)> {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        // What is said twice is not what we said.
        if said.insert(key.into_owned(), value.into_owned()).is_some() {
            return None;
        }
    }
    let signature = hex::decode(said.remove("signature")?).ok()?;
    let size = said.remove("size").map(|size| size.parse()).transpose().ok()?;
    let asked = Asked {
        request: said.remove("request")?,
        md5: said.remove("md5")?,
        sha256: said.remove("sha256"),
        size,
        expires: said.remove("expires")?.parse().ok()?,
    };
    said.is_empty().then_some((Ticket { subject, asked }, signature))
}

impl Ticket {
    /// For what a user announced.
    pub fn of(subject: Subject, upload: &UploadSource, expires: i64) -> Self {
        let asked = Asked {
            request: upload.request_id.clone(),
            md5: upload.md5_checksum.to_ascii_lowercase(),
            sha256: upload.sha256_checksum.as_ref().map(|sum| sum.to_ascii_lowercase()),
            size: upload.size_bytes.and_then(|size| u64::try_from(size).ok()),
            expires,
        };
        Self { subject, asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> Subject {
        Subject { kind: "model".to_owned(), namespace: "team".to_owned(), name: name.to_owned() }
    }

    fn upload() -> UploadSource {
        UploadSource {
            md5_checksum: "A".repeat(32),
            request_id: "1 & 2=%\"".to_owned(),
            sha256_checksum: Some("b".repeat(64)),
            size_bytes: Some(10),
        }
    }

    fn signed(key: u8) -> (Signer, Url) {
        let signer = Signer::new([key; 32]);
        let url = signer.url(&"http://r.test:80/below/".parse().unwrap(), &Ticket::of(subject("m"), &upload(), 1000));
        (signer, url)
    }

    #[test]
    fn what_was_signed_is_what_is_read() {
        let (signer, url) = signed(1);
        assert_eq!(url.path(), "/below/uploads/model/team/m");
        let ticket = signer.check(subject("m"), url.query().unwrap(), 999).unwrap();
        assert_eq!(ticket, Ticket::of(subject("m"), &upload(), 1000));
        assert_eq!((ticket.asked.md5.as_str(), ticket.asked.size), ("a".repeat(32).as_str(), Some(10)));
        assert_eq!(signer.check(subject("m"), url.query().unwrap(), 1000), Err(NoTicket::Expired));
    }

    #[test]
    fn nothing_else_is_allowed_by_it() {
        let (signer, url) = signed(1);
        let query = url.query().unwrap();
        let (_, other_key) = signed(2);
        assert_eq!(signer.check(subject("n"), query, 0), Err(NoTicket::Unsigned), "another object");
        let longer = query.replace("size=10", "size=11");
        let without = query.replace("&size=10", "");
        let later = query.replace("expires=1000", "expires=2000");
        let twice = format!("{query}&md5={}", "c".repeat(32));
        let more = format!("{query}&x=y");
        let huge = format!("{query}&x={}", "y".repeat(MAX_QUERY));
        let md5 = query.replace(&"a".repeat(32), &"c".repeat(32));
        let cut = query.split_once("&signature").unwrap().0;
        for query in [&longer, &without, &later, &twice, &more, &huge, &md5, cut, "", other_key.query().unwrap()] {
            assert_eq!(signer.check(subject("m"), query, 0), Err(NoTicket::Unsigned), "{query}");
        }
    }

    #[test]
    fn subjects_are_folders_that_lead_nowhere_else() {
        assert!(subject("m.v1").is_named_well());
        for name in ["", "..", ".x", "a/b", "A", "a\0", "a%2f"] {
            assert!(!subject(name).is_named_well(), "{name}");
        }
    }
}
