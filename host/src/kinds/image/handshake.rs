//! The handshake of an upload: what the status tells a client, which the first operator's clients understand. Pure.
//!
//! The client writes `md5Checksum` and a `requestID` of its own into `spec.build.upload`, waits for a `signedURL` that answers that
//! request, and sends the bytes there. Where `storedMD5Checksum` is already theirs, it sends nothing.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use substratus_crds::conditions::{UPLOADED, reason};
use substratus_crds::{BuildUpload, UploadSource};

use crate::kinds::shared::conditions::{Say, whole_second};
use crate::kinds::shared::verdict::Retry;

/// How long a URL is good for.
pub const LIFE: Duration = Duration::from_mins(5);

/// What is known of an upload.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// It is here.
    pub is_here: bool,
    /// Why the last one was not taken that was sent for this request.
    pub refusal: Option<String>,
    /// A URL that is good from now on for [`LIFE`].
    pub fresh: String,
    /// The URL that we would have given for the status's expiration.
    pub given: Option<String>,
}

/// When a URL ends that is given now.
pub fn end(now: Timestamp) -> Timestamp {
    whole_second(now.saturating_add(jiff::SignedDuration::try_from(LIFE).unwrap_or_default()).unwrap_or(now))
}

/// How it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaken {
    /// The condition `Uploaded`.
    pub said: Say,
    /// What the status keeps.
    pub status: BuildUpload,
    /// When to look again.
    pub retry: Retry,
}

/// The next step; `is_built` where the image is there already.
pub fn shake(upload: &UploadSource, known: Option<&BuildUpload>, sent: &Sent, is_built: bool, now: Timestamp) -> Shaken {
    let known = known.cloned().unwrap_or_default();
    let same = known.request_id.as_ref() == Some(&upload.request_id);
    if sent.is_here || is_built {
        let status = BuildUpload {
            request_id: known.request_id.filter(|_| same),
            stored_md5_checksum: Some(upload.md5_checksum.clone()),
            ..BuildUpload::default()
        };
        return Shaken { said: Say::yes(UPLOADED, reason::UPLOAD_FOUND, ""), status, retry: Retry::OnChange };
    }
    let no = |why: &str, message: String| Say::no(UPLOADED, why, message);
    let again = "change spec.build.upload.requestID to ask for another URL";
    match (&known.signed_url, &known.expiration) {
        _ if !same => fresh(upload, sent, now),
        (None, _) | (_, None) => {
            let message = "the sources were here and are not any more: newer ones took their room (setting UPLOADS_MIB), or the \
                           operator moved to another disk";
            let said = no(reason::UPLOAD_LOST, format!("{message}; upload them again: {again}"));
            Shaken { said, status: BuildUpload { stored_md5_checksum: None, ..known }, retry: Retry::OnChange }
        }
        (Some(url), Some(Time(end))) if now < *end => {
            if sent.given.as_ref() != Some(url) {
                // Signed by an operator that is no more.
                return fresh(upload, sent, now);
            }
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            let said = match &sent.refusal {
                Some(why) => {
                    no(reason::UPLOAD_REFUSED, format!("what was sent is not taken: {why}; until {end} it may be sent again"))
                }
                None => no(reason::AWAITING_UPLOAD, awaiting(*end)),
            };
            Shaken { said, status: known, retry: Retry::After(left + Duration::from_secs(1)) }
        }
        (Some(_), Some(Time(end))) => {
            let said = match &sent.refusal {
                Some(why) => no(reason::UPLOAD_REFUSED, format!("what was sent was not taken: {why}; {again}")),
                None => no(reason::UPLOAD_EXPIRED, format!("nothing was sent until {end}; {again}")),
            };
            Shaken { said, status: known, retry: Retry::OnChange }
        }
    }
}

fn fresh(upload: &UploadSource, sent: &Sent, now: Timestamp) -> Shaken {
    let end = end(now);
    let status = BuildUpload {
        signed_url: Some(sent.fresh.clone()),
        request_id: Some(upload.request_id.clone()),
        expiration: Some(Time(end)),
        stored_md5_checksum: None,
    };
    let said = Say::no(UPLOADED, reason::AWAITING_UPLOAD, awaiting(end));
    Shaken { said, status, retry: Retry::After(LIFE + Duration::from_secs(1)) }
}

fn awaiting(end: Timestamp) -> String {
    format!("the sources may be sent to status.buildUpload.signedURL until {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(request: &str) -> UploadSource {
        UploadSource { md5_checksum: "AB".repeat(16), request_id: request.to_owned(), ..UploadSource::default() }
    }

    fn sent() -> Sent {
        Sent { fresh: "http://r.test/fresh".to_owned(), ..Sent::default() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn given(shaken: &Shaken) -> Sent {
        Sent { given: shaken.status.signed_url.clone(), ..sent() }
    }

    #[test]
    fn a_url_answers_a_request_and_stays_until_it_ends() {
        let first = shake(&upload("1"), None, &sent(), false, at(1000));
        assert_eq!(first.status.signed_url.as_deref(), Some("http://r.test/fresh"));
        assert_eq!((first.status.request_id.as_deref(), first.status.expiration.clone()), (Some("1"), Some(Time(at(1300)))));
        assert_eq!((first.said.status, first.said.reason.as_str()), (false, reason::AWAITING_UPLOAD));
        let later = shake(&upload("1"), Some(&first.status), &given(&first), false, at(1299));
        assert_eq!((&later.status, later.retry), (&first.status, Retry::After(Duration::from_secs(2))));
        let over = shake(&upload("1"), Some(&first.status), &given(&first), false, at(1300));
        assert_eq!((over.said.reason.as_str(), over.retry), (reason::UPLOAD_EXPIRED, Retry::OnChange));
        let anew = shake(&upload("2"), Some(&over.status), &given(&first), false, at(2000));
        assert_eq!((anew.status.request_id.as_deref(), anew.status.expiration), (Some("2"), Some(Time(at(2300)))));
    }

    #[test]
    fn what_is_here_is_said_as_the_first_operator_said_it() {
        let first = shake(&upload("1"), None, &sent(), false, at(1000));
        let here = Sent { is_here: true, ..given(&first) };
        let came = shake(&upload("1"), Some(&first.status), &here, false, at(1001));
        let expected = BuildUpload {
            request_id: Some("1".to_owned()),
            stored_md5_checksum: Some("AB".repeat(16)),
            ..BuildUpload::default()
        };
        assert_eq!((&came.status, came.said.status, came.said.reason.as_str()), (&expected, true, reason::UPLOAD_FOUND));
        // Asked again for the same bytes, only what is stored is said: the client sends nothing.
        let again = shake(&upload("2"), Some(&came.status), &here, false, at(1002));
        assert_eq!(again.status, BuildUpload { request_id: None, ..expected.clone() });
        let built = shake(&upload("2"), Some(&again.status), &sent(), true, at(1003));
        assert_eq!(built.status, again.status, "what is built needs no sources any more");
    }

    #[test]
    fn refusals_losses_and_operators_that_are_no_more_are_told() {
        let first = shake(&upload("1"), None, &sent(), false, at(1000));
        let refused = Sent { refusal: Some("the MD5 is another".to_owned()), ..given(&first) };
        for (second, words) in [(1001, "may be sent again"), (1400, "requestID")] {
            let said = shake(&upload("1"), Some(&first.status), &refused, false, at(second)).said;
            assert!(said.reason == reason::UPLOAD_REFUSED && said.message.contains(words), "{said:?}");
        }
        let other = shake(&upload("1"), Some(&first.status), &Sent { given: Some("x".to_owned()), ..sent() }, false, at(1100));
        assert_eq!(other.status.expiration, Some(Time(at(1400))), "a URL of another key is replaced");
        let came = shake(&upload("1"), Some(&first.status), &Sent { is_here: true, ..sent() }, false, at(1001));
        let lost = shake(&upload("1"), Some(&came.status), &sent(), false, at(1002));
        assert_eq!((lost.said.reason.as_str(), lost.status.stored_md5_checksum.as_deref()), (reason::UPLOAD_LOST, None));
        let still = shake(&upload("1"), Some(&lost.status), &sent(), false, at(1003));
        assert_eq!(still, lost, "and nothing moves until somebody asks");
    }
}
